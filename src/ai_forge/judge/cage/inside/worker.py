"""The warm worker: one interpreter that forks for every job, inside the walls.

    worker ── fork ─► keeper ─ enters a room ─ fork ─► init (process 1 there) ── fork ─► the code

The keeper stays outside the room's process namespace: it holds the deadline and the memory limit, and kills the room when
its leash ends, which the parent lets go of as soon as it has its verdict. Init only reaps. Neither can be named, traced or
signalled from within the room, and nothing of it outlives its init.

On macOS there are no rooms: the worker takes one job, the sandbox forbids it to fork, and the next job has a sandbox of its own.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from . import confine, grading, plain

POLL_S = 0.05
# what solutions import most: a fork has them for nothing
WARM = "bisect collections copy datetime functools hashlib heapq itertools json math operator random re statistics string typing"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
Job = dict[str, Any]


def main(role: str) -> None:
    """Take jobs from the socket at descriptor 0 until it ends. `role` is "rooms", "grader" or "single"."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    for name in WARM.split():
        __import__(name)
    try:
        if role != "single":
            confine.become_nobody()
        if role == "rooms":
            _try_room()
    except OSError as error:
        plain.send(control, {"broken": str(error)})
        return
    gc.collect()
    gc.freeze()  # so that a collection in a fork does not copy every page
    plain.send(control, {"ready": os.getpid()})
    with contextlib.suppress(EOFError, OSError):
        while True:
            job, descriptors = _next(control)
            if role == "single":
                _run(job, descriptors)
                return
            told = _in_a_fork(role, job, descriptors, control)
            plain.send(control, told)


def _next(control: socket.socket) -> tuple[Job, list[int]]:
    """A job, and the descriptors that came with it."""
    length, descriptors, _, _ = socket.recv_fds(control, plain.LENGTH_BYTES, 4)
    if not length:
        raise EOFError
    length += plain.exactly(control, plain.LENGTH_BYTES - len(length))
    import json

    return json.loads(plain.exactly(control, int.from_bytes(length, "big"))), descriptors


def _in_a_fork(role: str, job: Job, descriptors: list[int], control: socket.socket) -> Job:
    """Do a job in a child; how it ended."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        with _ending():
            control.close()
            os.close(told)
            if role == "grader":
                grading.grade(socket.socket(fileno=descriptors[0]), socket.socket(fileno=descriptors[1]), job)
            else:
                os.write(tell, _keep(job, descriptors[0], descriptors[1]).encode())
    for descriptor in (*descriptors, tell):
        os.close(descriptor)
    ended = os.read(told, 1000).decode()
    os.close(told)
    os.waitpid(child, 0)
    return {"ended": ended}


@contextlib.contextmanager
def _ending() -> Any:
    """The block is all that a fork does; it ends without the worker's `finally`s, buffers and exit handlers."""
    try:
        yield
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  whatever it is, a fork must not go on as a worker
        with contextlib.suppress(OSError):
            os.write(2, f"{type(error).__name__}: {error}\n".encode()[:1000])
        os._exit(1)


def _try_room() -> None:
    """Whether rooms can be made here, before any code is run. Raises OSError."""
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        with _ending():
            try:
                confine.enter_room(1_000_000, ())
            except OSError as error:
                os.write(tell, str(error).encode())
    os.close(tell)
    problem = os.read(told, 1000).decode()
    os.close(told)
    os.waitpid(child, 0)
    if problem:
        raise OSError(problem)


def _keep(job: Job, leash: int, connection: int) -> str:
    """Be the keeper of one room; how it ended: "exit N", "wall time", "memory" or "leash"."""
    limits, started = job["limits"], time.monotonic()
    processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)  # before the room covers it
    outside = {*os.listdir("/proc"), str(os.getpid())}  # noqa: PTH208
    confine.enter_room(limits["tmp_bytes"], job.get("in_tmp", ()))
    init = os.fork()
    if not init:
        with _ending():
            os.close(leash)
            os.close(processes)
            _be_init(job, connection)
    os.close(connection)
    alive = os.pidfd_open(init)
    why = ""
    while not why:
        left = started + limits["wall_s"] - time.monotonic()
        ready, _, _ = select.select([alive, leash], [], [], max(0.0, min(POLL_S, left)))
        if alive in ready:
            break
        if leash in ready:
            why = "leash"
        elif left <= 0:
            why = "wall time"
        elif _memory_bytes(processes, outside) > limits["memory_bytes"]:
            why = "memory"
    if why:
        os.kill(init, signal.SIGKILL)
    _, status = os.waitpid(init, 0)  # returns when all in the room are gone
    return why or f"exit {os.waitstatus_to_exitcode(status)}"


def _memory_bytes(processes: int, outside: set[str]) -> int:
    """What all processes of the room hold together: their own pages, and those of their shared memory."""
    total = 0
    for name in os.listdir(processes):
        if name.isdigit() and name not in outside:
            with contextlib.suppress(OSError, ValueError):  # it ended meanwhile
                status = os.open(f"{name}/status", os.O_RDONLY, dir_fd=processes)
                try:
                    text = os.read(status, 4096).decode()
                finally:
                    os.close(status)
                for line in text.splitlines():
                    if line.startswith(("RssAnon:", "RssShmem:")):
                        total += int(line.split()[1]) * 1024
    return total


def _be_init(job: Job, connection: int) -> None:
    code = os.fork()
    if not code:
        with _ending():
            _run(job, [-1, connection])
    os.close(connection)
    while True:
        child, status = os.wait()
        if child == code:
            ended = os.waitstatus_to_exitcode(status)
            os._exit(ended if ended >= 0 else 128 - ended)


def _run(job: Job, descriptors: list[int]) -> None:
    """The job's own process: only its connection is left of what the worker had."""
    connection = descriptors[1]
    os.setsid()
    os.dup2(connection, 3)
    os.closerange(4, 1024)
    nothing = os.open(os.devnull, os.O_RDWR)
    is_command = job["kind"] == "command"
    for standard in (1, 2):
        os.dup2(3 if is_command else nothing, standard)
    os.chdir("/tmp")
    if is_command:
        _prepare(job)
    confine.limit_resources(job["limits"])
    if sys.platform == "linux":
        confine.give_up()
    if is_command:
        os.closerange(3, 16)
        os.execvpe(job["argv"][0], job["argv"], job["env"])
    os.environ.update(job["env"])
    grading.serve(socket.socket(fileno=3), job["program"], job["entry_point"])


def _prepare(job: Job) -> None:
    """A fresh copy of the job's folder, with its files in place, as working folder."""
    import shutil

    folder = job["folder"]
    if job["source"]:
        shutil.copytree(job["source"], folder, symlinks=True)
    for name, text in job["files"].items():
        path = os.path.join(folder, name)  # noqa: PTH118
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        if os.path.islink(path):  # noqa: PTH114  what is written must land here
            os.unlink(path)  # noqa: PTH108
        with open(path, "w", encoding="utf-8") as handle:  # noqa: PTH123
            handle.write(text)
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    os.chdir(folder)
