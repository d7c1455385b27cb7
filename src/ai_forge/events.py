"""The one stream of what happens in a run: typed events, written to `events.jsonl` and handed to listeners.

The CLI's bars, the report's curves and the callbacks all read these; nobody is handed the training loop itself.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ai_forge.json_lines import JsonObject, append_line, lines_of, whole_characters
from ai_forge.places import SEAL, holds_what_was_written, sealed


@dataclass(frozen=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True)
class StageStarted(Event):
    """A pipeline stage begins."""

    stage: str


@dataclass(frozen=True)
class StageProgress(Event):
    """`done` of `total` units of the stage are finished; `total` 0 means that it is not known."""

    stage: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class StageFinished(Event):
    """A stage ended; `cached` when nothing had to be done. `counts` are what it made, `text` says it in a sentence."""

    stage: str
    seconds: float
    cached: bool
    # of a stage its summary; open, because each stage counts other things and readers show what they find
    counts: JsonObject = field(default_factory=dict)
    text: str = ""


@dataclass(frozen=True)
class StageFailed(Event):
    """A stage ended in an error, of which `code` is stable; `message` and `next_step` are what the error says."""

    stage: str
    seconds: float
    code: str
    message: str
    next_step: str | None = None


@dataclass(frozen=True)
class StageCancelled(Event):
    """Someone asked the stage to stop, and it did; what it had done is kept where it can be continued."""

    stage: str
    seconds: float
    reason: str


@dataclass(frozen=True)
class AdapterInitialised(Event):
    """What was really initialised, its error, and how far the logits moved: see `training.initialisation`.

    `relative_error` is ‖s·B·A + frozen − W‖ / ‖W‖ over all matrices, `relative_error_quantized` that of W plainly quantized,
    `worst_layer` the matrix with the largest and `worst_relative_error` its error. Ranks are `rank` but on `n_other_ranks`.
    """

    init_method: str
    quantization: str
    rank: int
    n_matrices: int
    n_trainable: int
    relative_error: float
    kl_initialised: float
    kl_quantized_base: float
    seconds: float
    relative_error_quantized: float = 0.0
    worst_layer: str = ""
    worst_relative_error: float = 0.0
    n_other_ranks: int = 0

    @property
    def error_removed(self) -> float:
        """Share of plain quantization's error that is not there; 0 where nothing is quantized."""
        if self.relative_error_quantized == 0:
            return 0.0
        return 1 - self.relative_error / self.relative_error_quantized


@dataclass(frozen=True)
class PlanMade(Event):
    """How many steps and examples the schedule was laid over, and from which measured speed."""

    n_steps: int
    n_examples: int
    tokens_per_s: float
    expected_s: float
    reason: str


@dataclass(frozen=True)
class StepLogged(Event):
    """One optimizer step. `loss` is the mean over supervised tokens (nats), `accuracy` their top-1 share."""

    step: int
    n_steps: int
    loss: float
    accuracy: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    memory_bytes: int
    eta_s: float
    seconds: float = 0.0


@dataclass(frozen=True)
class EvalFinished(Event):
    """Held-out loss (nats per supervised token) after `step` optimizer steps."""

    step: int
    loss: float
    accuracy: float
    n_tokens: int
    seconds: float = 0.0


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A complete checkpoint lies in `folder`."""

    step: int
    folder: str


@dataclass(frozen=True)
class AnswerSampled(Event):
    """What the model answers to a fixed held-out question after `step` optimizer steps, greedily."""

    step: int
    question: str
    answer: str


@dataclass(frozen=True)
class TrainingStopped(Event):
    """Training ended after `step` steps because of `reason`: finished, early stopping, time budget …"""

    step: int
    reason: str


@dataclass(frozen=True)
class Notice(Event):
    """Something the user should know. `level` is info or warning."""

    level: str
    message: str


Sink = Callable[[Event], None]


class Progress(Protocol):
    """Hears how far something has come: `done` of `total` units, with a word on what is at work."""

    def __call__(self, done: int, total: int, note: str = "") -> None:  # noqa: D102 (the class says it)
        ...


def ignore(_: Event) -> None:
    """A sink for those who do not listen."""


class EventStream:
    """Appends events to a JSON-lines file and hands each to the listeners.

    Progress events go to the file at most once a second; listeners get them all.
    """

    def __init__(self, path: Path | None, *listeners: Sink, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._listeners = listeners
        self._clock = clock
        self._last_progress = 0.0

    def __call__(self, event: Event) -> None:
        """Record `event`."""
        now = self._clock()
        if self._path is not None and self._worth_writing(event, now):
            # opened for each event: what was told before a crash is in the file, and nothing has to be closed
            record = {"time": round(now, 3), "event": type(event).__name__, **dataclasses.asdict(event)}
            append_line(self._path, sealed(whole_characters(record)))
        for listener in self._listeners:
            listener(event)

    def _worth_writing(self, event: Event, now: float) -> bool:
        if not isinstance(event, StageProgress):
            return True
        if (
            now - self._last_progress < 1.0
        ):  # a stage reports thousands of units; a reader of the file looks now and then
            return False
        self._last_progress = now
        return True


def read_events(path: Path) -> Iterator[JsonObject]:
    """The records of an `events.jsonl`; none where there is no such file."""
    if not path.is_file():  # a pipe in its place would be waited for
        return
    for _, line in lines_of(path.read_text(encoding="utf-8", errors="replace")):
        record = event_of(line)
        if record is not None:
            yield record


def n_damaged_events(path: Path) -> int:
    """How many lines of an `events.jsonl` tell nothing any more; the last one may be torn, or is just being written."""
    if not path.is_file():
        return 0
    *whole, last = path.read_text(encoding="utf-8", errors="replace").split("\n")
    if _is_torn(last):
        last = ""
    return sum(bool(line.strip()) and event_of(line) is None for line in (*whole, last))


def _is_torn(line: str) -> bool:
    """Whether what stands behind the last line's end is the beginning of one: cut off, perhaps within a character, but not changed."""
    beginning = line.removesuffix("\ufffd")
    is_changed = "\0" in line or "\ufffd" in beginning  # zeros are what a power cut leaves
    if beginning != line and record_of(beginning) is not None:  # a whole record: what is unreadable was its line's end
        is_changed = True
    return "{".startswith(line[:1]) and not is_changed


def event_of(line: str | bytes) -> JsonObject | None:
    """The record of one line of an `events.jsonl`; None where a crash tore it, it is damaged, or it is of something else."""
    record = record_of(line)
    if record is None or "event" not in record or not holds_what_was_written(record):
        return None
    record.pop(SEAL, None)
    return record


def record_of(line: str | bytes) -> JsonObject | None:
    """The object on one line of a file that is appended to; None where a crash tore it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
