"""Notice a training that gets worse and worse instead of better."""

import statistics
from collections import deque

from ai_forge.events import EvalFinished, Event, StepLogged

WINDOW = 5
LEAST_RISE = 2.0  # nats per token: e² ≈ 7 times less likely answers


class DivergenceGuard:
    """`reason` says that the training diverged, once the median loss of the last five steps is far above the start's.

    Far: by two nats, or by the start itself where that is more. The start is the held-out loss before the first step or the
    first step's own loss, whichever is larger.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._first: float | None = None
        self._last: deque[float] = deque(maxlen=WINDOW)

    def __call__(self, event: Event) -> None:
        """Listen to `StepLogged` and `EvalFinished`."""
        if isinstance(event, EvalFinished) and self._start is None:
            self._start = event.loss
        elif isinstance(event, StepLogged):
            if self._first is None:
                self._first = event.loss
            self._last.append(event.loss)

    @property
    def reason(self) -> str | None:
        """Why training should stop now, or None."""
        if self._first is None or len(self._last) < WINDOW:
            return None
        start = self._first
        if self._start is not None:
            start = max(start, self._start)
        now = statistics.median(self._last)  # single bad batches are no divergence
        if now <= start + max(LEAST_RISE, start):
            return None
        return (
            f"The training diverged: the loss rose from {start:.3f} to {now:.3f} (median of the last {WINDOW} steps)."
        )
