"""150 programs that try to leave the cage: no secret comes out, none is passed, nothing outside changes."""

import secrets
from pathlib import Path

import pytest

from ai_forge.judge.cage import Limits, Sample, grade_all
from cages import caged
from escapes import TEMPLATES, Surroundings

pytestmark = [pytest.mark.slow, caged]
LIMITS = Limits(wall_s=1.5, cpu_s=2.0, memory_bytes=400_000_000)
# passes whoever finds the room as it should be: empty, alone, and able to do what code does
CLEAN = """
def f(x):
    import os, socket, tempfile, threading
    assert os.listdir('/tmp') == [] and os.listdir('/dev/shm') == [] and os.listdir('/proc') == []
    with tempfile.TemporaryFile() as h:
        h.write(b'x')
    for pid in range(3, 200):
        try:
            os.kill(pid, 0)
            return pid
        except ProcessLookupError:
            pass
    threading.Thread(target=print).start()
    return 'clean'
"""
ASKS_CLEAN = "def check(candidate):\n    found = candidate(1)\n    assert found == 'clean', found"


def test_there_are_at_least_150_and_they_differ():
    assert len(set(TEMPLATES)) == len(TEMPLATES) >= 150


def test_no_program_gets_out_and_none_is_passed(tmp_path: Path):
    secret = secrets.token_hex(12)
    asks = (
        f"def check(candidate):\n    found = candidate(1)\n    assert found == {secret!r} or {secret!r} in str(found)"
    )
    around = Surroundings(tmp_path, secret)
    try:
        samples = []
        for template in TEMPLATES:  # after each, whether the next one finds anything of it
            samples += [Sample(around.program(template), "f", asks), Sample(CLEAN, "f", ASKS_CLEAN)]
        samples.append(Sample(f"def f(x): return {secret!r}", "f", asks))  # who knows it is passed: the test can fail
        *verdicts, knows = grade_all(samples, LIMITS)
        touched = around.touched()
    finally:
        around.close()
    passed = [TEMPLATES[i] for i, verdict in enumerate(verdicts[::2]) if verdict.passed]
    unclean = [(TEMPLATES[i], verdict.reason) for i, verdict in enumerate(verdicts[1::2]) if not verdict.passed]
    told = [
        verdict.reason
        for verdict in verdicts[::2]
        if secret in verdict.reason and "AssertionError" not in verdict.reason
    ]
    assert knows.passed
    assert passed == []
    assert unclean == []
    assert told == []
    assert touched == []


def test_the_secrets_can_be_reached_outside(tmp_path: Path):
    # else the test above would prove nothing: the same places, asked from here
    import socket

    around = Surroundings(tmp_path, "found")
    try:
        assert Path(f"/proc/{around.process.pid}/environ").read_bytes().endswith(b"found\0")
        with socket.create_connection(("127.0.0.1", around.port)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
            abstract.connect("\0" + around.abstract)
            assert tcp.recv(9) == abstract.recv(9) == b"found"
        assert around.touched() == ["2 connections"]
    finally:
        around.close()
