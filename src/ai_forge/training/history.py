"""The history of a training: its steps and held-out evaluations, as they are kept with checkpoints and results."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, JsonValue, PlainSerializer, PlainValidator

from ai_forge.events import AdapterInitialised, EvalFinished, StepLogged

KINDS: dict[str, type[StepLogged] | type[EvalFinished]] = {"StepLogged": StepLogged, "EvalFinished": EvalFinished}


def as_row(event: StepLogged | EvalFinished) -> dict[str, JsonValue]:
    """A measurement as it is stored, with its perplexity exp(loss)."""
    perplexity = math.exp(min(event.loss, 700.0))  # e^710 is more than a float holds
    return {"event": type(event).__name__, **dataclasses.asdict(event), "perplexity": perplexity}


def from_row(row: Any) -> StepLogged | EvalFinished:
    """What `as_row` stored; an event as it is."""
    if isinstance(row, StepLogged | EvalFinished):
        return row
    kind = KINDS[row["event"]]
    # by the fields of today: rows hold the perplexity besides, and those of earlier versions may lack what has a default
    return kind(**{field.name: row[field.name] for field in dataclasses.fields(kind) if field.name in row})


Measured = Annotated[StepLogged | EvalFinished, PlainValidator(from_row), PlainSerializer(as_row)]
"""One step or one held-out evaluation."""


def initialisation_from(row: Any) -> Any:
    """An `AdapterInitialised` as it was stored, earlier under names that spelled quantization with an s."""
    if not isinstance(row, dict):
        return row
    return AdapterInitialised(**{name.replace("quantised", "quantized"): value for name, value in row.items()})


Initialisation = Annotated[AdapterInitialised, BeforeValidator(initialisation_from)]


def best_step(history: Sequence[StepLogged | EvalFinished], default: int) -> int:
    """The step of the lowest held-out loss in a history, the first of equals."""
    evaluations = [event for event in history if isinstance(event, EvalFinished) and math.isfinite(event.loss)]
    if not evaluations:
        return default
    return min(evaluations, key=lambda event: (event.loss, event.step)).step
