import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.judge.own_tests import Bench, Function, body_from, functions_in, measure_own_tests, open_bench
from ai_forge.prompting.prompt import Message
from cages import caged

CODE = '''
import functools


def total(numbers):
    """The sum."""
    result = 0
    for number in numbers:
        result += number
    return result


class Box:
    @functools.cache
    def size(self, scale=1):
        """How large,
        scaled."""
        # two by
        return 2 * scale

    def bare(self):
        return 1


def unused():
    """Nobody calls it."""
    return 1


def free(x):
    """Called, but nobody looks at what it gives."""
    return x
'''
TESTS = """
from box import Box, free, total


def test_total():
    assert total([1, 2]) == 3
    free(1)


def test_total_of_none():
    assert total([]) == 0


def test_size():
    assert Box().size(3) == 6


def test_fails_as_it_is():
    assert total([1]) == 5


def test_free():
    try:
        free(2)
    except NotImplementedError:
        pass
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "box.py").write_text(CODE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_box.py").write_text(TESTS.replace("    free(1)\n", ""))
    return tmp_path


class Writes:
    """Answers with what it was given for a function."""

    name, chats, samples = "writes", True, False

    def __init__(self, bodies: dict[str, str]) -> None:
        self.bodies = bodies
        self.asked: list[str] = []

    def write(self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
        asked = messages[-1]["content"]
        self.asked.append(asked)
        name = asked.rpartition("Write `")[2].partition("`")[0]
        return f"```python\ndef {name}(self_or_numbers, scale=1):\n{self.bodies[name]}```"

    def go_on(self, text: str, stop: Sequence[str], **_: object) -> str:
        raise AssertionError("it chats")


def by_name(bench: Bench) -> dict[str, Function]:
    return {function.qualified: function for function in bench.functions(10)}


@caged
@pytest.mark.slow
def test_functions_that_tests_decide_about_are_found_and_judged(repo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # this project's plugins take seconds to load
    right = {
        "total": "    import math\n    return math.fsum(numbers)\n",
        "size": "    'Again.'\n    double = scale + scale\n    return double\n",
    }
    with open_bench(repo, wall_s=20) as bench:
        found = by_name(bench)
        assert {name: len(function.tests) for name, function in found.items()} == {"total": 2, "Box.size": 1}
        assert bench.left_out == {"no docstring": 1, "no passing test calls it": 1, "no test fails without it": 1}
        good, bad = Writes(right), Writes(right | {"total": "    return 3\n"})
        functions = list(found.values())
        assert [outcome.passed for outcome in measure_own_tests(bench, good, functions).outcomes] == [True, True]
        result = measure_own_tests(bench, bad, functions)
        assert {o.function: (o.passed, o.reason) for o in result.outcomes} == {
            "src/box.py:total": (False, "1 of 2 tests failed"),
            "src/box.py:Box.size": (True, "passed"),
        }
        assert result.rate is not None
        # the body is not shown, its surroundings are
        assert all("result += number" not in asked or "missing" in asked for asked in good.asked)
        asked_total = next(asked for asked in good.asked if "Write `total`" in asked)
        assert "result += number" not in asked_total
        assert "class Box" in asked_total
        total = found["total"]
        # not among them: a body that takes the exceptions out of pytest's own record passed once in three runs, for it shares a
        # process with the judge (see the module)
        cheats = [
            "import os\nos._exit(0)",
            "import sys\nsys.exit(0)",
            "import _pytest.python\n_pytest.python.Function.runtest = lambda self: None",
            "import builtins\nbuiltins.AssertionError = type('E', (SystemExit,), {})\nreturn 4",
            "print('passed')\nraise SystemExit(0)",
            "while True: pass",
        ]
        assert [cheat for cheat in cheats if bench.decide(total, cheat)[0]] == []


@caged
@pytest.mark.slow
def test_another_runner_decides_by_its_exit_code(repo: Path):
    (repo / "check.py").write_text("import box\nassert box.total([1, 2]) == 3\n")
    with open_bench(repo, command=[sys.executable, "check.py"]) as bench:
        assert list(by_name(bench)) == ["total"]
        assert bench.left_out["no test fails without it"] == 3
    (repo / "check.py").write_text("raise SystemExit(3)")
    with open_bench(repo, command=[sys.executable, "check.py"]) as bench, pytest.raises(InputError, match="exit 3"):
        bench.functions(1)


def test_without_a_cage_it_is_refused_and_nothing_is_left(repo: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(PrerequisiteError, match="not on PATH"), open_bench(repo):
        pass


def test_functions_are_read_with_their_lines():
    left_out: Counter[str] = Counter()
    total, size, unused, free = functions_in(CODE, "box.py", left_out)
    assert (size.qualified, size.indent, size.place) == ("Box.size", 8, "box.py:14")
    assert left_out == {"no docstring": 1}
    blank = size.with_body(CODE, "raise NotImplementedError")
    assert '        scaled."""\n        raise NotImplementedError\n\n    def bare' in blank
    assert "# two by" not in blank
    assert total.with_body(CODE, "pass").count("result") == 0
    assert (unused.name, free.name) == ("unused", "free")


F = Function("a.py", "f", "f", 1, 3, 4, 4)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ("```python\ndef f(x):\n    'Doc.'\n    return x\n```", "return x"),
        ("```python\nimport re\n\ndef f(x):\n    return re.escape(x)\n```", "import re\nreturn re.escape(x)"),
        ("```python\nclass A:\n    def g(self): pass\n    def f(self):\n        return 1\n```", "return 1"),
        ("return x", "return x"),
        ("    y = x\n    return y", "y = x\nreturn y"),
        ("I cannot do that.", None),
        ("", None),
    ],
)
def test_a_body_is_taken_out_of_an_answer(answer: str, body: str | None):
    assert body_from(answer, F) == body
