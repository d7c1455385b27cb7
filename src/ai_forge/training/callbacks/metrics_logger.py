"""The history of a training: loss, accuracy and perplexity of each step and evaluation."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from ai_forge.events import EvalFinished, Event, StepLogged


class MetricsLogger:
    """Collects one record per step and evaluation; `perplexity` is exp(loss). Stored with each checkpoint."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        """Listen to `StepLogged` and `EvalFinished`."""
        if isinstance(event, StepLogged | EvalFinished):
            record = {"event": type(event).__name__, **dataclasses.asdict(event)}
            self.history.append(record | {"perplexity": math.exp(min(event.loss, 700.0))})


def replay(history: Iterable[dict[str, Any]]) -> Iterable[Event]:
    """The events of a stored history, so that listeners continue where a resumed run left off."""
    kinds: dict[str, type[StepLogged] | type[EvalFinished]] = {"StepLogged": StepLogged, "EvalFinished": EvalFinished}
    for record in history:
        kind = kinds[record["event"]]
        yield kind(**{field.name: record[field.name] for field in dataclasses.fields(kind)})
