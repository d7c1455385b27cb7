"""What can be a job. A kind says which steps one of its jobs has and does them, in a process of the job's own.

    register_kind(Kind("sweep", prepare, open))

`prepare` looks at what was asked and returns the steps; its result is kept, so it holds for the whole job, whatever happens
to its processes. `open` gives the function that does a step by its name. A step that was cut off is done again: it has to
find what it had done before. Modules that register kinds are named to the queue, which has the worker import them; so the
guardian has jobs without the conductor knowing the guardian.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ai_forge.cancel import CancelToken
from ai_forge.conductor.schemas import ActiveStatus, JobRequest
from ai_forge.config import Settings
from ai_forge.errors import InputError
from ai_forge.events import Event, Sink
from ai_forge.json_lines import JsonObject
from ai_forge.pipeline.run import Run
from ai_forge.workspace import Workspace


class Step(BaseModel):
    """A step of a job: the status that the job has meanwhile, and its share of the whole work against that of the others."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: ActiveStatus = "training"
    weight: float = 1.0


class Prepared(BaseModel):
    """What a job will do. `run` is given where it works on one: then the run's event stream is the job's."""

    model_config = ConfigDict(frozen=True)

    steps: tuple[Step, ...]
    run: Run | None = None


@dataclass(frozen=True)
class JobContext:
    """What a kind is given. `settings` are the machine's; `folder` is the job's own, for uploads and what it leaves there.

    `emit` is heard by the job's event stream; `early` are the events from before there was a run to have one.
    """

    job_id: str
    request: JobRequest
    workspace: Workspace
    settings: Settings
    config: Path | None
    folder: Path
    emit: Sink
    cancel: CancelToken
    early: list[Event] = field(default_factory=list)


Perform = Callable[[str], JsonObject]
"""Does a step; what it returns is added to the job's metrics."""


@dataclass(frozen=True)
class Kind:
    """A kind of job. One that `trains` waits for the training slot, the others wait for one another only.

    `check` looks at a request before it is queued and raises `InputError` where it can never be done.
    """

    name: str
    prepare: Callable[[JobContext], Prepared]
    open: Callable[[JobContext, Prepared], AbstractContextManager[Perform]]
    trains: bool = False
    check: Callable[[JobRequest, Path | None], None] = lambda request, config: None


_KINDS: dict[str, Kind] = {}
OWN = "ai_forge.conductor.jobs.runs"


def register_kind(kind: Kind) -> Kind:
    """Make `kind` known in this process. A second one of the same name takes the first one's place."""
    _KINDS[kind.name] = kind
    return kind


def load_kinds(modules: Sequence[str] = ()) -> None:
    """Import the modules that register kinds: our own, and these."""
    for module in (OWN, *modules):
        import_module(module)


def kind_named(name: str) -> Kind:
    """The kind of that name.

    Raises:
        InputError: there is none.
    """
    if name not in _KINDS:
        raise InputError(f"There is no kind of job {name!r}.", f"known are {', '.join(sorted(_KINDS))}.")
    return _KINDS[name]
