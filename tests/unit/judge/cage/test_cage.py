import os
import time
from pathlib import Path

import pytest

from ai_forge.errors import PrerequisiteError
from ai_forge.judge.cage import Cage, Grader, Limits, Sample, Seen, grade_all, require_walls, run_command
from ai_forge.judge.cage.inside.confine import DENIED, seccomp_filter
from ai_forge.judge.cage.inside.plain import decode, encode
from ai_forge.judge.cage.walls import macos_profile
from cages import caged

ADDS_ONE = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(x=5) == 6"
LIMITS = Limits(wall_s=20, cpu_s=20)


@caged
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("def f(x): return x + 1", "passed"),
        ("def f(x): return x", "AssertionError"),
        ("def g(x): return x + 1", "KeyError: 'f'"),
        ("def f(x): raise ValueError('no')", "ValueError: no"),
        ("def f(x): return undefined", "NameError: name 'undefined' is not defined"),
        ("def f(x:", "SyntaxError: '(' was never closed (<code>, line 1)"),
        ("import os; os._exit(0)", "the code ended before it answered"),
    ],
)
def test_a_verdict_says_why(program: str, reason: str):
    with Grader(LIMITS) as grader:
        verdict = grader.grade(Sample(program, "f", ADDS_ONE))
    assert (verdict.passed, verdict.reason) == (reason == "passed", reason)


@caged
def test_what_a_sample_leaves_is_gone_for_the_next():
    leaves = (
        "import os, math\nmath.pi = 3\nopen('/tmp/a', 'w').write('x')\nos.environ['A'] = '1'\ndef f(x=1): return x + 1"
    )
    finds = (
        "import os, math\ndef f(x=1):\n"
        "    return x + 1 if math.pi > 3 and os.listdir('/tmp') == [] and 'A' not in os.environ else os.listdir('/tmp')"
    )
    with Grader(LIMITS) as grader:
        assert [grader.grade(Sample(p, "f", ADDS_ONE)).passed for p in (leaves, finds, leaves, finds)] == [True] * 4


@caged
def test_a_deadline_ends_a_sample_and_the_next_one_runs():
    with Grader(Limits(wall_s=1)) as grader:
        started = time.monotonic()
        assert grader.grade(Sample("def f(x):\n    while True: pass", "f", ADDS_ONE)).reason == "timed out"
        assert time.monotonic() - started < 4
        assert grader.grade(Sample("def f(x): return x + 1", "f", ADDS_ONE)).passed


@caged
def test_a_worker_that_breaks_down_is_started_again():
    # stopped from outside by what only its parent may send: a job that is no job
    with Cage("rooms") as cage:
        cage.send({"kind": "unknown"}, [])
        assert cage.wait(2) == "cage"
        assert cage.run(["/bin/true"], LIMITS).why != "cage"


@caged
def test_the_arguments_of_a_test_stay_its_own():
    # in one process the code could empty the list that the test compares with
    test = "def check(candidate):\n    given = [3, 1]\n    candidate(given)\n    assert given == [3, 1]"
    assert grade_all([Sample("def f(x): x.clear()", "f", test)], LIMITS)[0].passed


@caged
def test_many_samples_keep_their_order():
    samples = [Sample(f"def f(x): return x + {i % 2}", "f", ADDS_ONE) for i in range(12)]
    assert [verdict.passed for verdict in grade_all(samples, LIMITS, n_graders=3)] == [False, True] * 6
    assert grade_all([]) == []


VALUES = [
    None,
    True,
    3,
    10**5000,
    2.5,
    float("inf"),
    "ä\ud800",
    [1, [2]],
    (1,),
    {1, 2},
    frozenset({3}),
    {(1, 2): {"a": None}},
]
VALUES += [range(2, 9, 3), 1 + 2j, b"\x00\xff", bytearray(b"a"), {1: 2}.keys()]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_data_comes_back_as_it_was(value: object):
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


def test_a_subclass_comes_back_as_its_base_and_an_object_as_nothing():
    class Sly(str):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = str.__hash__

    assert decode(encode(Sly("no"))) != "yes"
    assert decode(encode(object())) != object()
    assert list(decode(encode(x for x in "ab"))) == ["a", "b"]


@pytest.mark.parametrize("data", [["nothing"], {"a": 1}, ["dict", 1], ["bytes", "x"], ["set", ["list"]], []])
def test_other_data_than_plain_is_refused(data: object):
    with pytest.raises((ValueError, TypeError, IndexError)):
        decode(data)


@caged
def test_a_command_runs_on_a_copy_with_its_files_in_place(tmp_path: Path):
    tmp_path.chmod(0o755)  # where root runs the tests, nobody reads it
    (tmp_path / "a.txt").write_text("as it was")
    (tmp_path / "sub").mkdir()
    with Cage("rooms", Seen(source=tmp_path, tools=True)) as cage:
        script = "cat a.txt sub/b.txt; echo changed > a.txt; pwd; id -u; echo oops >&2; exit 3"
        ended = cage.run(["/bin/sh", "-c", script], LIMITS, files={"sub/b.txt": "put here\n"})
        assert ended.why == "exit 3"
        assert ended.output.splitlines()[:2] == ["as it wasput here", "/tmp/work"]
        assert ended.output.endswith("oops\n")
        assert "\n0\n" not in ended.output  # never root
        again = cage.run(["/bin/cat", "a.txt"], LIMITS)
    assert again.ok
    assert again.output == "as it was"
    assert (tmp_path / "a.txt").read_text() == "as it was"


@caged
def test_a_readable_folder_is_seen_where_it_lies_and_cannot_be_written(tmp_path: Path):
    tmp_path.chmod(0o755)
    (tmp_path / "a.txt").write_text("seen")
    script = f"cat {tmp_path}/a.txt; ls {tmp_path.parent}; touch {tmp_path}/b"
    ended = run_command(["/bin/sh", "-c", script], LIMITS, Seen((tmp_path,), tools=True))
    assert ended.output.startswith(f"seen{tmp_path.name}\n")
    assert "Read-only file system" in ended.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@caged
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("while true; do echo 1234567890; done", "output"),
        ("sleep 60", "wall time"),
        ("sleep 60 & sleep 60 & exit 0", "exit 0"),
        ("no-such-program", "exit 127"),
        ("kill -9 $$", "exit 137"),
    ],
)
def test_a_command_ends_whatever_it_does(script: str, why: str):
    started = time.monotonic()
    ended = run_command(["/bin/sh", "-c", script], Limits(wall_s=3, output_bytes=5000))
    assert ended.why == why
    assert len(ended.output) <= 5000
    assert time.monotonic() - started < 8


def test_without_bubblewrap_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    marker = tmp_path / "ran"
    sample = Sample(f"open({str(marker)!r}, 'w')\ndef f(x): return 2", "f", ADDS_ONE)
    with pytest.raises(PrerequisiteError, match="not on PATH; generated code is run in its cage or not at all"):
        grade_all([sample])
    with pytest.raises(PrerequisiteError, match="not on PATH"):
        run_command(["/bin/touch", str(marker)], LIMITS)
    with pytest.raises(PrerequisiteError) as told:
        require_walls()
    assert told.value.next_step is not None
    assert not marker.exists()


@caged
def test_walls_that_cannot_be_made_are_told_and_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin")
    with pytest.raises(PrerequisiteError, match="setting up uid map: Permission denied") as told:
        grade_all([Sample("def f(x): return 2", "f", ADDS_ONE)])
    assert "apparmor_restrict_unprivileged_userns" in str(told.value.next_step)


@caged
def test_walls_that_hold_nothing_back_are_not_taken_for_walls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    # a wrapper that just runs the command: what it would start is nowhere to be found
    fake = tmp_path / "bwrap"
    fake.write_text('#!/bin/sh\nwhile [ "$1" != --chdir ]; do shift; done; shift 2\nexec "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin")
    with pytest.raises(PrerequisiteError, match="The cage cannot be made here"):
        grade_all([Sample("def f(x): return 2", "f", ADDS_ONE)])


@caged
def test_the_filter_names_no_system_call_twice():
    assert seccomp_filter()[0]
    for column in (0, 1):
        numbers = [pair[column] for pair in DENIED.values()]
        assert len(set(numbers)) == len(numbers)


def test_the_macos_profile_denies_first_and_names_no_home(tmp_path: Path):
    profile = macos_profile([], tmp_path)
    assert profile.startswith("(version 1)\n(deny default)\n(deny network*)\n(deny process-fork)\n")
    assert f'(allow file-read* file-write* (subpath "{tmp_path.resolve()}"))' in profile
    assert profile.count("(") == profile.count(")")
    assert f'(subpath "{Path.home()}")' not in profile
