"""Files mined by several processes: this one and helpers, which each get a batch when they have none.

py-tree-sitter holds the interpreter's lock, so threads gain nothing. Helpers are started as `python -c`, not by
`multiprocessing`: fork is unsafe under the threads of a loaded torch, and spawn runs the caller's script again where it
has no `__main__` guard. This process mines too, so one helper's start (0.3 s) costs no waiting, and half of the results
are never sent. Small repositories stay in this process.

The standard pool on spawn has neither: a worker that dies ends all that is in flight, and the caller only waits.

What goes wrong: a helper that dies (killed, or crashed by a grammar) costs no more than the file that kills another one
when it is tried alone, counted as `crashed`; a file that this process takes itself has no such guard. Where no helper can
be started, this process mines alone. Ctrl-C ends the helpers; if this process dies, they end at the end of their input.

A helper imports nothing from the current folder (`-P`): it may be the repository, which is not trusted.
"""

import contextlib
import gc
import io
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ai_forge.data_pipeline.mining.file_mining import MinedFile, MiningTask, mine_file
from ai_forge.data_pipeline.source.repository import SourceFile

__all__ = ["mine_files", "no_collection"]

Numbered = tuple[int, SourceFile]
# Bytes; fewer are mined before a helper has started.
_WORTH_A_HELPER = 2_000_000
_MAX_HELPERS = 7
_MAX_BATCH, _MIN_BATCH = 1_000_000, 50_000
_LENGTH = struct.Struct(">Q")
_READY = "ready"
# A helper runs this very code, also where another copy of the package is installed.
_HERE = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
_SERVE = "from ai_forge.data_pipeline.mining.pool import serve; serve()"


def mine_files(
    sources: Sequence[SourceFile], task: MiningTask, *, processes: int | None = None
) -> Iterator[tuple[int, MinedFile]]:
    """(index, result) of each file, in any order. `processes` counts this one; by default one for each core."""
    if processes is not None:
        n_helpers = processes - 1
    elif not sys.executable or sum(len(source.content) for source in sources) < _WORTH_A_HELPER:
        n_helpers = 0  # an interpreter that is embedded in another program cannot be started again
    else:
        n_cores = os.cpu_count() or 1
        if hasattr(os, "sched_getaffinity"):  # a container may have fewer than the machine; macOS does not say
            n_cores = len(os.sched_getaffinity(0))
        n_helpers = min(n_cores - 1, _MAX_HELPERS)
    work = _Work(sources, n_helpers + 1)
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    helpers: list[_Helper] = []
    threads: list[threading.Thread] = []
    try:
        for _ in range(n_helpers):
            try:
                helpers.append(_Helper(task))
            except OSError:  # no more processes or memory: those that there are do it
                break
            threads.append(threading.Thread(target=_drive, args=(helpers[-1], work, done), daemon=True))
            threads[-1].start()
        # One at a time, so that results of the helpers are passed on between: nothing piles up.
        while batch := work.take(1):
            yield from ((index, mine_file(source, task)) for index, source in batch)
            while not done.empty():
                yield from _results(done.get(), task)
        for thread in threads:
            thread.join()
        while not done.empty():
            yield from _results(done.get(), task)
    finally:
        for helper in helpers:
            helper.close()


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


class _Work:
    """Files not yet given out, the largest first; batches shrink towards the end, so that all finish together."""

    def __init__(self, sources: Sequence[SourceFile], n_processes: int) -> None:
        self._waiting = deque(sorted(enumerate(sources), key=lambda item: -len(item[1].content)))
        self._n_bytes = sum(len(source.content) for source in sources)
        self._n_processes = n_processes
        self._lock = threading.Lock()

    def take(self, n_files: int = sys.maxsize) -> list[Numbered]:
        """The next files that are worth sending, at most `n_files`; none when all are given out."""
        with self._lock:
            target = max(_MIN_BATCH, min(_MAX_BATCH, self._n_bytes // (4 * self._n_processes)))
            batch: list[Numbered] = []
            size = 0
            while self._waiting and size < target and len(batch) < n_files:
                batch.append(self._waiting.popleft())
                size += len(batch[-1][1].content)
            self._n_bytes -= size
            return batch


class _Helper:
    """A process that mines what it is sent. Raises OSError where none can be started."""

    def __init__(self, task: MiningTask) -> None:
        self.task = task
        self.is_closed = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _HERE + _SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which then ends its helpers
        )
        with contextlib.suppress(OSError):  # already dead: `is_ready` finds it out
            self.send(task)

    def is_ready(self) -> bool:
        """Whether the process has started: one that cannot start here says nothing against a file."""
        with contextlib.suppress(EOFError):
            return bool(self.receive() == _READY)
        return False

    def send(self, value: object) -> None:
        """Raises OSError if the process is dead."""
        assert self._process.stdin is not None
        _write(self._process.stdin, value)

    def receive(self) -> Any:
        """The next answer; raises EOFError if the process is dead."""
        assert self._process.stdout is not None
        return _read(self._process.stdout)

    def close(self) -> None:
        """End the process, whatever it does."""
        self.is_closed = True
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def _drive(helper: _Helper, work: _Work, done: "queue.SimpleQueue[Any]") -> None:
    """Have a helper mine its share; of what it held when it died, each file is mined apart."""
    try:
        if not helper.is_ready():
            return
        for item in _held_at_its_end(helper, work, done):
            if helper.is_closed:  # nobody waits any more
                return
            done.put(_apart(item, helper.task))
    except Exception as error:  # noqa: BLE001 - it is raised again in the thread that waits
        done.put(error)


def _held_at_its_end(helper: _Helper, work: _Work, done: "queue.SimpleQueue[Any]") -> list[Numbered]:
    """Keep a helper busy until all is given out: two batches are on the way, so that it never waits for this process.

    Returns the files that it was sent and did not answer: none, unless it died.
    """
    sent: deque[list[Numbered]] = deque()
    with contextlib.suppress(OSError, EOFError):
        while True:
            while len(sent) < 2 and (batch := work.take()):
                sent.append(batch)
                helper.send(batch)
            if not sent:
                break
            done.put(helper.receive())
            sent.popleft()
    return [item for batch in sent for item in batch]


def _apart(item: Numbered, task: MiningTask) -> list[tuple[int, bytes | None]]:
    """One file in a process of its own; None in the place of the result where that dies too."""
    index, source = item
    with contextlib.suppress(OSError), contextlib.closing(_Helper(task)) as helper:
        if helper.is_ready():
            try:
                helper.send([item])
                answer: list[tuple[int, bytes | None]] = helper.receive()
                return answer
            except (OSError, EOFError):
                return [(index, None)]
    # No process could be started, which says nothing about the file.
    return [(index, mine_file(source, task).pack())]


def _results(answer: Any, task: MiningTask) -> Iterator[tuple[int, MinedFile]]:
    if isinstance(answer, BaseException):
        raise answer
    for index, packed in answer:
        if packed is None:
            yield index, MinedFile("crashed")
        else:
            yield index, MinedFile.unpack(packed)


def serve() -> None:
    """Answer each batch of files on stdin with its packed results on stdout, until stdin ends."""
    gc.disable()  # as in `no_collection`
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not land among the answers
    batches: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_receive_all, args=(sys.stdin.buffer, batches), daemon=True).start()
    task: MiningTask = batches.get()
    _write(answers, _READY)
    while True:
        try:
            answer: Any = [(index, mine_file(source, task).pack()) for index, source in batches.get()]
        except Exception as error:  # noqa: BLE001 - it is raised again in the other process
            answer = error
        _write(answers, answer)


def _receive_all(stream: BinaryIO, batches: "queue.SimpleQueue[Any]") -> None:
    """Read ahead, so that who sends never waits; at the end of the input the process ends, whatever it does."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            batches.put(_read(stream))
    os._exit(0)  # the main thread may be inside a grammar, which nothing else ends


def _write(stream: Any, value: object) -> None:
    data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _read(stream: Any) -> Any:
    """The next value. Pickle is safe here: both ends are this program."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.load(io.BytesIO(data))
