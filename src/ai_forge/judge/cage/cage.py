"""A cage seen from outside: a worker behind the walls, and jobs that it is given one after another."""

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ai_forge.errors import InternalError, PrerequisiteError
from ai_forge.judge.cage.inside import plain
from ai_forge.judge.cage.walls import NAMESPACES_NEXT, SOURCE, Seen, inside_walls

START_S = 30.0  # for the walls and the interpreter, on a busy machine
GRACE_S = 2.0  # what a keeper may take beyond its deadline before the whole cage is ended
WORK_FOLDER = "/tmp/work"
Role = Literal["rooms", "grader"]


@dataclass(frozen=True)
class Limits:
    """What one job may use. `memory_bytes` holds for each process, and for all of the job together."""

    wall_s: float = 3.0
    cpu_s: float = 4.0
    memory_bytes: int = 1_000_000_000
    n_processes: int = 16
    file_bytes: int = 32_000_000
    tmp_bytes: int = 64_000_000
    output_bytes: int = 1_000_000

    @property
    def patience_s(self) -> float:
        """How long the parent waits for a job to end by itself."""
        return self.wall_s + GRACE_S


@dataclass(frozen=True)
class Ended:
    """How a command ended: `why` is "exit N", "wall time", "memory", "output" or "cage" (it broke down)."""

    why: str
    output: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it ended by itself and reports success."""
        return self.why == "exit 0"


class Cage:
    """A worker behind the walls. Close it, or use it as a context manager; one job at a time.

    Raises:
        PrerequisiteError: the walls cannot be made here. Nothing was run.
    """

    def __init__(self, role: Role, seen: Seen | None = None) -> None:
        self._role: Role = role
        self._seen = seen or Seen()
        if sys.platform == "darwin":
            self._seen = dataclasses.replace(self._seen, scratch=Path(tempfile.mkdtemp(prefix="ai-forge-cage-")))
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._start()

    def _start(self) -> None:
        command = inside_walls(self._role, self._seen)
        ours, theirs = socket.socketpair()
        said = tempfile.TemporaryFile()  # noqa: SIM115  closed below
        with theirs, said:
            # nothing of our environment: keys and tokens stand there
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=said,
                stderr=said,
                env={"PATH": "/usr/bin:/bin"},
                start_new_session=True,
            )
            ours.settimeout(START_S)
            self._control = ours
            theirs.close()
            try:
                hello = plain.receive(ours)
            except (EOFError, OSError, ValueError):
                self._end()
                said.seek(0)
                hello = {"broken": said.read(2000).decode(errors="replace").strip() or "the worker did not start"}
        if "broken" in hello:
            self.close()
            raise PrerequisiteError(
                f"The cage cannot be made here ({hello['broken']}); generated code is run in it or not at all.",
                NAMESPACES_NEXT,
            )

    def send(self, job: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        """Give the worker a job with the descriptors that it needs; a worker that is gone is started again."""
        if self._process is None or self._process.poll() is not None or self._control is None:
            self._end()
            self._start()
        assert self._control is not None
        body = json.dumps(job).encode()
        socket.send_fds(self._control, [len(body).to_bytes(plain.LENGTH_BYTES, "big")], list(descriptors))
        self._control.sendall(body)

    def wait(self, timeout_s: float) -> str:
        """How the job ended; a worker that does not say so in time is ended with all that it holds: "cage"."""
        assert self._control is not None
        self._control.settimeout(max(0.05, timeout_s))
        try:
            return str(plain.receive(self._control)["ended"]) or "cage"
        except (EOFError, OSError, ValueError, KeyError, TypeError):
            self._end()
            return "cage"

    def _end(self) -> None:
        """Kill the worker: bubblewrap is process 1 of its namespace, so nothing in it is left."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None

    def close(self) -> None:
        """End the worker."""
        self._end()
        if self._seen.scratch is not None:
            shutil.rmtree(self._seen.scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        argv: Sequence[str],
        limits: Limits,
        *,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a command in a room, in a fresh copy of the cage's source with `files` (path to text) put in their places.

        The output is stdout and stderr together, at most
        `output_bytes` of it; a command that writes more is ended.
        """
        if self._role != "rooms":
            raise InternalError("a grader's cage runs no commands")
        folder, source = WORK_FOLDER, SOURCE
        if self._seen.scratch is not None:
            folder, source = str(self._seen.scratch / secrets.token_hex(8)), str(self._seen.source)
        env = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp"} | dict(environment or {})
        job = {
            "kind": "command",
            "argv": list(argv),
            "source": source if self._seen.source else None,
            "in_tmp": [str(place) for place in self._seen.readable if place.is_relative_to("/tmp")],
            "folder": folder,
            "files": dict(files or {}),
            "env": env,
            "limits": dataclasses.asdict(limits),
        }
        started = time.monotonic()
        leash, leashed = socket.socketpair()
        ours, theirs = socket.socketpair()
        with leash, ours:
            with leashed, theirs:
                self.send(job, [leashed.fileno(), theirs.fileno()])
            output, is_whole = _read(ours, limits.output_bytes, started + limits.patience_s)
            if not is_whole:
                leash.close()  # it has had its time, or has said too much
            why = self.wait(limits.patience_s)
        if why == "leash":
            why = "output"
            if len(output) < limits.output_bytes:
                why = "wall time"
        return Ended(why, output.decode(errors="replace"), time.monotonic() - started)


def _read(connection: socket.socket, most: int, deadline: float) -> tuple[bytes, bool]:
    """What comes until the other side ends, at most `most` bytes; whether that was all."""
    parts: list[bytes] = []
    n_bytes = 0
    while n_bytes < most:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            part = connection.recv(min(1 << 16, most - n_bytes))
        except OSError:
            return b"".join(parts), False
        if not part:
            return b"".join(parts), True
        parts.append(part)
        n_bytes += len(part)
    return b"".join(parts), False


def run_command(argv: Sequence[str], limits: Limits, seen: Seen | None = None) -> Ended:
    """One command in a cage of its own; see `Cage.run`."""
    with Cage("rooms", seen or Seen(tools=True)) as cage:
        return cage.run(argv, limits)
