"""Code under test on one side, its test on the other: two processes in two cages, and plain data between them.

The code never shares memory, frames or builtins with its test, and nothing it returns has behaviour: what it can do to be
passed is to give the right values. An argument that the code changes in place stays as it was on the test's side.
"""

import builtins
import contextlib
import functools
import signal
import socket
from typing import Any

from .plain import Channel, Message, decode, encode, send

REASON_CHARACTERS = 300
REHEARSALS = 32


def serve(connection: socket.socket, program: str, entry_point: str) -> None:
    """Run `program` and answer calls of its function `entry_point` until the other side ends."""
    namespace: dict[str, Any] = {"__name__": "code"}
    try:
        exec(compile(program, "<code>", "exec"), namespace)
        function = namespace[entry_point]
    except BaseException as error:  # noqa: BLE001  a SystemExit too is an answer: no function
        send(connection, {"broken": in_words(error)})
        return
    channel = Channel(connection)
    with contextlib.suppress(EOFError, OSError):
        while True:
            call = channel.receive()
            channel.send(_answer(function, decode(call["args"]), decode(call["kwargs"])))


def rehearse() -> None:
    """Serve a function that gives back what it is given, until Python has specialised what every fork would specialise anew."""
    call = {"args": encode(([0, 1.5, "", None],)), "kwargs": encode({})}
    for _ in range(REHEARSALS):
        test, code = socket.socketpair()
        with test, code:
            Channel(test).send(call)
            test.shutdown(socket.SHUT_WR)
            serve(code, "def same(value):\n    return value\n", "same")


def _answer(function: Any, args: Any, kwargs: Any) -> Message:
    try:
        return {"value": encode(function(*args, **kwargs))}
    except BaseException as error:  # noqa: BLE001  whatever it is, the test is told
        return {"error": type(error).__name__, "message": said_by(error)}


class CodeBrokenError(Exception):
    """The code under test could not be run, ended, or answered with something that cannot be read."""


class Candidate:
    """What the test calls in place of the function. Raises what the code raised, or CodeBrokenError."""

    def __init__(self, connection: socket.socket) -> None:
        self._channel = Channel(connection)

    def _hear(self) -> Message:
        try:
            answer = self._channel.receive()
        except (EOFError, OSError) as error:
            raise CodeBrokenError("the code ended before it answered") from error
        if not isinstance(answer, dict):
            raise CodeBrokenError("the code answered with something else than an answer")
        return answer

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102  said above
        with contextlib.suppress(BrokenPipeError):  # it has ended; what it said before is still there to be read
            self._channel.send({"args": encode(args), "kwargs": encode(kwargs)})
        answer = self._hear()
        if "broken" in answer:
            raise CodeBrokenError(str(answer["broken"]))
        if "error" in answer:
            kind = getattr(builtins, str(answer["error"]), None)
            message = str(answer.get("message"))[:REASON_CHARACTERS]
            # only what a test may wait for: an AssertionError of the code's own must not look like the test's
            if isinstance(kind, type) and issubclass(kind, Exception) and kind is not AssertionError:
                with contextlib.suppress(TypeError):  # a UnicodeError wants more arguments
                    raise kind(message)
            raise CodeBrokenError(f"{answer['error']}: {message}"[:REASON_CHARACTERS])
        return decode(answer["value"])


def grade(connection: socket.socket, verdict: socket.socket, job: Message) -> None:
    """Run `job`'s test against the code at the other end and tell the verdict, with the job's nonce."""
    signal.signal(signal.SIGALRM, _too_late)
    signal.setitimer(signal.ITIMER_REAL, job["wall_s"])
    try:
        namespace: dict[str, Any] = {"__name__": "test"}
        exec(_compiled(job["context"], "<context>"), namespace)  # helpers that the test may call
        candidate = Candidate(connection)
        namespace[job["entry_point"]] = candidate
        exec(_compiled(job["test"], "<test>"), namespace)
        namespace["check"](candidate)
        said = {"passed": True, "reason": "passed"}
    except BaseException as error:  # noqa: BLE001  whatever it is, it is no pass
        said = {"passed": False, "reason": in_words(error)}
    signal.setitimer(signal.ITIMER_REAL, 0)
    send(verdict, said | {"nonce": job["nonce"]})


@functools.lru_cache(maxsize=16)  # several tries at one problem come after each other
def _compiled(source: str, name: str) -> Any:
    return compile(source, name, "exec")


def _too_late(*_: object) -> None:
    raise TimeoutError("timed out")


def in_words(error: BaseException) -> str:
    """An error in a line."""
    text = said_by(error)
    if isinstance(error, CodeBrokenError):
        return text[:REASON_CHARACTERS]
    return f"{type(error).__name__}: {text}"[:REASON_CHARACTERS].removesuffix(": ")


def said_by(error: BaseException) -> str:
    """The error's message, cut; empty where it cannot say it."""
    try:
        return str(error)[:REASON_CHARACTERS]
    except BaseException:  # noqa: BLE001  its own `__str__` may fail
        return ""
