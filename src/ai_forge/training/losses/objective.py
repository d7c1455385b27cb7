"""What the one loop minimises, as it sees it: items, how they are packed, their loss, and what a step is divided by.

    objective            an item is             a step's sum is divided by
    SupervisedObjective  a TokenizedExample     its supervised tokens (or their weights' sum, see `raft_loss`)
    PreferenceObjective  a TokenizedPair        its pairs (`dpo_loss`)

A loss is a function of the log-probabilities of the supervised tokens, example after example in the order in which they
were packed, so it works on the arrays of any backend.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from ai_forge.training.backends.base import Loss, TokenSums, Trainee
from ai_forge.training.losses.raft_loss import weighted_loss
from ai_forge.training.losses.sft import sft_loss
from ai_forge.training.tokens.packing import TokenizedExample, collate


class Objective(Protocol):
    """What is trained on and for."""

    def examples(self, items: Sequence[Any]) -> list[TokenizedExample]:
        """What of `items` is packed, in this order."""

    def loss(self, items: Sequence[Any]) -> Loss:
        """From the log-probabilities of the packed `items` to a sum."""

    def weight(self, items: Sequence[Any]) -> float:
        """What the sum over `items` is divided by."""

    def evaluate(self, trainee: Trainee, items: Sequence[Any]) -> TokenSums:
        """The sums over held-out `items`, without gradients."""


class SupervisedObjective:
    """The answers' tokens, each by its weight; `loss` replaces −Σ log p where no example carries weights."""

    def __init__(self, loss: Callable[[Any], Any] = sft_loss) -> None:
        self._loss = loss

    def examples(self, items: Sequence[TokenizedExample]) -> list[TokenizedExample]:
        """The items themselves."""
        return list(items)

    def loss(self, items: Sequence[TokenizedExample]) -> Loss:
        """`raft_loss` where an example carries weights."""
        if any(item.weights for item in items):
            return weighted_loss([weight for item in items for weight in weights_of(item)])
        return self._loss

    def weight(self, items: Sequence[TokenizedExample]) -> float:
        """The sum of the supervised tokens' weights."""
        return sum(sum(item.weights) or item.n_supervised for item in items)  # without weights each counts 1

    def evaluate(self, trainee: Trainee, items: Sequence[TokenizedExample]) -> TokenSums:
        """−log p of every supervised token, unweighted and without a teacher, so that any two runs can be compared."""
        return trainee.evaluate(collate([without_teacher(item) for item in items]))


def without_teacher(example: TokenizedExample) -> TokenizedExample:
    """The example as one that is learned by its tokens."""
    return replace(example, teacher=None)


def weights_of(example: TokenizedExample) -> tuple[float, ...]:
    """One weight for each supervised token."""
    return example.weights or (1.0,) * example.n_supervised


def as_objective(loss: "Loss | Objective") -> Objective:
    """An objective as it is; a plain loss of log-probabilities as that of supervised examples."""
    if callable(loss):
        return SupervisedObjective(loss)
    return loss
