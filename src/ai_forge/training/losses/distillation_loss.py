"""Distillation: the student learns what the teacher thought at each token, not one worded answer.

The teacher is the same model with a richer prompt (prompt distillation, arXiv 2412.14964), so its probabilities are computed
beforehand: with PiSSA a model whose adapter is off is not the base. Of each position its k likeliest tokens are kept; the rest
of the vocabulary counts as one more outcome, which keeps the loss a divergence of two distributions:

    KL = Σ_top p·(log p − log q) + p_rest·(log p_rest − log q_rest)      p the teacher's, q the student's

It is never above the divergence of the whole vocabularies, and that one where k is all of them (tested). Its gradient with
respect to the logits is q − p on the top tokens and q·(1 − p_rest / q_rest) on each other one.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ai_forge.training.backends.base import Loss
from ai_forge.training.losses.objective import SupervisedObjective
from ai_forge.training.losses.sft import sft_loss
from ai_forge.training.tokens.packing import TokenizedExample

# of all probability: less than this is lost in rounding where the top tokens hold the rest, and log(0) is no number
LEAST_REST = 1e-6


def distillation_loss(teacher: NDArray[np.float32]) -> Callable[[Any], Any]:
    """The summed KL divergence from the teacher's top tokens [n, k] (log-probabilities) to the student's at the same tokens.

    The loss takes torch tensors [n, k]; nats, summed over the positions.
    """

    def loss(student: Any) -> Any:
        log_p = student.new_tensor(teacher)
        p = log_p.exp()
        p_rest = (1 - p.sum(1)).clamp(min=LEAST_REST)
        q_rest = (1 - student.exp().sum(1)).clamp(min=LEAST_REST)
        return (p * (log_p - student)).sum() + (p_rest * (p_rest.log() - q_rest.log())).sum()

    return loss


class DistillationObjective(SupervisedObjective):
    """Examples with a teacher learn its distribution by `share` and its words by the rest; the others their words.

    Both are needed. What the checks kept is in the words alone: a teacher that cites in half of its samples tells by its
    distribution not to cite in the other half (measured: EXPERIMENTS.md, 2026-11-27).

    Held-out loss is that of the written answers for all of them, so that runs with and without a teacher can be compared.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self._share = share

    def loss(self, items: Sequence[TokenizedExample]) -> Loss:
        """From the log-probabilities [n_supervised, 1 + k] of targets and candidates to a sum."""
        if not any(item.teacher for item in items):
            return super().loss(items)

        def total(log_probs: Any) -> Any:
            value, at = 0.0, 0
            for item in items:
                rows = log_probs[at : at + item.n_supervised]
                at += item.n_supervised
                words = sft_loss(rows[:, 0])
                if item.teacher is None:
                    value = value + words
                else:
                    k = item.teacher.log_probs.shape[1]
                    thought = distillation_loss(item.teacher.log_probs)(rows[:, 1 : 1 + k])
                    value = value + self._share * thought + (1 - self._share) * words
            return value

        return total
