"""The repository's own tests as a benchmark: the model writes functions that they cover, and they decide.

    snapshot ─ map: which passing test calls which function ─ blank: does one fail without the body? ─ write ─ run ─► passed or not

A function counts only if its own body passes and a blank one fails: what no test would miss is left out, with the reason. The
model is shown the file as far as it fits, with the body taken out, and writes it once, greedily. All runs happen in the cage, on a
copy of the files as they are tracked.

With pytest the tests that call a function are known from one run and only they decide. Any other command decides by its exit
code, once for each function (so every function costs as much as all tests, and those that no test reaches are found by trying).

What it cannot do: the body shares its process with the tests. One that makes all tests pass is found out by a test that must
fail, one that ends the process leaves no report; one written to cheat this very judge is not caught, nor is it kept from
reading an installed copy of the package among the interpreter's own. Python only.
"""

import ast
import contextlib
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.source.repository import git_output
from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.json_lines import JsonObject
from ai_forge.judge.cage import Cage, Ended, Limits, Seen
from ai_forge.judge.cage.cage import WORK_FOLDER
from ai_forge.judge.cage.walls import INSIDE, SEEN_AT
from ai_forge.judge.human_eval import blocks_of, program_from
from ai_forge.judge.statistics import Estimate, proportion
from ai_forge.judge.writers import Writer
from ai_forge.prompting.prompt import Message

MOST_BODY_LINES = 60
MOST_TESTS = 200  # of one function: more add time, not doubt
MOST_FILE_BYTES = 5_000_000
MOST_SNAPSHOT_BYTES = 200_000_000
CONTEXT_CHARACTERS = 6_000  # of the file around a function: about 2,000 tokens
MAX_TOKENS = 768
BLANK = "raise NotImplementedError"
NONCE = "AI_FORGE_NONCE"
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Function:
    """A function with a docstring. Lines count from 1; `first` is its first decorator's, `body_first` comes after the docstring."""

    path: str
    name: str
    qualified: str
    first: int
    body_first: int
    last: int
    indent: int
    tests: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """How the map of calls names it."""
        return f"{self.path}:{self.first}"

    def with_body(self, text: str, body: str) -> str:
        """The file `text` with this function's body replaced; `body` has no indent of its own."""
        lines = text.splitlines(keepends=True)
        inner = textwrap.indent(body.strip("\n"), " " * self.indent) + "\n"
        return "".join(lines[: self.body_first - 1]) + inner + "".join(lines[self.last :])


class Outcome(BaseModel):
    """One function, written by one model."""

    model_config = ConfigDict(frozen=True)

    function: str
    n_tests: int | None
    passed: bool
    reason: str
    body: str


class OwnTests(BaseModel):
    """What was measured. `unscored` is why nothing was; `left_out` counts functions by the reason why they were not asked for."""

    model_config = ConfigDict(frozen=True)

    model: str
    outcomes: tuple[Outcome, ...] = ()
    left_out: dict[str, int] = {}
    unscored: str | None = None

    @property
    def rate(self) -> Estimate | None:
        """Share of functions whose tests pass, with its interval."""
        return proportion([outcome.passed for outcome in self.outcomes])


class Bench:
    """A repository's functions and the tests that decide about them. Close it, or use `open_bench`."""

    def __init__(self, repo: Path, command: Sequence[str] | None, python: Path, limits: Limits) -> None:
        self.left_out: Counter[str] = Counter()
        self._command = command
        self._python = python
        self._limits = limits
        self._folder = Path(tempfile.mkdtemp(prefix="ai-forge-own-tests-"))
        try:
            self._folder.chmod(0o755)
            snapshot(repo, self._folder)
            seen = Seen(tuple(_interpreter_folders(python)), source=self._folder, tools=True)
            self._cage = Cage("rooms", seen)
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    def close(self) -> None:
        """End the cage and remove the copy."""
        self._cage.close()
        shutil.rmtree(self._folder)

    def text(self, function: Function) -> str:
        """The file of a function."""
        return (self._folder / function.path).read_text(encoding="utf-8")

    def functions(self, n: int, seed: int = 0, report: Report | None = None) -> list[Function]:
        """At most `n` functions that a test decides about, drawn at random; the others are counted in `left_out`.

        Raises:
            InputError: the tests do not pass as they are, or there are none.
        """
        found = self._candidates()
        random.Random(seed).shuffle(found)
        chosen: list[Function] = []
        for place, function in enumerate(found):
            if len(chosen) == n:
                self.left_out["not drawn"] += len(found) - place
                break
            if report:
                report(len(chosen), n, f"does a test miss {function.qualified}?")
            if self.decide(function, BLANK)[0]:
                self.left_out["no test fails without it"] += 1
            elif not self.decide(function, self.own_body(function))[0]:
                self.left_out["its tests fail by themselves"] += 1
            else:
                chosen.append(function)
        return chosen

    def _candidates(self) -> list[Function]:
        functions = list(self._documented())
        if self._command is not None:
            ended = self._cage.run(self._command, self._limits, environment=self._environment())
            if not ended.ok:
                raise InputError(
                    f"{' '.join(self._command)} ends with {ended.why} as it is.{_tail(ended)}", "make it pass."
                )
            return functions
        report, ended = self._pytest("map", [], {}, replace(self._limits, wall_s=self._limits.wall_s * 5))
        passing = {name for name, outcome in (report or {}).get("outcomes", {}).items() if outcome == "passed"}
        if report is None or not passing:
            raise InputError(
                f"pytest finds no test that passes here ({ended.why}).{_tail(ended)}",
                "make them pass, or give --test-command.",
            )
        covered = []
        for function in functions:
            tests = [name for name in report["calls"].get(function.place, ()) if name in passing]
            if tests:
                covered.append(replace(function, tests=tuple(tests[:MOST_TESTS])))
            else:
                self.left_out["no passing test calls it"] += 1
        return covered

    def _documented(self) -> Iterator[Function]:
        for path in sorted(self._folder.rglob("*.py")):
            relative = path.relative_to(self._folder)
            if "test" in relative.name or "tests" in relative.parts or "docs" in relative.parts:
                continue
            with contextlib.suppress(SyntaxError, ValueError, UnicodeDecodeError):
                yield from functions_in(path.read_text(encoding="utf-8"), str(relative), self.left_out)

    def own_body(self, function: Function) -> str:
        """The body that stands there."""
        lines = self.text(function).splitlines(keepends=True)[function.body_first - 1 : function.last]
        return textwrap.dedent("".join(lines))

    def decide(self, function: Function, body: str) -> tuple[bool, str]:
        """Whether the tests pass with this body, and why not."""
        files = {function.path: function.with_body(self.text(function), body)}
        if self._command is not None:
            ended = self._cage.run(self._command, self._limits, files=files, environment=self._environment())
            return ended.ok, ended.why
        report, ended = self._pytest("run", function.tests, files, self._limits)
        if report is None:
            return False, ended.why
        if report["canary"] != ["failed"]:
            return False, "the test that must fail did not"
        failed = [name for name in function.tests if report["outcomes"].get(name) != "passed"]
        if failed:
            return False, f"{len(failed)} of {len(function.tests)} tests failed"
        return True, "passed"

    def _pytest(
        self, mode: str, tests: Sequence[str], files: dict[str, str], limits: Limits
    ) -> tuple[JsonObject | None, Ended]:
        """The driver's report, None where it left none: code that ends the process does not know the nonce."""
        nonce = secrets.token_hex(16)
        place = SEEN_AT
        if sys.platform == "darwin":
            place = str(INSIDE)
        argv = [str(self._python), "-B", f"{place}/pytest_driver.py", mode, *tests]
        ended = self._cage.run(argv, limits, files=files, environment=self._environment() | {NONCE: nonce})
        line = ended.output.rstrip("\n").rpartition("\n")[2]
        if not line.startswith(nonce) or ended.why not in ("exit 0", "exit 1"):
            return None, ended
        told: JsonObject = json.loads(line.removeprefix(nonce))
        return told, ended

    def _environment(self) -> dict[str, str]:
        # the user's PYTEST_ADDOPTS and the like; the copy comes before an installed package
        own = {name: value for name, value in os.environ.items() if name.startswith("PYTEST_")}
        own.pop("PYTEST_CURRENT_TEST", None)
        path = f"{self._python.parent}:/usr/bin:/bin"
        return own | {"PYTHONPATH": f"{WORK_FOLDER}/src:{WORK_FOLDER}", "PATH": path}


@contextlib.contextmanager
def open_bench(
    repo: Path, *, command: Sequence[str] | None = None, python: Path | None = None, wall_s: float = 60.0
) -> Iterator[Bench]:
    """The benchmark of a repository. `command` runs its tests where they are not pytest's; `python` is their interpreter.

    Raises:
        InputError: no folder, or one that is too large to be copied for every run.
        PrerequisiteError: the cage cannot be made.
    """
    if not repo.is_dir():
        raise InputError(f"{repo} is no folder.", "name a repository.")
    limits = Limits(
        wall_s=wall_s,
        cpu_s=2 * wall_s,
        memory_bytes=2_000_000_000,
        n_processes=64,
        file_bytes=100_000_000,
        tmp_bytes=MOST_SNAPSHOT_BYTES * 2,
        output_bytes=50_000_000,
    )
    bench = Bench(repo, command, python or Path(sys.executable), limits)
    try:
        yield bench
    finally:
        bench.close()


def measure_own_tests(
    bench: Bench, writer: Writer, functions: Sequence[Function], report: Report | None = None
) -> OwnTests:
    """Let `writer` write each function, and its tests decide."""
    outcomes: list[Outcome] = []
    for function in functions:
        if report:
            report(len(outcomes), len(functions), f"{writer.name} writes {function.qualified}")
        body = body_from(_answer(bench, writer, function), function)
        passed, reason = False, "no body in the answer"
        if body is not None:
            passed, reason = bench.decide(function, body)
        name, n_tests = f"{function.path}:{function.qualified}", len(function.tests) or None
        outcomes.append(Outcome(function=name, n_tests=n_tests, passed=passed, reason=reason, body=body or ""))
    return OwnTests(model=writer.name, outcomes=tuple(outcomes), left_out=dict(bench.left_out.most_common()))


def _answer(bench: Bench, writer: Writer, function: Function) -> str:
    text = bench.text(function)
    lines = text.splitlines(keepends=True)
    head = "".join(lines[function.first - 1 : function.body_first - 1])
    if not writer.chats:
        before = "".join(lines[: function.body_first - 1])[-CONTEXT_CHARACTERS:]
        return writer.go_on(before, ("\ndef ", "\nclass ", "\n@"), max_tokens=MAX_TOKENS)
    before = "".join(lines[: function.first - 1])[-CONTEXT_CHARACTERS * 2 // 3 :]
    after = "".join(lines[function.last :])[: CONTEXT_CHARACTERS // 3]
    asked = (
        f"This is a part of {function.path}, where the body of `{function.qualified}` is missing:\n\n"
        f"```python\n{before}{head}{' ' * function.indent}...  # missing\n{after}```\n\n"
        f"Write `{function.name}`. Answer with the whole function in one code block:\n\n```python\n{textwrap.dedent(head)}```"
    )
    messages: list[Message] = [{"role": "user", "content": asked}]
    return writer.write(messages, max_tokens=MAX_TOKENS)


def body_from(answer: str, function: Function) -> str | None:
    """The body that an answer gives the function, without an indent; None where none can be read.

    What stands beside the function in the answer (imports, helpers) comes with it.
    """
    # whole blocks as they stand first: a method in its class is no function at the beginning of a line
    programs = [*blocks_of(answer), program_from(answer, f"def {function.name}():\n    '...'\n", function.name)]
    for program in programs:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            if body := _body_in(ast.parse(program), function.name):
                return "\n".join(ast.unparse(statement) for statement in body)
    return None


def _body_in(tree: ast.Module, name: str) -> list[ast.stmt]:
    inner: list[ast.stmt] = []
    beside: list[ast.stmt] = []
    for statement in _statements(tree, name):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name == name:
            inner = statement.body
            if ast.get_docstring(statement) is not None:
                inner = inner[1:]
        elif isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.Assign):
            beside.append(statement)
    return [*beside, *inner] if inner else []


def _statements(tree: ast.Module, name: str) -> list[ast.stmt]:
    """The module's, or those of the class that holds the function: answers often repeat it."""
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            methods = [part for part in statement.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)]
            if any(method.name == name for method in methods):
                return [method for method in methods if method.name == name]
    return tree.body


def functions_in(text: str, path: str, left_out: Counter[str]) -> list[Function]:
    """The functions and methods of a module that can be asked for. Raises SyntaxError or ValueError."""
    found: list[Function] = []

    def visit(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, f"{outer}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if (function := _function(child, path, outer, left_out)) is not None:
                    found.append(function)
            elif isinstance(child, ast.If | ast.Try):
                visit(child, outer)

    visit(ast.parse(text), "")
    return found


def _function(
    node: ast.FunctionDef | ast.AsyncFunctionDef, path: str, outer: str, left_out: Counter[str]
) -> Function | None:
    body = node.body[1:]
    why = None
    if ast.get_docstring(node) is None:
        why = "no docstring"
    elif not body or (len(body) == 1 and isinstance(body[0], ast.Pass)):
        why = "no body"
    elif body[0].lineno <= (node.body[0].end_lineno or 0):
        why = "body on the docstring's line"
    elif (node.end_lineno or 0) - body[0].lineno >= MOST_BODY_LINES:
        why = f"longer than {MOST_BODY_LINES} lines"
    if why is not None:
        left_out[why] += 1
        return None
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    start = (node.body[0].end_lineno or 0) + 1  # a comment above the first statement belongs to the body
    indent = node.body[0].col_offset
    return Function(path, node.name, outer + node.name, first, start, node.end_lineno or 0, indent)


def snapshot(repo: Path, folder: Path) -> None:
    """Copy the files that git tracks (all of a folder without git) into `folder`, readable for all. Links are left out.

    Raises:
        InputError: together they are larger than can be copied for every run.
    """
    listed = git_output(repo, "ls-files", "-z")
    if listed is not None:
        names = [os.fsdecode(name) for name in listed.split(b"\0") if name]
    else:
        every = (path.relative_to(repo) for path in repo.rglob("*"))
        names = [str(path) for path in every if not any(part.startswith(".") for part in path.parts)]
    total = 0
    for name in names:
        source, target = repo / name, folder / name
        if not source.is_file() or source.is_symlink() or source.stat().st_size > MOST_FILE_BYTES:
            continue
        total += source.stat().st_size
        if total > MOST_SNAPSHOT_BYTES:
            raise InputError(
                f"{repo} holds more than {MOST_SNAPSHOT_BYTES // 1_000_000} MB, too much to copy for every run."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(0o644 | source.stat().st_mode & 0o111)


def _interpreter_folders(python: Path) -> list[Path]:
    """What an interpreter needs to see: its prefixes, and the folders of its packages."""
    asked = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))"
    try:
        told = subprocess.run([python, "-c", asked], capture_output=True, check=True, timeout=60, cwd="/")
    except (OSError, subprocess.SubprocessError) as error:
        raise PrerequisiteError(
            f"{python} does not run: {getattr(error, 'strerror', None) or error}.", "name another one: --python."
        ) from error
    prefix, base, *path = json.loads(told.stdout)
    packages = [
        place for place in path if Path(place).is_dir() and Path(place).name in ("site-packages", "dist-packages")
    ]
    places = []
    for place in dict.fromkeys([base, prefix, *packages]):
        if not place.startswith("/usr") or place.startswith("/usr/local/") or place in packages:
            places.append(Path(place))
    return places


def _tail(ended: Ended) -> str:
    lines = ended.output.strip().splitlines()[-12:]
    return "\n" + "\n".join(lines) if lines else ""
