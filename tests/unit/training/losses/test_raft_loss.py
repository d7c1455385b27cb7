"""Each part of a RAFT answer counts by its weight; equal weights are plain supervised training."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.losses import SupervisedObjective, sft_loss, token_weights, weighted_loss
from ai_forge.training.oom_recovery import MicroBatches
from ai_forge.training.tokens.packing import TokenizedExample, collate, tokenize
from tiny_models import make_tiny
from tiny_training import check_batch, raft_examples, random_examples, tiny_config

TARGET = "The code in [src/a.py:3-9] shows it.\nIt calls `load`."
ANSWER = "It calls `load`."


def starts_of(text: str) -> list[int]:
    """A token for each word and each sign."""
    return [match.start() for match in re.finditer(r"\w+|\S", text)]


def test_the_parts_get_their_weights_and_the_mean_is_one() -> None:
    config = tiny_config(reasoning_weight=1, citation_weight=4, answer_weight=2)
    starts = starts_of(TARGET)
    weights = token_weights(starts, TARGET, len(ANSWER), config)
    assert len(weights) == len(starts) + 1
    assert np.mean(weights) == pytest.approx(1)
    unit = weights[0]
    for start, weight in zip(starts, weights, strict=False):
        cited = TARGET.index("[") <= start <= TARGET.index("]")
        expected = 4 if cited else 2 if start >= TARGET.index(ANSWER) else 1
        assert weight / unit == pytest.approx(expected), TARGET[start:]
    assert weights[-1] / unit == pytest.approx(2)  # the end of turn


def test_a_cited_commit_is_a_citation() -> None:
    target = "It was [commit:0123456789ab].\nYes."
    config = tiny_config(reasoning_weight=1, citation_weight=4, answer_weight=1)
    weights = token_weights([0, target.index("0123")], target, len("Yes."), config)
    assert weights[1] / weights[0] == pytest.approx(4)


def test_equal_weights_are_none() -> None:
    config = tiny_config(reasoning_weight=3, citation_weight=3, answer_weight=3)
    assert token_weights(starts_of(TARGET), TARGET, len(ANSWER), config) == ()


def test_the_weighted_loss_is_the_weighted_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs = -torch.rand(50, generator=generator)
    weights = torch.randint(0, 3, (50,), generator=generator).tolist()
    assert float(weighted_loss(weights)(log_probs)) == pytest.approx(-float((torch.tensor(weights) * log_probs).sum()))
    assert float(weighted_loss([1.0] * 50)(log_probs)) == pytest.approx(float(sft_loss(log_probs)))


def test_weights_follow_their_tokens_into_packed_batches(tmp_path: Path) -> None:
    base = make_tiny(tmp_path)
    trainee, _ = initialise(base, tiny_config(), check_batch(), exact=True)
    examples = [
        TokenizedExample(e.ids, e.n_prompt, "", tuple(float(i % 3) for i in range(e.n_supervised)))
        for e in random_examples(5)
    ]
    objective = SupervisedObjective()
    sums, _ = MicroBatches(3, print).forward_backward(trainee, objective, examples)
    expected = 0.0
    for example in examples:
        for position, weight in enumerate(example.weights):
            n = example.n_prompt + position
            upto = trainee.evaluate(collate([TokenizedExample(example.ids[: n + 1], n)]))
            expected += weight * upto.loss
    assert sums.loss == pytest.approx(expected, rel=1e-4)
    assert objective.weight(examples) == pytest.approx(sum(sum(e.weights) for e in examples))


def test_a_tokenized_example_has_a_weight_for_each_of_its_tokens(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(make_tiny(tmp_path))
    config = tiny_config(citation_weight=5)
    (example,) = raft_examples(1)
    made = tokenize(
        example,
        tokenizer,
        lambda e: token_weights(tokenizer.target_starts(e.target), e.target, len(e.final_answer), config),
    )
    assert len(made.weights) == made.n_supervised
    heavy = [token for token, w in zip(made.ids[made.n_prompt :], made.weights, strict=True) if w == max(made.weights)]
    assert example.oracle_documents[0].citation in tokenizer.decode(heavy)
