"""Perplexity against transformers' own loss, on a tiny random model."""

import math
from pathlib import Path

import pytest
import torch

from ai_forge.judge.evaluator import compute_perplexity, measure_perplexity
from ai_forge.judge.metrics.models import Scoring
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import messages_for
from ai_forge.training.backends.torch_model import TorchGenerator
from tiny_models import make_tiny
from tiny_training import raft_examples, random_examples, reference_model

TEXT = 'def first(values):\n    """Größtes zuerst."""\n    return values[0] if values else None\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("perplexity") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Scoring:
    tokenizer = ChatTokenizer(folder)
    return Scoring(TorchGenerator.load(folder, tokenizer.end_of_turn_id, exact=True), tokenizer)


def hugging_face_loss(folder: Path, ids: list[int], n_prompt: int = 0) -> float:
    labels = torch.tensor([ids])
    labels[:, :n_prompt] = -100
    with torch.no_grad():
        return float(reference_model(folder)(torch.tensor([ids]), labels=labels).loss)


def test_of_a_text_equals_transformers_and_is_told_per_word_and_byte(folder: Path, model: Scoring) -> None:
    ids = model.tokenizer.encode(TEXT)
    loss = hugging_face_loss(folder, ids)
    made = measure_perplexity(model, [TEXT])
    scored = model.tokenizer.decode(ids[1:])
    assert made.per_token == pytest.approx(math.exp(loss), rel=1e-4)
    assert made.n_tokens == len(ids) - 1
    nats = loss * made.n_tokens
    assert made.per_byte == pytest.approx(math.exp(nats / len(scored.encode())), rel=1e-4)
    assert made.per_word == pytest.approx(math.exp(nats / len(scored.split())), rel=1e-4)


def test_of_an_example_counts_the_answer_alone(folder: Path, model: Scoring) -> None:
    (example,) = raft_examples(1)
    prompt = model.tokenizer.encode_prompt(messages_for(example.question, example.shown_documents))
    ids = [*prompt, *model.tokenizer.encode_target(example.target)]
    assert compute_perplexity(model, [example]) == pytest.approx(
        math.exp(hugging_face_loss(folder, ids, len(prompt))), rel=1e-4
    )


def test_batches_are_weighed_by_their_tokens(model: Scoring) -> None:
    examples = random_examples(5)
    made = measure_perplexity(model, examples, batch_size=2)
    assert len(made.batches) == 3
    sizes = [sum(e.n_supervised for e in examples[i : i + 2]) for i in (0, 2, 4)]
    nats = sum(math.log(batch) * size for batch, size in zip(made.batches, sizes, strict=True))
    assert made.per_token == pytest.approx(math.exp(nats / sum(sizes)), rel=1e-9)


def test_a_folder_is_loaded_by_its_path(folder: Path, model: Scoring, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AI_FORGE_HOME", str(tmp_path))
    assert compute_perplexity(str(folder), [TEXT]) == pytest.approx(compute_perplexity(model, [TEXT]), rel=0.05)


def test_text_with_a_bare_generator_says_what_is_missing(model: Scoring) -> None:
    with pytest.raises(TypeError, match="has no tokenizer"):
        compute_perplexity(model.generator, [TEXT])
    bare = measure_perplexity(model.generator, random_examples(1))
    assert (bare.per_word, bare.per_byte) == (None, None)
