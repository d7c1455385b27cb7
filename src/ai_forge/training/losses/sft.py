"""Supervised fine-tuning: the negative log-likelihood of the supervised tokens."""

from typing import Any


def sft_loss(log_probs: Any) -> Any:
    """Sum of −log p over the supervised tokens [n_supervised] of a micro batch (nats).

    A sum, not a mean: the loop divides once per optimizer step by the step's supervised tokens, so that the gradient
    does not depend on how the step is cut into micro batches. Works on the arrays of any backend.
    """
    return -log_probs.sum()
