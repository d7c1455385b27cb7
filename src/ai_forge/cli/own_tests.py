"""`ai-forge own-tests`: models write functions of the repository, and its own tests decide."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import AsJson, Options, Repo, readable, with_options
from ai_forge.cli.output import show, stderr, table, warn

if TYPE_CHECKING:
    from ai_forge.judge.own_tests import OwnTests

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Who writes: a deployed model, a .gguf file, a folder, a base; several times.",
        show_default="the base",
    ),
]
Functions = Annotated[int, typer.Option("--functions", min=1, help="How many functions, at the most; drawn at random.")]
TestCommand = Annotated[
    str | None,
    typer.Option("--test-command", help="What runs the tests, such as 'python -m unittest'; pytest otherwise."),
]
Python = Annotated[
    Path | None, typer.Option("--python", help="The interpreter that has what the tests need.", show_default="this one")
]


@with_options("set", "config", "home")
def own_tests(
    options: Options,
    repo: Repo = Path(),
    model: Models = None,
    functions: Functions = 20,
    test_command: TestCommand = None,
    python: Python = None,
    json: AsJson = False,
) -> None:
    """Let models write functions; the repository's tests decide. Functions that passing tests cover, in the cage."""
    from ai_forge.errors import PrerequisiteError
    from ai_forge.judge.own_tests import OwnTests, measure_own_tests, open_bench
    from ai_forge.judge.writers import open_writer

    names = model or [options.settings().settings.training.base_model]
    command = None
    if test_command:
        command = shlex.split(test_command)

    def report(done: int, total: int, what: str) -> None:
        stderr().print(f"[dim]{done} of {total}  {what}[/dim]", soft_wrap=True)

    measured: list[OwnTests] = []
    try:
        with open_bench(readable(repo), command=command, python=python) as bench:
            chosen = bench.functions(functions, report=report)
            for name in names:
                with open_writer(name) as writer:
                    measured.append(measure_own_tests(bench, writer, chosen, report))
    except PrerequisiteError as error:
        if measured:
            raise
        warn(f"unscored: {error}")
        measured = [OwnTests(model=name, unscored=str(error)) for name in names]
    show([result.model_dump() | {"rate": _rate(result)} for result in measured], lambda: _print(measured), json)
    if any(result.unscored for result in measured):
        raise typer.Exit(PrerequisiteError.exit_code)


def _rate(result: OwnTests) -> str:
    from ai_forge.judge.verdict import in_words

    return in_words(result.rate, ".0%")


def _print(measured: list[OwnTests]) -> None:
    rows = [[r.model, str(sum(o.passed for o in r.outcomes)), str(len(r.outcomes)), _rate(r)] for r in measured]
    table(("model", "passed", "of", "rate"), rows, right=("passed", "of"))
    left_out = ", ".join(f"{n} {reason}" for reason, n in measured[0].left_out.items())
    if left_out:
        print(f"left out: {left_out}")
