"""What the loop asks of an array library."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ai_forge.training.tokens.packing import Batch

Loss = Callable[[Any], Any]
"""Per-token log-probabilities [n_supervised] to a scalar sum."""


@dataclass(frozen=True)
class TokenSums:
    """Sums over supervised tokens: add them up, divide once."""

    loss: float = 0.0
    n_tokens: int = 0
    n_correct: int = 0

    def __add__(self, other: "TokenSums") -> "TokenSums":
        return TokenSums(self.loss + other.loss, self.n_tokens + other.n_tokens, self.n_correct + other.n_correct)

    @property
    def mean_loss(self) -> float:
        """Nats per token."""
        return self.loss / max(self.n_tokens, 1)

    @property
    def accuracy(self) -> float:
        """Share of tokens whose most likely prediction is right."""
        return self.n_correct / max(self.n_tokens, 1)


class Trainee(Protocol):
    """A model with adapters in training."""

    n_trainable: int

    def forward_backward(self, batch: Batch, loss: Loss, divisor: float) -> TokenSums:
        """Add the gradients of `loss / divisor`; the sums are undivided.

        Raises:
            MemoryError: the device's memory does not hold this batch; the gradients added so far are to be discarded.
        """

    def evaluate(self, batch: Batch) -> TokenSums:
        """The sums without gradients; raises MemoryError as `forward_backward`."""

    def clip_gradients(self, max_norm: float) -> float:
        """Scale the gradients to at most `max_norm`; return the global norm before."""

    def step(self, learning_rate: float) -> None:
        """One optimizer step; gradients are cleared."""

    def discard_gradients(self) -> None:
        """Forget the gradients added so far."""

    def adapter(self) -> Mapping[str, NDArray[np.float32]]:
        """The adapter's tensors under PEFT's names."""

    def save_state(self, folder: Path) -> None:
        """Write adapter and optimizer so that `load_state` continues bit by bit."""

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote."""

    def memory_bytes(self) -> int:
        """Memory in use by this process (or its device) now."""

    def memory_total_bytes(self) -> int:
        """Memory that there is."""


class Generator(Protocol):
    """A model that answers: the judge's and the parity check's view."""

    def generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations, without the prompt, up to and without the end-of-turn token."""

    def answer(
        self, prompts: Sequence[Sequence[int]], references: Sequence[Sequence[int]], max_new_tokens: int
    ) -> list[tuple[list[int], float]]:
        """For each prompt the greedy answer and the summed −log p (nats) of its reference."""

    def log_probs(self, batch: Batch) -> NDArray[np.float32]:
        """Log-probability of each supervised target [n_supervised]."""

    def vocabulary_log_probs(self, batch: Batch) -> NDArray[np.float32]:
        """Log-probabilities over the whole vocabulary at each supervised target [n_supervised, vocabulary]."""
