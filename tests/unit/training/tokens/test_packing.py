"""Packed rows against plain transformers, one example at a time."""

import random
from collections import Counter
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import messages_for
from ai_forge.training.backends.torch_model import TorchGenerator
from ai_forge.training.tokens.packing import (
    IGNORE,
    TokenizedExample,
    by_context,
    code_replay,
    collate,
    n_packed_tokens,
    step_order,
    tokenize,
    tokenize_all,
)
from tiny_models import make_tiny
from tiny_training import raft_examples, random_examples, reference_log_probs, reference_model


@pytest.fixture(scope="module", params=["llama", "qwen2", "phi3", "gemma2", "gemma3_text"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    layers = 6 if request.param == "gemma3_text" else 2  # the sixth sees everything
    return make_tiny(
        tmp_path_factory.mktemp("packing") / request.param, request.param, tied=request.param == "llama", layers=layers
    )


def test_packed_log_probs_equal_those_of_each_example_alone(folder: Path) -> None:
    examples = random_examples(6)
    packed = torch.from_numpy(TorchGenerator.load(folder, 2, exact=True).log_probs(collate(examples)))
    model = reference_model(folder)
    alone = torch.cat([reference_log_probs(model, example) for example in examples])
    assert packed.shape == alone.shape
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=0)


def test_a_document_does_not_see_the_one_before_it(folder: Path) -> None:
    first, other, second = random_examples(3, seed=5)
    other = TokenizedExample((other.ids * 5)[: len(first.ids)], first.n_prompt)
    model = TorchGenerator.load(folder, 2, exact=True)
    with_first = model.log_probs(collate([first, second]))
    with_other = model.log_probs(collate([other, second]))
    n = first.n_supervised
    assert np.abs(with_first[:n] - with_other[:n]).max() > 0.1
    np.testing.assert_allclose(with_first[n:], with_other[n:], atol=1e-6, rtol=0)


def test_a_token_does_not_see_what_follows(folder: Path) -> None:
    example = random_examples(1, seed=9)[0]
    changed = TokenizedExample((*example.ids[:-1], 3), example.n_prompt)
    model = TorchGenerator.load(folder, 2, exact=True)
    ours, theirs = (model.log_probs(collate([e])) for e in (example, changed))
    np.testing.assert_allclose(ours[:-1], theirs[:-1], atol=1e-6, rtol=0)
    assert ours[-1] != theirs[-1]


def branching_examples() -> list[TokenizedExample]:
    """Two families of prompts with 90 and 70 tokens in common, and between them one that shares nothing."""
    draw = random.Random(4)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, 512) for _ in range(n))

    trunks = tokens(90), tokens(70)
    families = [[TokenizedExample((*trunk, *tokens(9 + n)), len(trunk) + 4) for n in range(3)] for trunk in trunks]
    return [*families[0], TokenizedExample(tokens(40), 30), *families[1]]


def test_sharing_a_prompt_changes_no_result(folder: Path) -> None:
    examples = branching_examples()
    batch = collate(examples)
    assert batch.n_tokens == sum(len(e.ids) for e in examples) - 2 * 90 - 2 * 70
    assert batch.parents.tolist() == [-1, 0, 0, 0, -1, -1, 5, 5, 5]
    assert batch.n_tokens == n_packed_tokens(examples, len(examples))
    packed = torch.from_numpy(TorchGenerator.load(folder, 2, exact=True).log_probs(batch))
    model = reference_model(folder)
    alone = torch.cat([reference_log_probs(model, example) for example in examples])
    torch.testing.assert_close(packed, alone, atol=1e-4, rtol=0)


def test_examples_of_one_context_come_together() -> None:
    examples = [TokenizedExample((n, n), 1, context) for n, context in enumerate("abcab")]
    assert [example.ids[0] for example in by_context(examples)] == [0, 3, 1, 4, 2]


def test_the_token_that_predicts_the_answer_is_never_shared() -> None:
    prompt = tuple(range(100))
    batch = collate([TokenizedExample((*prompt, n, n), 100) for n in (7, 8)])
    assert batch.boundaries.tolist() == [0, 99, 102, 105]
    assert batch.targets[batch.targets != IGNORE].tolist() == [7, 7, 8, 8]


def test_targets_are_the_answer_tokens_and_nothing_else() -> None:
    examples = random_examples(5)
    batch = collate(examples)
    start = 0
    for example in examples:
        targets = batch.targets[start : start + len(example.ids)]
        assert (targets[: example.n_prompt - 1] == IGNORE).all()
        assert tuple(targets[example.n_prompt - 1 : -1]) == example.ids[example.n_prompt :]
        assert targets[-1] == IGNORE
        assert batch.position_ids[start : start + len(example.ids)].tolist() == list(range(len(example.ids)))
        start += len(example.ids)
    assert batch.n_supervised == sum(example.n_supervised for example in examples)
    assert batch.n_tokens == start
    assert batch.boundaries.tolist() == [0, *np.cumsum([len(e.ids) for e in examples])]


def test_a_raft_example_is_prompt_answer_and_end_of_turn(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    example = raft_examples(1)[0]
    tokens = tokenize(example, tokenizer)
    asked = tokenizer.encode_prompt(messages_for(example.question, example.shown_documents))
    assert list(tokens.ids[: tokens.n_prompt]) == asked
    assert tokens.ids[-1] == tokenizer.end_of_turn_id
    assert tokenizer.decode(tokens.ids[tokens.n_prompt :]) == example.target


def test_long_examples_are_left_out_and_counted(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    examples = raft_examples(8)
    lengths = sorted(len(tokenize(e, tokenizer).ids) for e in examples)
    kept, n_too_long = tokenize_all(examples, tokenizer, lengths[4])
    assert [len(e.ids) <= lengths[4] for e in kept] == [True] * len(kept)
    assert len(kept) + n_too_long == 8
    assert n_too_long == sum(n > lengths[4] for n in lengths) > 0


def test_replayed_code_is_a_piece_of_what_the_examples_show(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    examples = raft_examples(8)
    shown = [tokenizer.encode(d.text) for e in examples for d in e.shown_documents]
    pieces = code_replay(examples, tokenizer, 20, max_tokens=6, seed=3)
    assert len(pieces) == 20
    assert pieces == code_replay(examples, tokenizer, 20, max_tokens=6, seed=3)
    assert pieces != code_replay(examples, tokenizer, 20, max_tokens=6, seed=4)
    for piece in pieces:
        ids = list(piece.ids)
        assert 1 < len(ids) <= 6
        assert piece.n_prompt == 1
        assert any(ids == text[i : i + len(ids)] for text in shown for i in range(len(text)))
    assert len({piece.ids for piece in pieces}) > 10


@pytest.mark.parametrize(("n", "per_step"), [(7, 3), (8, 4), (3, 8), (1, 2)])
def test_every_example_is_read_once_an_epoch(n: int, per_step: int) -> None:
    n_steps = 3 * n
    contexts = [str(i // 3) for i in range(n)]
    read = [i for step in range(n_steps) for i in step_order(contexts, per_step, step, seed=11)]
    for epoch in range(len(read) // n):
        order = read[epoch * n : (epoch + 1) * n]
        assert Counter(order) == Counter(range(n))
        assert len([context for context, _ in groupby(order, key=contexts.__getitem__)]) == len(set(contexts))


FIFTY = [str(i) for i in range(50)]


def test_the_order_is_a_function_of_its_arguments_alone() -> None:
    expected = [step_order(FIFTY, 4, step, seed=1) for step in range(40)]
    steps = list(range(40))
    random.Random(0).shuffle(steps)
    assert {step: step_order(FIFTY, 4, step, seed=1) for step in steps} == dict(enumerate(expected))
    assert expected != [step_order(FIFTY, 4, step, seed=2) for step in range(40)]
    read = [i for chosen in expected for i in chosen]
    epochs = [read[first : first + 50] for first in (0, 50, 100)]
    assert epochs[0] != sorted(epochs[0])
    assert epochs[0] != epochs[1] != epochs[2]
