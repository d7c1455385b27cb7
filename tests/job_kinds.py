"""Kinds of job for tests of the queue: they count instead of training, so that a job takes a second and its process starts quickly.

`count` has steps a, b, c. In each it counts to `options.n` and keeps the number in a file after each, as a training keeps checkpoints;
whoever counts holds the step's mark in the folder `options.marks`, which tells two at once. `options.fail` says how step b fails.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from ai_forge.conductor.jobs.kinds import JobContext, Kind, Perform, Prepared, Step, register_kind
from ai_forge.errors import InputError, TransientError
from ai_forge.events import StageFinished, StageProgress, StageStarted
from ai_forge.json_lines import JsonObject
from ai_forge.workspace import atomic_write

STEPS = (
    Step(name="a", status="training", weight=2.0),
    Step(name="b", status="validating"),
    Step(name="c", status="exporting"),
)


def prepare(context: JobContext) -> Prepared:
    return Prepared(steps=STEPS)


@contextlib.contextmanager
def counting(context: JobContext, prepared: Prepared) -> Iterator[Perform]:
    marks = Path(str(context.request.options["marks"]))
    n, pause = int(str(context.request.options.get("n", 3))), float(str(context.request.options.get("pause", 0.02)))

    def perform(step: str) -> JsonObject:
        context.emit(StageStarted(step))
        with alone(marks, f"{context.job_id} {step}"):
            if step == "b":
                fail(context, marks)
            kept = context.folder / step
            count = int(kept.read_text()) if kept.exists() else 0
            context.emit(StageProgress(step, count, n, "goes on"))
            while count < n:
                context.cancel.check()
                time.sleep(pause)
                count += 1
                atomic_write(kept, str(count))
                context.emit(StageProgress(step, count, n))
            with (marks / "done").open("a") as file:
                file.write(f"{context.job_id} {step}\n")
        context.emit(StageFinished(step, 0.0, False))
        return {step: count}

    yield perform


@contextlib.contextmanager
def alone(marks: Path, what: str) -> Iterator[None]:
    """Whoever is at work says so; a mark of a process that still lives is told in the file `two`, which must not be there."""
    mark = marks / "at-work"
    with contextlib.suppress(OSError, ValueError):
        pid, _, other = mark.read_text().partition(" ")
        os.kill(int(pid), 0)
        if int(pid) != os.getpid() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            (marks / "two").write_text(f"{what} while {pid} {other}")
    atomic_write(mark, f"{os.getpid()} {what}")
    yield
    mark.unlink(missing_ok=True)


def fail(context: JobContext, marks: Path) -> None:
    how, tried = str(context.request.options.get("fail", "")), marks / "tried"
    with tried.open("a") as file:
        file.write("x")
    n_tries = len(tried.read_text())
    if how == "input":
        raise InputError("b cannot be done.", "ask for something else.")
    if how == "memory":
        raise MemoryError("a large array")
    if how == "killed-once" and n_tries == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "busy":
        raise TransientError("Somebody has it.")
    if how == "bug":
        raise KeyError("b")
    if how == "deaf":  # does not look at its token
        time.sleep(60)


register_kind(Kind("count", prepare, counting, trains=True))
