"""The warm worker: one interpreter that forks for every job, inside the walls.

    worker, the keeper ── fork ─► the code, process 1 of its room           (a call)
                       ── fork ─► init, process 1 ── fork ─► the command    (a command, which is owed usual signals)

The keeper stays outside the room's process namespace: it holds the deadline and the memory limit, and kills the room when
its leash ends, which the parent lets go of as soon as it has its verdict. It cannot be named, traced or signalled from within
the room, and when the room's process 1 ends nothing of the room is left.

On macOS there are no rooms: the worker takes one job, the sandbox forbids it to fork, and the next job has a sandbox of its own.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

from . import confine, grading, plain

POLL_S = 0.05
# What solutions import most: a fork has them for nothing. Not `random`, which seeds itself anew in each fork, nor what imports it.
WARM = "bisect collections copy datetime functools hashlib heapq itertools json math operator re string typing"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
Job = plain.Message


def main(role: str) -> None:
    """Take jobs from the socket at descriptor 0 until it ends. `role` is "rooms", "grader" or "single"."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    if role != "grader":
        for name in WARM.split():
            __import__(name)
    try:
        if role != "single":
            confine.become_nobody()
        if role == "rooms":
            keeper = _become_keeper()
            grading.rehearse()
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
                _run(job, descriptors[1])
            elif role == "grader":
                code, verdict = (socket.socket(fileno=descriptor) for descriptor in descriptors)
                with code, verdict:
                    grading.grade(code, verdict, job)
                plain.send(control, {"ended": "graded"})
            else:
                leash, connection = descriptors
                plain.send(control, {"ended": _keep(keeper, job, leash, connection)})


def _next(control: socket.socket) -> tuple[Job, list[int]]:
    """A job, and the descriptors that came with it."""
    length, descriptors, _, _ = socket.recv_fds(control, plain.LENGTH_BYTES, 4)
    if not length:
        raise EOFError
    with control.makefile("rb") as rest:
        length += rest.read(plain.LENGTH_BYTES - len(length))
        return json.loads(rest.read(int.from_bytes(length, "big"))), descriptors


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


def _become_keeper() -> confine.Keeper:
    """Go on as process 1 of namespaces of one's own, and try a room before any code is run. Raises OSError."""
    keeper = confine.Keeper()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        os._exit(0)
    keeper.go_on()
    told, tell = os.pipe()
    child = keeper.fork_in_a_room()
    if not child:
        with _ending():
            try:
                confine.enter_room(1_000_000, ())
                confine.give_up()
            except OSError as error:
                os.write(tell, str(error).encode())
    os.close(tell)
    problem = os.read(told, 1000).decode()
    os.close(told)
    os.waitpid(child, 0)
    if problem:
        raise OSError(problem)
    return keeper


def _keep(keeper: confine.Keeper, job: Job, leash: int, connection: int) -> str:
    """Keep one room; how it ended: "exit N", "wall time", "memory" or "leash"."""
    limits, started = job["limits"], time.monotonic()
    first = keeper.fork_in_a_room()
    if not first:
        with _ending():
            os.close(leash)
            os.close(keeper.processes)
            if job["kind"] == "command":
                confine.enter_room(limits["tmp_bytes"], job["in_tmp"], confine.SHM_BYTES)
                _be_init(job, connection)
            confine.enter_room(limits["tmp_bytes"], ())
            _run(job, connection)
    os.close(connection)
    alive = os.pidfd_open(first)
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
        elif keeper.memory_bytes() > limits["memory_bytes"]:
            why = "memory"
    if why:
        os.kill(first, signal.SIGKILL)
    _, status = os.waitpid(first, 0)  # returns when all in the room are gone
    os.close(alive)
    os.close(leash)
    return why or f"exit {os.waitstatus_to_exitcode(status)}"


def _be_init(job: Job, connection: int) -> None:
    code = os.fork()
    if not code:
        with _ending():
            _run(job, connection)
    os.close(connection)
    while True:
        child, status = os.wait()
        if child == code:
            ended = os.waitstatus_to_exitcode(status)
            os._exit(ended if ended >= 0 else 128 - ended)


def _run(job: Job, connection: int) -> None:
    """The job's own process: only its connection is left of what the worker had."""
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
