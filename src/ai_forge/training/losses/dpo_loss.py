"""Direct preference optimisation (arXiv 2305.18290) and two relatives, on summed log-probabilities of whole answers.

    Δ = (log π(chosen) − log ref(chosen)) − (log π(rejected) − log ref(rejected))

    sigmoid       −log σ(β·Δ)                   log-probabilities summed over the answer
    sigmoid_norm  −log σ(β·Δ)                   averaged over the answer's tokens: length is not rewarded
    ipo           (Δ − 1/(2β))²                 averaged over the answer's tokens (arXiv 2310.12036)

Names and formulas are those of TRL's `loss_type`. The reference is the model as it stood before this phase, that is the
supervised result itself; its log-probabilities are computed once and kept with the pairs. A PiSSA adapter that is switched
off leaves the residual, which is no reference of anything.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ai_forge.config import FineTuneConfig
from ai_forge.config.training import PreferenceLoss
from ai_forge.training.backends.base import Loss, TokenSums, Trainee
from ai_forge.training.tokens.packing import TokenizedExample, collate


@dataclass(frozen=True)
class TokenizedPair:
    """Two answers to one prompt, and the reference's log-probability of each (summed, nats)."""

    chosen: TokenizedExample
    rejected: TokenizedExample
    reference_chosen: float = math.nan
    reference_rejected: float = math.nan

    @property
    def context(self) -> str:
        """What the two share."""
        return self.chosen.context


def softplus(x: Any) -> Any:
    """log(1 + eˣ) without overflow, of a float or of an array of any backend; −log σ(x) is softplus(−x).

    >>> softplus(0.0) == math.log(2), softplus(1000.0), round(softplus(-1000.0), 6)
    (True, 1000.0, 0.0)
    """
    magnitude = abs(x)
    at_least = (x + magnitude) / 2  # max(x, 0); what is missing lies between 0 and log 2
    if isinstance(x, float):
        return at_least + math.log1p(math.exp(-magnitude))
    return at_least + (-magnitude).exp().log1p()


def pair_loss(difference: Any, kind: PreferenceLoss, beta: float) -> Any:
    """The loss of one pair from its Δ (already averaged over tokens where `kind` asks for it)."""
    if kind == "ipo":
        return (difference - 1 / (2 * beta)) ** 2
    return softplus(-beta * difference)


def difference_of(pair: TokenizedPair, chosen: Any, rejected: Any, kind: PreferenceLoss) -> Any:
    """Δ of a pair whose answers have the summed log-probabilities `chosen` and `rejected`."""
    gain_chosen = chosen - pair.reference_chosen
    gain_rejected = rejected - pair.reference_rejected
    if kind == "sigmoid":
        return gain_chosen - gain_rejected
    return gain_chosen / pair.chosen.n_supervised - gain_rejected / pair.rejected.n_supervised


class PreferenceObjective:
    """Pairs; a step's loss is the mean over its pairs."""

    def __init__(self, kind: PreferenceLoss, beta: float) -> None:
        self._kind, self._beta = kind, beta

    @classmethod
    def of(cls, config: FineTuneConfig) -> "PreferenceObjective":
        """As the settings ask."""
        return cls(config.dpo_loss, config.dpo_beta)

    def examples(self, items: Sequence[TokenizedPair]) -> list[TokenizedExample]:
        """Chosen and rejected of each pair side by side, so that their prompt is read once."""
        return [example for pair in items for example in (pair.chosen, pair.rejected)]

    def loss(self, items: Sequence[TokenizedPair]) -> Loss:
        """The sum of the pairs' losses."""
        kind, beta = self._kind, self._beta

        def sum_over_pairs(log_probs: Any) -> Any:
            total, at = 0.0, 0
            for pair in items:
                middle = at + pair.chosen.n_supervised
                end = middle + pair.rejected.n_supervised
                chosen, rejected = log_probs[at:middle].sum(), log_probs[middle:end].sum()
                total = total + pair_loss(difference_of(pair, chosen, rejected, kind), kind, beta)
                at = end
            return total

        return sum_over_pairs

    def weight(self, items: Sequence[TokenizedPair]) -> float:
        """The number of pairs."""
        return len(items)

    def evaluate(self, trainee: Trainee, items: Sequence[TokenizedPair]) -> TokenSums:
        """Sums over pairs: the loss, and how many times the chosen answer gained on the rejected one."""
        loss, n_right = 0.0, 0
        for pair in items:
            chosen, rejected = (-trainee.evaluate(collate([side])).loss for side in (pair.chosen, pair.rejected))
            difference = difference_of(pair, chosen, rejected, self._kind)
            loss += pair_loss(difference, self._kind, self._beta)
            n_right += difference > 0
        return TokenSums(loss, len(items), n_right)


def with_reference(
    trainee: Trainee, pairs: Sequence[TokenizedPair], before_each: Callable[[], None] = lambda: None
) -> list[TokenizedPair]:
    """`pairs` with the log-probabilities that the model gives them now; what `before_each` raises ends it."""
    made = []
    for pair in pairs:
        before_each()
        chosen, rejected = (-trainee.evaluate(collate([side])).loss for side in (pair.chosen, pair.rejected))
        made.append(replace(pair, reference_chosen=chosen, reference_rejected=rejected))
    return made
