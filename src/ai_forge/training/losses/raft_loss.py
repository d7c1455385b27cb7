"""RAFT: reasoning, citations and the final answer weighted each by its own factor.

The target of a RAFT example is its reasoning, in which the oracle documents are cited as `[path:first-last]` or
`[commit:…]`, followed by the final answer. A token counts by the part in which its first character lies. Weights are
normalised to a mean of 1 within an example, so that they shift attention between the parts without changing the learning
rate or favouring examples.

With all three weights equal this is `sft_loss`, token for token (tested).
"""

from collections.abc import Callable, Sequence
from typing import Any

from ai_forge.config import FineTuneConfig
from ai_forge.prompting.prompt import CITATION


def weighted_loss(weights: Sequence[float]) -> Callable[[Any], Any]:
    """−Σ weight · log p over the supervised tokens, in the arrays of any backend."""
    # summed over runs of equal weight, so that no array of weights has to be made in the backend's own kind
    runs: list[tuple[int, int, float]] = []
    for index, weight in enumerate(weights):
        if runs and runs[-1][2] == weight:
            runs[-1] = runs[-1][0], index + 1, weight
        else:
            runs.append((index, index + 1, weight))

    def loss(log_probs: Any) -> Any:
        return -sum(weight * log_probs[first:last].sum() for first, last, weight in runs)

    return loss


def character_weights(target: str, n_answer: int, config: FineTuneConfig) -> list[float]:
    """The weight of each character of `target`, whose last `n_answer` characters are the final answer."""
    weights = [config.reasoning_weight] * (len(target) - n_answer) + [config.answer_weight] * n_answer
    for found in CITATION.finditer(target):
        weights[found.start() : found.end()] = [config.citation_weight] * (found.end() - found.start())
    return weights


def token_weights(starts: Sequence[int], target: str, n_answer: int, config: FineTuneConfig) -> tuple[float, ...]:
    """The weights of a target's tokens and of the end-of-turn token after them; empty where all parts count the same.

    `starts` are the tokens' first characters in `target`. The mean weight is 1; the end of turn belongs to the answer.
    """
    if config.reasoning_weight == config.citation_weight == config.answer_weight:
        return ()
    by_character = character_weights(target, n_answer, config)
    raw = [by_character[min(start, len(target) - 1)] for start in starts] + [config.answer_weight]
    mean = sum(raw) / len(raw)
    if mean == 0:  # nothing of this target was to count: then all of it does
        return ()
    return tuple(weight / mean for weight in raw)
