"""The history of a training: each step and each evaluation."""

from ai_forge.events import EvalFinished, Event, StepLogged


class MetricsLogger:
    """Collects the measurements, which are stored with each checkpoint and told to the listeners again after a resume."""

    def __init__(self) -> None:
        self.history: list[StepLogged | EvalFinished] = []

    def __call__(self, event: Event) -> None:
        """Listen to `StepLogged` and `EvalFinished`."""
        if isinstance(event, StepLogged | EvalFinished):
            self.history.append(event)
