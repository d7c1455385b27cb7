"""Stop when the held-out loss no longer falls, and remember where it was lowest."""

from ai_forge.events import EvalFinished, Event


class EarlyStopping:
    """Counts evaluations without a new lowest loss; `reason` says why to stop, once `patience` of them came in a row."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._n_worse = 0
        self.best_loss = float("inf")
        self.best_step: int | None = None

    def __call__(self, event: Event) -> None:
        """Listen to `EvalFinished`."""
        if not isinstance(event, EvalFinished):
            return
        if event.loss < self.best_loss:  # the first of equals stays the best, and what is no number is worse
            self.best_loss, self.best_step, self._n_worse = event.loss, event.step, 0
        else:
            self._n_worse += 1

    @property
    def reason(self) -> str | None:
        """Why training should stop now, or None."""
        if self._n_worse < self._patience:
            return None
        return f"held-out loss has not fallen in {self._n_worse} evaluations (lowest {self.best_loss:.4f} at step {self.best_step})"
