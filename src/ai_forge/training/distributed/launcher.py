"""A training in several processes on one machine: starting them, hearing them, ending them together.

Each process is a session of its own and runs the same method of a trainer (`group.Group` joins them); this process only watches.
What survives: Ctrl-C is handed on once, so that all finish the step in hand and rank 0 saves it. A process that dies or fails
ends the others, and its error is the one that is told, not the broken connections that follow. If this process dies, however it
dies, the others end too.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ai_forge.config import FineTuneConfig
from ai_forge.errors import AIForgeError, InputError, InternalError, TransientError
from ai_forge.events import Sink, ignore
from ai_forge.training.backends import backend_name
from ai_forge.training.distributed.cluster import joined
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.group import LostError, Place

GRACE_S = 5.0
"""How long the others may still say what happened to them after the first has failed."""

_SAFE_PATH = "PYTHONSAFEPATH"
"""Python's own variable: where it is set, the current folder is not searched for modules."""


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
    kind: type[FineTuneTrainer], config: FineTuneConfig, method: str, *data: Any, emit: Sink, **parts: Any
) -> Any:
    """`kind(config, **parts).method(*data)` in as many processes as `n_processes` says: those of a launcher, or started here.

    Raises:
        InputError: several processes on another backend than torch; and whatever the method raises.
        TransientError: a process was ended from outside.
        KeyboardInterrupt: Ctrl-C; a checkpoint has been saved.
    """
    n, _ = n_processes(config)
    if n == 1:
        return getattr(kind(config, **parts, emit=emit), method)(*data)
    if backend_name(config.backend) != "torch":
        raise InputError(
            f"{n} processes are to train, and only torch trains in several processes.",
            "leave --nproc or the launcher out.",
        )
    cluster = joined()
    if cluster is not None:
        return cluster.train(kind, config, method, data, parts, emit)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="ai-forge-") as folder:
        processes: list[BaseProcess] = []
        ears: list[Any] = []
        try:
            for rank in range(n):
                ear, mouth = context.Pipe(duplex=False)
                words = (rank, Path(folder) / "meeting", mouth, kind, config, method, data, parts)
                process = context.Process(target=_process, args=words, daemon=True)
                with _safe_path():
                    process.start()
                mouth.close()
                processes.append(process)
                ears.append(ear)
            with _interrupts_handed_on(processes):
                return _listen(processes, ears, emit)
        finally:
            for started in processes:
                started.kill()
                started.join()


def _process(
    rank: int,
    meeting_place: Path,
    mouth: Connection,
    kind: type[FineTuneTrainer],
    config: FineTuneConfig,
    method: str,
    data: Sequence[Any],
    parts: dict[str, Any],
) -> None:
    """What one of the processes does; rank 0 tells its events."""
    os.setsid()  # so that the terminal's Ctrl-C comes through the parent, once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from ai_forge.training.backends.torch_group import TorchGroup

        group = TorchGroup(Place(rank, config.nproc, rank, config.nproc, meeting_place.as_uri()))
        emit = (lambda event: mouth.send(("event", event))) if rank == 0 else ignore
        mouth.send(("result", getattr(kind(config, **parts, emit=emit, group=group), method)(*data)))
    except (AIForgeError, KeyboardInterrupt) as error:
        mouth.send(("error", error))
    except Exception:  # noqa: BLE001 (told by the parent)
        mouth.send(("error", InternalError(f"Process {rank} failed: {traceback.format_exc()}")))
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


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _interrupts_handed_on(processes: Sequence[BaseProcess]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def hand_on(signum: int, frame: object) -> None:
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signal.SIGINT)

    before = signal.signal(signal.SIGINT, hand_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _listen(processes: Sequence[BaseProcess], ears: Sequence[Any], emit: Sink) -> Any:
    """Pass events on until all have a result; raise what went wrong first of all."""
    results: dict[int, Any] = {}
    problems: list[BaseException] = []
    open_ears: dict[Any, int] = {ear: rank for rank, ear in enumerate(ears)}
    until = None
    while open_ears and (until is None or time.monotonic() < until):
        left_s = None if until is None else max(0.0, until - time.monotonic())
        ready: list[Any] = list(wait(list(open_ears), timeout=left_s))
        for ear in ready:
            rank = open_ears[ear]
            what: str
            value: Any
            try:
                what, value = ear.recv()
            except EOFError:
                processes[rank].join()
                what, value = (
                    "error",
                    TransientError(
                        f"Process {rank} of {len(processes)} was ended from outside (exit code {processes[rank].exitcode}).",
                        "run the same command again: it continues from the newest checkpoint.",
                    ),
                )
            if what == "event":
                emit(value)
                continue
            del open_ears[ear]
            if what == "result":
                results[rank] = value
            else:
                problems.append(value)
                until = until or time.monotonic() + GRACE_S
    if problems:
        raise min(problems, key=_rank_of)
    return results[0]


def _rank_of(problem: BaseException) -> int:
    """Causes before consequences: what a process says of itself, one that was killed, Ctrl-C, a crash, a lost connection."""
    order = (LostError, InternalError, KeyboardInterrupt, TransientError)
    return next((len(order) - place for place, kind in enumerate(order) if isinstance(problem, kind)), 0)
