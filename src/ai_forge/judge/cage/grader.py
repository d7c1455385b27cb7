"""Samples of code and their tests: verdicts by a grader that the code cannot reach."""

import dataclasses
import hmac
import math
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from ai_forge.judge.cage.cage import Cage, Limits
from ai_forge.judge.cage.inside import plain

SAMPLES_PER_GRADER = 8  # fewer do not pay for the start of another
LATE_S = 0.5  # the grader's own deadline lies behind the code's: what is late is then told as late


@dataclass(frozen=True)
class Sample:
    """Code that defines `entry_point`, and a test that defines `check(candidate)`; `context` is what the test may call."""

    program: str
    entry_point: str
    test: str
    context: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether the code passed its test, and in a few words why not."""

    passed: bool
    reason: str


class Grader:
    """Two cages, one for code and one for tests. Close it, or use it as a context manager; one sample at a time.

    Raises:
        PrerequisiteError: the cages cannot be made here. Nothing was run.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._limits = dataclasses.asdict(self.limits)
        self._code = Cage("rooms")
        try:
            self._tests = Cage("grader")
        except BaseException:
            self._code.close()
            raise

    def grade(self, sample: Sample) -> Verdict:
        """Run one sample against its test."""
        limits, nonce = self.limits, secrets.token_hex(16)
        code_job = {
            "kind": "call",
            "program": sample.program,
            "entry_point": sample.entry_point,
            "limits": self._limits,
        }
        test_job = {"nonce": nonce, "wall_s": limits.wall_s + LATE_S, "entry_point": sample.entry_point}
        test_job |= {"context": sample.context, "test": sample.test}
        leash, leashed = socket.socketpair()
        code_end, test_end = socket.socketpair()
        hears, tells = socket.socketpair()
        with leash, hears:
            with leashed, code_end, test_end, tells:
                self._code.send(code_job, [leashed.fileno(), code_end.fileno()])
                self._tests.send(test_job, [test_end.fileno(), tells.fileno()])
            hears.settimeout(limits.patience_s)
            try:
                told = plain.receive(hears)
            except (EOFError, OSError, ValueError):
                told = {}
            leash.close()
            ended = self._code.wait(limits.patience_s)
            self._tests.wait(limits.patience_s)
        knows = isinstance(told, dict) and hmac.compare_digest(str(told.get("nonce")), nonce)
        if knows and told.get("passed") is True:
            return Verdict(True, "passed")
        if ended in ("wall time", "memory") or not knows:
            # without a word from the grader its deadline has passed
            return Verdict(False, {"memory": "out of memory", "cage": "the cage broke down"}.get(ended, "timed out"))
        return Verdict(False, str(told.get("reason")))

    def close(self) -> None:
        """End both cages."""
        self._code.close()
        self._tests.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def grade_all(
    samples: Sequence[Sample],
    limits: Limits | None = None,
    *,
    n_graders: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Verdict]:
    """Grade `samples`, several at once, in their order.

    Raises:
        PrerequisiteError: the cages cannot be made here. Nothing was run.
    """
    if not samples:
        return []
    cores = _cores()
    n = n_graders or min(len(cores), math.ceil(len(samples) / SAMPLES_PER_GRADER))
    verdicts: dict[int, Verdict] = {}
    places: Iterator[int] = iter(range(len(samples)))
    lock = threading.Lock()

    def work(number: int) -> None:
        # a sample is a chain of processes that wait for each other: to wake one on another core costs more than it gains
        _hold_to(cores[number % len(cores)])
        with Grader(limits) as grader:
            while True:
                with lock:
                    place = next(places, None)
                if place is None:
                    return
                verdict = grader.grade(samples[place])
                with lock:
                    verdicts[place] = verdict
                    if progress:
                        progress(len(verdicts), len(samples))

    with ThreadPoolExecutor(n) as pool:
        for done in [pool.submit(work, number) for number in range(n)]:
            done.result()
    return [verdicts[place] for place in range(len(samples))]


def _cores() -> list[int]:
    """The cores that this process may use; where the system does not tell (macOS), their numbers."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _hold_to(core: int) -> None:
    """Hold the calling thread, and the processes that it starts, to one core."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, {core})
