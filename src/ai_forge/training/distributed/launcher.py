"""A training in several processes on one machine: starting them, hearing them, ending them together.

Each process is a session of its own and runs the same method of a trainer (`group.Group` joins them); this process only watches,
and needs no torch for it. What survives: a cancelled token is told to rank 0 once, so that all finish the step in hand and it is
saved. A process that dies or fails ends the others, and its error is the one that is told, not the broken connections that
follow. If this process dies, however it dies, the others end too.

Torch's elastic launcher was tried in its place: the watching process takes 570 MB for torch instead of 68, an error arrives as the
text of its traceback, and when the watching process was killed the others trained on.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ai_forge.cancel import NEVER, CancelToken
from ai_forge.config import FineTuneConfig
from ai_forge.errors import AIForgeError, CancelledError, InputError, InternalError, TransientError
from ai_forge.events import Sink, ignore
from ai_forge.training.backends import backend_name
from ai_forge.training.distributed.cluster import Job, joined
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.group import LostError, RankInfo

GRACE_S = 5.0  # for the others to say what happened to them after the first has failed: its error may be a consequence
HEARD_WITHIN_S = 0.2  # how soon the processes hear that they are cancelled
_SAFE_PATH = "PYTHONSAFEPATH"  # Python's own: where it is set, the current folder is not searched for modules


def n_processes(config: FineTuneConfig) -> tuple[int, int]:
    """How many processes will train, in all and on this machine: those that a launcher started, else `config.nproc`.

    Raises:
        InputError: there is a launcher, and `config.nproc` asks for others.
    """
    cluster = joined()
    if cluster is None:
        return config.nproc, config.nproc
    if config.nproc > 1:
        raise InputError(
            f"training.nproc is {config.nproc}, and a launcher has started {cluster.group.size} processes already.",
            "leave --nproc out.",
        )
    return cluster.group.size, cluster.group.n_here


def run_trainer(
    kind: type[FineTuneTrainer],
    config: FineTuneConfig,
    method: str,
    *data: Any,
    emit: Sink,
    cancel: CancelToken = NEVER,
    **parts: Any,
) -> Any:
    """`kind(config, **parts).method(*data)` in as many processes as `n_processes` says: those of a launcher, or started here.

    Raises:
        InputError: several processes on another backend than torch; and whatever the method raises.
        TransientError: a process was ended from outside.
        CancelledError: `cancel` was cancelled; a checkpoint has been saved.
    """
    n, _ = n_processes(config)
    if n == 1:
        trainer = kind(config, **parts, emit=emit, cancel=cancel)
        return getattr(trainer, method)(*data)
    if backend_name(config.backend) != "torch":
        raise InputError(
            f"{n} processes are to train, and only torch trains in several processes.",
            "leave --nproc or the launcher out.",
        )
    cluster = joined()
    if cluster is not None:
        return cluster.train(kind, config, method, data, parts, emit, cancel)
    job: Job = kind, config, method, data, parts
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory(prefix="ai-forge-") as folder:
        rendezvous = (Path(folder) / "rendezvous").as_uri()
        try:
            for rank in range(n):
                workers.append(Worker.start(RankInfo(rank, n, rank, n, rendezvous), job))
            return _listen(workers, emit, cancel)
        finally:  # after a second Ctrl-C, too
            for worker in workers:
                worker.process.kill()
                worker.process.join()


@dataclass(frozen=True)
class Worker:
    """A process that was started here, and this end of its connection."""

    process: BaseProcess
    connection: Connection

    @classmethod
    def start(cls, info: RankInfo, job: Job) -> "Worker":
        """A new process that does its part of `job`."""
        context = multiprocessing.get_context(
            "spawn"
        )  # a fork inherits torch's locks without the threads that hold them
        ours, theirs = context.Pipe()
        process = context.Process(name=f"Process {info.rank}", target=_work, args=(info, theirs, job), daemon=True)
        with _safe_path():
            process.start()
        theirs.close()  # else its end would not be seen here
        return cls(process, ours)

    def receive(self, n_workers: int) -> tuple[str, Any]:
        """The next of what it says: ("event", …), ("result", …) or ("error", …)."""
        try:
            kind, value = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            rank, code = self.process.name, self.process.exitcode
            return "error", TransientError(
                f"{rank} of {n_workers} was ended from outside (exit code {code}).",
                "run the same command again: it continues from the newest checkpoint.",
            )
        return kind, value


def _work(info: RankInfo, connection: Connection, job: Job) -> None:
    """What one of the processes does; rank 0 tells its events and hears that it is cancelled."""
    os.setsid()  # so that the terminal's Ctrl-C reaches the parent only
    threading.Thread(target=_end_with_parent, daemon=True).start()
    kind, config, method, data, parts = job
    cancel = CancelToken()
    emit: Sink = ignore
    if info.rank == 0:
        emit = lambda event: connection.send(("event", event))  # noqa: E731
        threading.Thread(target=_hear_cancellation, args=(connection, cancel), daemon=True).start()
    try:
        from ai_forge.training.backends.torch_group import TorchGroup

        trainer = kind(config, **parts, emit=emit, group=TorchGroup(info), cancel=cancel)
        connection.send(("result", getattr(trainer, method)(*data)))
    except AIForgeError as error:
        connection.send(("error", error))
    except Exception:  # noqa: BLE001 (told by the parent)
        connection.send(("error", InternalError(f"Process {info.rank} failed: {traceback.format_exc()}")))
    else:
        signal.pause()  # until the parent, which has all results, ends it: the others may still be reading from this one
    os._exit(0)  # at once: the connections to the others may be broken, and nothing may wait for them


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Processes that are started inside import nothing from the current folder: it may be the repository, which is not trusted."""
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        yield
    finally:
        del os.environ[_SAFE_PATH]
        if before is not None:
            os.environ[_SAFE_PATH] = before


def _hear_cancellation(connection: Connection, cancel: CancelToken) -> None:
    with contextlib.suppress(EOFError, OSError):  # the parent has ended: so does this process
        cancel.cancel(connection.recv())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _listen(workers: Sequence[Worker], emit: Sink, cancel: CancelToken) -> Any:
    """Pass events on until all have a result; raise what went wrong first of all."""
    results: dict[int, Any] = {}
    problems: list[AIForgeError] = []
    silent_from = math.inf
    listening: dict[Any, int] = {worker.connection: rank for rank, worker in enumerate(workers)}
    is_told = False
    while listening and time.monotonic() < silent_from:
        if cancel.cancelled and not is_told:
            is_told = True
            with contextlib.suppress(OSError):  # it has ended, and why is about to be heard
                workers[0].connection.send(cancel.reason)
        for connection in wait(list(listening), timeout=HEARD_WITHIN_S):
            rank = listening[connection]
            kind, value = workers[rank].receive(len(workers))
            if kind == "event":
                emit(value)
                continue
            del listening[connection]
            if kind == "result":
                results[rank] = value
            else:
                problems.append(value)
                silent_from = min(silent_from, time.monotonic() + GRACE_S)
    if problems:
        nearest = min(problems, key=_remoteness)
        if isinstance(nearest, CancelledError):
            cancel.check()  # only rank 0 was told the reason, and another may have been heard first
        raise nearest
    return results[0]


CONSEQUENCES = (TransientError, CancelledError, InternalError, LostError)
"""What hides a cause, the more the later: a process that was killed, a cancellation, a crash, a lost connection."""


def _remoteness(problem: AIForgeError) -> int:
    """Causes before consequences: what a process says of itself is nearest."""
    return max((at for at, kind in enumerate(CONSEQUENCES, 1) if isinstance(problem, kind)), default=0)
