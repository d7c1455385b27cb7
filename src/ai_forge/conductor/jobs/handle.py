"""A job's process as the worker sees it: started when its first step is due, asked step by step, ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from ai_forge.conductor.jobs.process import STOP, Answer, Task
from ai_forge.json_lines import json_line

Wish = Literal["cancel", "pause", "drain"]
POLL_S = 0.2
GRACE_S = {"cancel": 2.0, "pause": 600.0, "drain": 20.0}
"""How long a process that was asked to stop may take to reach the end of its step. A pause loses nothing if it waits."""
MODULE = "ai_forge.conductor.jobs.process"


class JobProcess:
    """The process; a context manager, after which nothing of it lives."""

    def __init__(self, task: Task, log: Path) -> None:
        self._task = task
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    @property
    def task(self) -> Task:
        """What the process is told, or was."""
        return self._task

    def knows(self, prepared: dict[str, object]) -> None:
        """Tell what `prepare` found, for a process that is started from now on."""
        self._task = self._task.model_copy(update={"prepared": prepared})

    def note(self, text: str) -> None:
        """Add a line to the job's log."""
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"{text}\n")

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # one signal reaches it and all that it starts, and Ctrl-C reaches none of them
            )
        self._process = process
        self._send(self._task.model_dump_json())
        return process

    def _send(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: that is found out when it is read from
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def do(self, step: str, wish: Callable[[], Wish | None]) -> Answer:
        """Have it do a step. `wish` is asked a few times a second whether it is to stop. One that dies answers that it did."""
        process = self._process or self._start()
        assert process.stdout is not None
        self._send(json_line(step).rstrip())
        received, asked, until = b"", None, 0.0
        while not received.endswith(b"\n"):
            readable, _, _ = select.select([process.stdout], [], [], POLL_S)
            if readable:
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    return self._died(asked)
                received += chunk
                continue
            wanted = wish()
            if wanted is not None and wanted != asked:
                asked, until = wanted, time.monotonic() + GRACE_S[wanted]
                self._send(json_line(STOP).rstrip())
            if asked is not None and time.monotonic() > until:
                self.end()
                return Answer(outcome="stopped", message=f"it did not stop within {GRACE_S[asked]:.0f} s and was ended")
        if asked is not None:  # its token is cancelled for good: what is done next needs another process
            self.end()
        return Answer.model_validate_json(received.splitlines()[0])

    def _died(self, asked: Wish | None) -> Answer:
        assert self._process is not None
        code = self._process.wait()
        self.end()
        if asked is not None:
            return Answer(outcome="stopped")
        killed = code == -signal.SIGKILL
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        hint = ", as the system does when memory runs out" if killed else ""
        return Answer(
            outcome="failed",
            code="out_of_memory" if killed else "internal",
            message=f"The job's process {how}{hint}.",
            next_step=f"its log is {self._log}.",
            out_of_memory=killed,
            try_again=not killed,
        )

    def end(self) -> None:
        """End the process and all that it started, and wait for it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
