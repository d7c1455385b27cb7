"""A training cycle: the tasks in order, at most one at a time for a repository, continued where it was cut off.

What survives a crash: `cycle.json` names the run at work and how each task ended, the runner continues the run, and a deployment
counts or does not. A trigger is written down (`asked.json`) before anyone works on it; whoever holds the lock takes it. A newer
trigger joins the one that waits, so there is never more than one cycle at work and one to come. The lock goes with its process.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ai_forge.cancel import CancelToken
from ai_forge.errors import TransientError
from ai_forge.json_lines import lines_of
from ai_forge.pipeline.identity import identity_of, model_suffix
from ai_forge.places import regular_bytes
from ai_forge.workspace import Workspace, atomic_write

__all__ = ["CycleRecord", "CycleStore", "Ending", "GuardianView", "TaskRecord", "TaskState", "guardians_of", "wait"]

TaskState = Literal["running", "done", "no", "failed", "cancelled"]
Ending = Literal["running", "deployed", "held back", "refused", "failed", "cancelled"]
MADE_NO_MODEL = ("refused", "failed", "cancelled")
KEPT = 50  # cycles that the history remembers


class TaskRecord(BaseModel):
    """A task of a cycle and how it ended."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: TaskState
    seconds: float = 0.0
    text: str = ""
    artifact: Path | None = None


class CycleRecord(BaseModel):
    """A cycle: why it ran, on which run, how each task ended. `files` names the state of the files that it was about."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    model: str
    repository: Path
    recipe: str
    reason: str
    started: datetime.datetime
    files: str | None = None
    state: Ending = "running"
    ended: datetime.datetime | None = None
    tasks: tuple[TaskRecord, ...] = ()
    text: str = ""
    next_step: str | None = None
    error: str | None = None
    """The stable code of the error that ended it."""
    job_id: str | None = None
    """The job of the queue that does it."""

    @property
    def said_no(self) -> bool:
        """Whether a task's answer was no: those after it have nothing to do."""
        return any(task.state == "no" for task in self.tasks)

    def outcome(self) -> tuple[Ending, str]:
        """How a cycle ends whose tasks ended so, and what the last of them said."""
        text = self.tasks[-1].text if self.tasks else ""
        states = {task.name: task.state for task in self.tasks}
        if states.get("validate_data") == "no":
            return "refused", text
        return "deployed" if states.get("deploy") == "done" else "held back", text

    def with_task(self, task: TaskRecord) -> CycleRecord:
        """The same with a task begun or ended; an attempt before it is replaced."""
        others = tuple(one for one in self.tasks if one.name != task.name)
        return self.model_copy(update={"tasks": (*others, task)})


class CycleStore:
    """What is kept of a project's cycles: `guardian/<identity>/` in the workspace."""

    def __init__(self, workspace: Workspace, repository: Path, recipe: str) -> None:
        self._workspace = workspace
        # by identity and not by the model's name, which a repository has only after its first run
        self.key = identity_of(repository) + model_suffix(recipe)
        self.folder = workspace.root / "guardian" / self.key
        self._record, self._asked, self._stop = (self.folder / name for name in ("cycle.json", "asked.json", "stop"))

    # -- what is known --------------------------------------------------------------------------------------------------

    def last(self) -> CycleRecord | None:
        """The newest cycle, at work or ended."""
        return _read(self._record)

    def history(self) -> list[CycleRecord]:
        """The cycles that ended, oldest first."""
        try:
            text = regular_bytes(self.folder / "history.jsonl").decode("utf-8", "replace")
        except OSError:
            return []
        found = []
        for _, line in lines_of(text):
            with contextlib.suppress(ValidationError):
                found.append(CycleRecord.model_validate_json(line))
        return found

    def given_up(self, files: str) -> str | None:
        """How the last cycle ended if it was about these very files and made no model."""
        last = self.last()
        if last is not None and last.files == files and last.state in MADE_NO_MODEL:
            return last.state
        return None

    def keep(self, record: CycleRecord) -> None:
        """Write a cycle down; one that ended goes to the history, too."""
        atomic_write(self._record, record.model_dump_json(indent=1))
        if record.state != "running":
            rows = [*self.history(), record][-KEPT:]
            atomic_write(self.folder / "history.jsonl", "".join(row.model_dump_json() + "\n" for row in rows))

    # -- who works ------------------------------------------------------------------------------------------------------

    def ask(self, reason: str) -> None:
        """Ask for a cycle; where one waits already, this joins it."""
        waiting = self.asked()
        reasons = [] if waiting is None else [waiting]
        if reason not in reasons:
            reasons.append(reason)
        atomic_write(self._asked, json.dumps({"reason": "; ".join(reasons)[-500:]}))

    def asked(self) -> str | None:
        """Why a cycle is asked for, where one waits."""
        try:
            return str(json.loads(regular_bytes(self._asked))["reason"])
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    def take(self) -> str | None:
        """The trigger that waits, taken off. For whoever holds the lock."""
        reason = self.asked()
        self._asked.unlink(missing_ok=True)
        return reason

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Hold the project's cycle. Raises `TransientError` where another process or thread has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._workspace.lock(f"guardian-{self.key}"):
            self._stop.unlink(missing_ok=True)  # whoever asked the one before to stop did not mean this one
            yield

    @property
    def is_working(self) -> bool:
        """Whether a cycle is at work, here or in another process."""
        try:
            with self._workspace.lock(f"guardian-{self.key}"):
                return False
        except TransientError:
            return True

    def ask_to_stop(self) -> bool:
        """Ask the cycle at work to stop where nothing is lost; False where none is."""
        if not self.is_working:
            return False
        atomic_write(self._stop, "")
        return True

    @property
    def is_to_stop(self) -> bool:
        """Whether someone has asked."""
        return self._stop.exists()


class GuardianView(BaseModel):
    """A guardian in three lines: whose model, how its newest cycle stands, why it ran."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: str
    reason: str


def guardians_of(workspace: Workspace) -> list[GuardianView]:
    """The guardians of the workspace that ever ran a cycle, the newest first. Nothing is locked or loaded."""
    records = [_read(path) for path in (workspace.root / "guardian").glob("*/cycle.json")]
    known = sorted(
        (record for record in records if record is not None), key=lambda record: record.started, reverse=True
    )
    views = []
    for record in known:
        state = f"{record.state}: {record.text}" if record.text else record.state
        at_work = [task.name for task in record.tasks if task.state == "running"]
        if record.state == "running" and at_work:
            state = f"at work: {at_work[0].replace('_', ' ')}"
        views.append(GuardianView(name=record.model or record.repository.name, state=state, reason=record.reason))
    return views


def _read(path: Path) -> CycleRecord | None:
    try:
        return CycleRecord.model_validate_json(regular_bytes(path))
    except (OSError, ValidationError):  # none, torn, or of another version
        return None


def wait(seconds: float, cancel: CancelToken, clock: Callable[[], float] = time.monotonic) -> None:
    """Wait, unless the work is cancelled meanwhile, which raises `CancelledError`."""
    until = clock() + seconds
    while clock() < until:
        cancel.check()
        time.sleep(min(0.2, max(0.0, until - clock())))
