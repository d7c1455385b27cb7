"""The process that does a job's steps: `python -m ai_forge.conductor.jobs.process`, started by the worker and by nobody else.

    worker ── stdin: a task, then step names or "stop", a JSON line each ──► this process ── stdout: an answer each ──► worker

Standard input is also the lifetime pipe. When it ends, the worker is gone, however it went, and this process ends itself with
everything it started: it leads a session of its own, so one signal reaches them all. What was done so far is kept by the stages.
It holds a lock on the job's folder as long as it lives, and waits for whoever has it still: so there is never a second one at
work on the same job, however quickly the first one's worker is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ValidationError

from ai_forge.cancel import CancelToken
from ai_forge.conductor.jobs.kinds import JobContext, Perform, Prepared, kind_named, load_kinds
from ai_forge.conductor.schemas import JobRequest
from ai_forge.config import Settings
from ai_forge.errors import AIForgeError, CancelledError, PrerequisiteError
from ai_forge.events import Event, EventStream, Sink
from ai_forge.json_lines import JsonObject, json_line
from ai_forge.workspace import Workspace

WAIT_FOR_PREDECESSOR_S = 60.0  # one whose worker died ends within a moment
STOP = "stop"
PREPARE = "prepare"


class Task(BaseModel):
    """What the process is told first. `prepared` is what an earlier process of the job found out, if there was one."""

    job_id: str
    attempt: int = 1
    request: JobRequest
    home: Path
    config: Path | None
    settings: Settings
    kinds: tuple[str, ...]
    prepared: JsonObject | None = None


class Answer(BaseModel):
    """How a step ended. `out_of_memory` and `try_again` say that the same may go well the next time."""

    outcome: Literal["done", "failed", "stopped"]
    result: JsonObject = {}
    code: str = ""
    message: str = ""
    next_step: str | None = None
    out_of_memory: bool = False
    try_again: bool = False


def failure(error: BaseException) -> Answer:
    """What is told of an error: one of ours as it is, a full disk as what it is, anything else as our bug."""
    if isinstance(error, CancelledError):
        return Answer(outcome="stopped", message=error.message)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" ({error.filename})" if error.filename else ""
        error = PrerequisiteError(f"The disk is full{place}.", "free some space; the job is tried again by itself.")
        return _told(error, try_again=True)
    if isinstance(error, AIForgeError):
        return _told(error, try_again=error.code == "try_again", out_of_memory=_is_out_of_memory(error))
    if _is_out_of_memory(error):
        return Answer(outcome="failed", code="out_of_memory", message=_one_line(error), out_of_memory=True)
    traceback.print_exception(error)  # into the job's log
    return Answer(outcome="failed", code="internal", message=_one_line(error))


def _told(error: AIForgeError, *, try_again: bool = False, out_of_memory: bool = False) -> Answer:
    told = Answer(outcome="failed", code=error.code, message=error.message, next_step=error.next_step)
    return told.model_copy(update={"try_again": try_again, "out_of_memory": out_of_memory})


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: Python's own error, or torch's, which this process need not have loaded."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__
    return False


class Channel:
    """The two pipes to the worker. Commands are read by a thread, so that "stop" and the pipe's end are heard in mid-step."""

    def __init__(self, commands: IO[bytes], answers: IO[bytes], token: CancelToken) -> None:
        self._answers = answers
        self._commands = commands
        self._token = token
        self._waiting: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._commands:
            if json.loads(line) == STOP:
                self._token.cancel("the queue asked for it")
            self._waiting.put(line)
        end_everything()

    def next(self) -> JsonObject | str:
        """The next command, waited for."""
        value: JsonObject | str = json.loads(self._waiting.get())
        return value

    def answer(self, answer: Answer) -> None:
        """Tell the worker how a step ended."""
        self._answers.write(json_line(answer.model_dump(mode="json")).encode())
        self._answers.flush()


def end_everything() -> None:
    """End this process and all that it started, at once."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(70)  # not started as the leader of a group: then only itself


def events_file(task_folder: Path, workspace: Workspace, prepared: Prepared) -> Path:
    """Where the events of a job lie: with its run, or in its own folder where it has none."""
    if prepared.run is not None:
        return workspace.runs_dir / prepared.run.id / "events.jsonl"
    return task_folder / "events.jsonl"


def _prepared_before(task: Task) -> Prepared | None:
    """What an earlier process found out, unless a version that wrote it otherwise did."""
    if task.prepared is None:
        return None
    with contextlib.suppress(ValidationError):
        return Prepared.model_validate(task.prepared)
    return None


class Doing:
    """A job in this process: prepared once, opened when its first step is done, and held until the end."""

    def __init__(self, task: Task, token: CancelToken, held: contextlib.ExitStack) -> None:
        self._kind = kind_named(task.request.kind)
        self._held = held
        self._perform: Perform | None = None
        self.prepared = _prepared_before(task)
        workspace = Workspace.open(task.home)
        folder = workspace.root / "jobs" / task.job_id
        self.context = JobContext(
            job_id=task.job_id,
            request=task.request,
            workspace=workspace,
            settings=task.settings,
            config=task.config,
            folder=folder,
            emit=self._emit,
            cancel=token,
        )
        self._sink: Sink = self.context.early.append

    def _emit(self, event: Event) -> None:
        self._sink(event)

    def do(self, step: str) -> JsonObject:
        """Do a step; `prepare` is the first. Raises whatever the step raises."""
        if step == PREPARE or self.prepared is None:
            self.prepared = self._kind.prepare(self.context)
        if step == PREPARE:
            events = events_file(self.context.folder, self.context.workspace, self.prepared)
            size = events.stat().st_size if events.exists() else 0
            found = self.prepared.model_dump(mode="json")
            place = events.relative_to(self.context.workspace.root)  # a workspace may be moved, or restored elsewhere
            return {"prepared": found, "events": str(place), "events_from": size}
        if self._perform is None:
            if self.prepared.run is None:
                self._sink = EventStream(self.context.folder / "events.jsonl")
            else:
                self._sink = lambda _: None  # the runner writes the run's stream itself
            self._perform = self._held.enter_context(self._kind.open(self.context, self.prepared))
        return self._perform(step)


@contextlib.contextmanager
def _pipes() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Our ends of the two pipes, and in their places nothing to read and the log to write: what we start gets those."""
    commands, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    with answers:  # `commands` is read by a thread until the process ends
        yield commands, answers


def main() -> int:
    """Do steps as they are asked for, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which asks us to stop
    token = CancelToken()
    with _pipes() as (commands, answers), contextlib.ExitStack() as held:
        channel = Channel(commands, answers, token)
        task = Task.model_validate(channel.next())
        lock = Workspace(task.home).lock(f"job-{task.job_id}", wait_s=WAIT_FOR_PREDECESSOR_S, check=token.check)
        doing: Doing | None = None
        while True:
            step = channel.next()
            if step == STOP:
                channel.answer(Answer(outcome="stopped"))
                continue
            try:
                if doing is None:
                    held.enter_context(lock)
                    load_kinds(task.kinds)
                    doing = Doing(task, token, held)
                channel.answer(Answer(outcome="done", result=doing.do(str(step))))
            except BaseException as error:  # noqa: BLE001 (whatever it is, the worker must hear of it)
                channel.answer(failure(error))


if __name__ == "__main__":
    sys.exit(main())
