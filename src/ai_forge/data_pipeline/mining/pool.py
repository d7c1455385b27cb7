"""Files mined by several processes of a loky pool, one a core, each with a batch at a time.

py-tree-sitter holds the interpreter's lock, so threads gain nothing. Small repositories stay in this process.

What goes wrong: a process that dies (killed, or crashed by a grammar) breaks its pool. The files that were on their way are
then mined one at a time in a pool of one, so no more is lost than the file that kills its process when it is alone,
counted as `crashed`. Where no process can be started, this one mines alone. Ctrl-C is for this process, which ends the
others; if it dies, they end within a second.

A process of the pool imports nothing from the current folder: it may be the repository, which is not trusted.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import TypeVar

from ai_forge.data_pipeline.mining.file_mining import MinedFile, MiningTask, mine_file
from ai_forge.data_pipeline.source.repository import SourceFile

__all__ = ["mine_files", "no_collection"]

T = TypeVar("T")
Numbered = tuple[int, SourceFile]
Batch = list[Numbered]
Miner = Callable[[SourceFile, MiningTask], MinedFile]
Results = Generator[tuple[int, MinedFile], None, T]
# Bytes; fewer are mined before other processes have started.
_WORTH_A_POOL = 2_000_000
_MAX_PROCESSES = 8
_MAX_BATCH, _MIN_BATCH = 1_000_000, 50_000
_ENVIRONMENT = {
    "PYTHONSAFEPATH": "1",
    "PYTHONFAULTHANDLER": "",  # loky dumps a crashed process's stack otherwise; the file is counted, which is enough
}


def mine_files(
    sources: Sequence[SourceFile], task: MiningTask, *, processes: int | None = None, mine: Miner = mine_file
) -> Iterator[tuple[int, MinedFile]]:
    """(index, result) of each file, in any order, by `processes` processes; by default one for each core if it pays.

    An error that `mine` raises in another process is raised here.
    """
    n_processes = processes or _worth_starting(sources)
    if n_processes == 1:
        yield from _here(enumerate(sources), task, mine)
        return
    waiting = deque(_batches(sources, n_processes))
    while waiting:
        lost = yield from _side_by_side(waiting, n_processes, task, mine)
        yield from _one_by_one(lost, task, mine)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """No garbage collection inside: a hundred thousand new values that all stay make it a third of the time."""
    was_on = gc.isenabled()  # nothing that is made here refers to itself, so nothing is left behind
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _worth_starting(sources: Sequence[SourceFile]) -> int:
    # An interpreter that is embedded in another program cannot be started again
    if not sys.executable or sum(len(source.content) for source in sources) < _WORTH_A_POOL:
        return 1
    n_cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # a container may have fewer than the machine; macOS does not say
        n_cores = len(os.sched_getaffinity(0))
    return min(n_cores, _MAX_PROCESSES)


def _batches(sources: Sequence[SourceFile], n_processes: int) -> Iterator[Batch]:
    """Files that are worth sending together, the largest first, so that all processes finish together."""
    n_bytes = sum(len(source.content) for source in sources)
    target = max(_MIN_BATCH, min(_MAX_BATCH, n_bytes // (8 * n_processes)))
    batch: Batch = []
    size = 0
    for item in sorted(enumerate(sources), key=lambda item: -len(item[1].content)):
        batch.append(item)
        size += len(item[1].content)
        if size >= target:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _side_by_side(waiting: deque[Batch], n_processes: int, task: MiningTask, mine: Miner) -> Results[Batch]:
    """Results of the waiting batches; returns the files that were on their way when a process died."""
    sent: dict[Future[list[tuple[int, bytes]]], Batch] = {}
    with _pool(n_processes) as pool:
        if not _lives(pool):
            while waiting:
                yield from _here(waiting.popleft(), task, mine)
        while waiting or sent:
            try:
                # One more each than it works at, so that none waits for this process
                while waiting and len(sent) < 2 * n_processes:
                    future = _submit(pool, _packed, waiting[0], task, mine)
                    sent[future] = waiting.popleft()
                done, _ = wait(sent, return_when=FIRST_COMPLETED)
                answers = {future: future.result() for future in done}
            except BrokenExecutor:
                break
            for future, answer in answers.items():
                del sent[future]
                yield from _unpacked(answer)
    return [item for batch in sent.values() for item in batch]


def _one_by_one(items: Batch, task: MiningTask, mine: Miner) -> Results[None]:
    """Each file alone in a process, `crashed` where that dies."""
    left = deque(items)
    while left:
        with _pool(1) as pool:
            if not _lives(pool):
                yield from _here(left, task, mine)
                return
            is_alive = True
            while left and is_alive:
                item = left.popleft()
                try:
                    answer = _submit(pool, _packed, [item], task, mine).result()
                except BrokenExecutor:
                    is_alive = False
                    yield item[0], MinedFile("crashed")
                else:
                    yield from _unpacked(answer)


def _here(items: Iterable[Numbered], task: MiningTask, mine: Miner) -> Results[None]:
    for index, source in items:
        yield index, mine(source, task)


@contextlib.contextmanager
def _pool(n_processes: int) -> Iterator[Executor]:
    from loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(n_processes, initializer=_begin, initargs=(os.getpid(),), env=_ENVIRONMENT)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _lives(pool: Executor) -> bool:
    """Whether processes can be started here: where they cannot, that says nothing against a file."""
    try:
        _submit(pool, os.getpid).result()
    except (BrokenExecutor, OSError):
        return False
    return True


def _submit(pool: Executor, call: Callable[..., T], *given: object) -> "Future[T]":
    """Ask the pool, which starts its processes now: with Ctrl-C blocked, which they inherit."""
    if not hasattr(signal, "pthread_sigmask"):
        return pool.submit(call, *given)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(call, *given)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """Set up a process of the pool."""
    gc.disable()  # as in `no_collection`
    os.dup2(2, 1)  # what a library prints must not land among what the command prints
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(0)


def _packed(batch: Batch, task: MiningTask, mine: Miner) -> list[tuple[int, bytes]]:
    return [(index, mine(source, task).pack()) for index, source in batch]


def _unpacked(answer: list[tuple[int, bytes]]) -> Results[None]:
    for index, packed in answer:
        yield index, MinedFile.unpack(packed)
