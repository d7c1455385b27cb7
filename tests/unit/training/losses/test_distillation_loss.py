"""Distillation against closed forms, against torch's own divergence, and in a training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ai_forge.errors import InputError
from ai_forge.events import Event, StepLogged
from ai_forge.training.backends.torch_model import TorchGenerator, load_model, target_log_probs
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.losses import DistillationObjective, SupervisedObjective, distillation_loss
from ai_forge.training.tokens.packing import TeacherTokens, TokenizedExample, collate, tokenize, with_teacher
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import raft_examples, random_examples, tiny_config


def random_log_probs(n: int, vocabulary: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(n, vocabulary, generator=generator, dtype=torch.float64)).log_softmax(1)


def top(log_p: torch.Tensor, k: int) -> tuple[torch.Tensor, np.ndarray]:
    best = log_p.topk(k, dim=1)
    return best.indices, best.values.float().numpy()


def test_with_every_token_it_is_torchs_divergence() -> None:
    log_p, log_q = random_log_probs(5, 11, 0), random_log_probs(5, 11, 1)
    ids, kept = top(log_p, 11)
    ours = distillation_loss(kept)(log_q.gather(1, ids))
    reference = functional.kl_div(log_q, log_p, log_target=True, reduction="sum")
    assert float(ours) == pytest.approx(float(reference), rel=1e-5)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_with_some_tokens_it_lies_between_zero_and_the_whole(k: int) -> None:
    log_p, log_q = random_log_probs(6, 32, 2), random_log_probs(6, 32, 3)
    ids, kept = top(log_p, k)
    ours = float(distillation_loss(kept)(log_q.gather(1, ids)))
    whole = float(functional.kl_div(log_q, log_p, log_target=True, reduction="sum"))
    assert 0 < ours < whole
    assert float(distillation_loss(kept)(log_p.gather(1, ids))) == pytest.approx(0, abs=1e-5)


def test_its_gradient_is_the_closed_form() -> None:
    log_p = random_log_probs(4, 20, 4)
    ids, kept = top(log_p, 5)
    logits = torch.randn(4, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    distillation_loss(kept)(logits.log_softmax(1).gather(1, ids)).backward()
    q, p_top = logits.detach().softmax(1), torch.from_numpy(kept).double().exp()
    p_rest = 1 - p_top.sum(1, keepdim=True)
    q_rest = 1 - q.gather(1, ids).sum(1, keepdim=True)
    expected = q * (1 - p_rest / q_rest)
    expected.scatter_(1, ids, q.gather(1, ids) - p_top)
    torch.testing.assert_close(logits.grad, expected, rtol=1e-5, atol=1e-6)


def teacher_for(example: TokenizedExample, k: int = 4, vocabulary: int = 512, seed: int = 0) -> TeacherTokens:
    log_p = random_log_probs(example.n_supervised, vocabulary, seed)
    ids, kept = top(log_p, k)
    return TeacherTokens(ids.int().numpy(), kept)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_examples_with_and_without_a_teacher_share_a_batch(share: float) -> None:
    plain, taught = random_examples(2, seed=3)
    taught = with_teacher(taught, teacher_for(taught))
    assert taught.teacher is not None
    batch = collate([plain, taught])
    assert batch.candidates is not None
    assert batch.candidates.shape == (plain.n_supervised + taught.n_supervised, 4)
    log_q = random_log_probs(batch.n_supervised, 512, 9)
    targets = torch.from_numpy(batch.targets[batch.targets >= 0])
    tokens = torch.cat([targets[:, None], torch.from_numpy(batch.candidates)], dim=1)
    total = DistillationObjective(share).loss([plain, taught])(log_q.gather(1, tokens))
    n = plain.n_supervised
    words = -log_q[:n].gather(1, targets[:n, None]).sum()
    learned = distillation_loss(taught.teacher.log_probs)(
        log_q[n:].gather(1, torch.from_numpy(taught.teacher.ids).long())
    )
    own = -log_q[n:].gather(1, targets[n:, None]).sum()
    assert float(total) == pytest.approx(float(words + share * learned + (1 - share) * own), rel=1e-5)


def test_without_a_teacher_it_is_supervised() -> None:
    examples = random_examples(3, seed=1)
    assert collate(examples).candidates is None
    log_probs = -torch.rand(sum(e.n_supervised for e in examples))
    assert torch.equal(
        DistillationObjective(0.5).loss(examples)(log_probs), SupervisedObjective().loss(examples)(log_probs)
    )


def test_a_teacher_of_another_length_is_refused() -> None:
    first, second = random_examples(2, seed=4)
    assert first.n_supervised != second.n_supervised
    with pytest.raises(InputError, match="another tokenizer wrote them"):
        with_teacher(first, teacher_for(second))


def test_the_model_scores_targets_and_candidates(tmp_path: Path) -> None:
    tiny_model = load_model(make_tiny(tmp_path / "tiny"), device=torch.device("cpu"), dtype=torch.float32)
    examples = random_examples(2, seed=6)
    plain, _ = target_log_probs(tiny_model, collate(examples))
    taught = [with_teacher(example, teacher_for(example)) for example in examples]
    scores, _ = target_log_probs(tiny_model, collate(taught))
    assert scores.shape == (len(plain), 5)
    torch.testing.assert_close(scores[:, 0], plain)


def test_a_training_moves_the_model_towards_its_teacher(tmp_path: Path) -> None:
    """The teacher is another random model: the student's distribution comes nearer to it, not only its likeliest token."""
    heard: list[Event] = []
    workspace = Workspace.open(tmp_path / "home")
    base = resolve_base(str(make_tiny(tmp_path / "base")), cache_dir=workspace.cache_dir)
    trainer = FineTuneTrainer(
        tiny_config(learning_rate=1e-2, max_steps=30, eval_steps=50, result_step="last", distillation=1.0),
        base=base,
        folder=tmp_path / "work",
        workspace=workspace,
        emit=heard.append,
    )
    trainer.folder.mkdir()
    examples = raft_examples(4)
    other = TorchGenerator.load(make_tiny(tmp_path / "teacher", seed=9), trainer.tokenizer.end_of_turn_id, exact=True)
    rows = {example.id: tokenize(example, trainer.tokenizer) for example in examples}
    teacher = {name: TeacherTokens(*other.top_tokens(collate([row]), 16)) for name, row in rows.items()}
    trainer.train(examples, examples[:1], teacher=teacher)
    losses = [event.loss for event in heard if isinstance(event, StepLogged)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
