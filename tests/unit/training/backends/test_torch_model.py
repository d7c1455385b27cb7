"""Answers and log-probabilities against transformers."""

from pathlib import Path

import pytest
import torch

from ai_forge.training.backends import torch_model
from ai_forge.training.backends.torch_model import TorchGenerator
from ai_forge.training.tokens.packing import TokenizedExample, collate
from tiny_models import make_tiny
from tiny_training import check_batch, random_examples, reference_log_probs, reference_model

END = 2


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen3", "phi3", "gemma2", "gemma3_text"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("model") / request.param, request.param, window=16)


@pytest.mark.parametrize("kind", ["padded batch", "one prompt", "equal lengths", "one beginning"])
def test_answers_and_losses_equal_transformers_one_by_one(folder: Path, kind: str) -> None:
    chosen = random_examples(4, seed=2)
    prompts = [e.ids[: None if kind == "padded batch" else 8] for e in chosen[: 1 if kind == "one prompt" else None]]
    if kind == "one beginning":
        prompts = [(*range(5, 105), *e.ids) for e in chosen]
    references = [e.ids[3:] for e in random_examples(len(prompts), seed=3)]
    generator = TorchGenerator.load(folder, END, exact=True)
    ours = generator.answer(prompts, references, 12)
    assert generator.generate(prompts, 12) == [answer for answer, _ in ours]
    model = reference_model(folder)
    for prompt, reference, (answer, nats) in zip(prompts, references, ours, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=END,
            pad_token_id=END,
        )[0, ids.shape[1] :].tolist()
        assert answer == (whole[: whole.index(END)] if END in whole else whole)
        expected = reference_log_probs(model, TokenizedExample((*prompt, *reference), len(prompt)))
        assert nats == pytest.approx(-float(expected.sum()), rel=1e-4)


def test_an_answer_stops_before_the_end_of_turn(folder: Path) -> None:
    prompt = random_examples(1)[0].ids
    free = TorchGenerator.load(folder, END, exact=True).generate([prompt], 6)[0]
    stopped = TorchGenerator.load(folder, free[3], exact=True).generate([prompt], 6)[0]
    assert stopped == free[: free.index(free[3])]


def test_long_batches_are_scored_in_chunks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = TorchGenerator.load(folder, END, exact=True)
    whole = model.log_probs(check_batch(200))
    monkeypatch.setattr(torch_model, "CHUNK", 7)
    assert whole.shape == (199,)
    torch.testing.assert_close(
        torch.from_numpy(model.log_probs(check_batch(200))), torch.from_numpy(whole), atol=1e-5, rtol=0
    )


def test_vocabulary_log_probs_are_distributions(folder: Path) -> None:
    examples = random_examples(3)
    model = TorchGenerator.load(folder, END, exact=True)
    rows = torch.from_numpy(model.vocabulary_log_probs(collate(examples)))
    torch.testing.assert_close(rows.exp().sum(1), torch.ones(len(rows)), atol=1e-5, rtol=0)
    targets = torch.tensor([t for e in examples for t in e.ids[e.n_prompt :]])
    reference = reference_model(folder)
    alone = torch.cat([reference_log_probs(reference, e) for e in examples])
    torch.testing.assert_close(rows.gather(1, targets[:, None])[:, 0], alone, atol=1e-4, rtol=0)


def test_generating_does_not_disturb_packed_scoring(folder: Path) -> None:
    model = TorchGenerator.load(folder, END, exact=True)
    batch = collate(random_examples(3))
    before = model.log_probs(batch)
    model.generate([(5, 6, 7)], 3)
    assert (model.log_probs(batch) == before).all()


def test_weights_are_frozen_and_in_evaluation_mode(folder: Path) -> None:
    model = TorchGenerator.load(folder, END).model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.dtype == torch_model.compute_dtype(model.device)
    assert isinstance(torch_model.describe_device(model.device), str)
    assert TokenizedExample((1, 2), 1).n_supervised == 1


def test_cold_samples_are_the_greedy_answers(folder: Path) -> None:
    generator = TorchGenerator.load(folder, END, exact=True)
    prompts = [example.ids for example in random_examples(3, seed=2)]
    cold = generator.sample(prompts, 12, temperature=1e-4, top_p=0.5, seed=0)
    assert [reply for reply, _ in cold] == generator.generate(prompts, 12)
    assert all(whole or len(reply) == 12 for reply, whole in cold)


def test_samples_follow_the_distribution_and_their_seed(tmp_path: Path) -> None:
    generator = TorchGenerator.load(make_tiny(tmp_path / "m"), END, exact=True)
    prompt = random_examples(1, seed=2)[0].ids
    drawn = generator.sample([prompt] * 2000, 1, temperature=1.0, top_p=0.6, seed=1)
    assert drawn == generator.sample([prompt] * 2000, 1, temperature=1.0, top_p=0.6, seed=1)
    log_p = torch.from_numpy(generator.vocabulary_log_probs(collate([TokenizedExample((*prompt, 5), len(prompt))])))[0]
    order = log_p.argsort(descending=True)
    nucleus = order[: int((log_p[order].exp().cumsum(0) < 0.6).sum()) + 1]
    tokens = torch.tensor([reply[0] if reply else END for reply, _ in drawn])
    assert set(tokens.tolist()) <= set(nucleus.tolist())
    expected = log_p[nucleus].exp() / log_p[nucleus].exp().sum()
    seen = torch.stack([(tokens == token).float().mean() for token in nucleus])
    assert float((seen - expected).abs().max()) < 0.04


def test_the_likeliest_tokens_are_those_of_the_whole_distribution(tmp_path: Path) -> None:
    generator = TorchGenerator.load(make_tiny(tmp_path / "m"), END, exact=True)
    batch = check_batch(40)
    ids, scores = generator.top_tokens(batch, 6)
    best = torch.from_numpy(generator.vocabulary_log_probs(batch)).topk(6, dim=1)
    assert torch.equal(torch.from_numpy(ids).long(), best.indices)
    torch.testing.assert_close(torch.from_numpy(scores), best.values)
