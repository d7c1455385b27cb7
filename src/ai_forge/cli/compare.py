"""`ai-forge compare`: two models beside each other, on what both were asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import AsJson, Home
from ai_forge.cli.output import show, table
from ai_forge.errors import InputError

if TYPE_CHECKING:
    from ai_forge.judge.comparison import Side

NAMED = "A run's id, a deployed model's name (its active version), or NAME:VERSION."
Page = Annotated[Path | None, typer.Option("--page", help="Also write it to this file: .html, .md or .json.")]
ENDINGS = (".html", ".md", ".json")


def compare(
    first: Annotated[str, typer.Argument(help=NAMED)],
    second: Annotated[str, typer.Argument(help=f"{NAMED} Or a rival: FILE.gguf, ollama:NAME, URL#MODEL.")],
    page: Page = None,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Which of two models is better, in what, and how surely. On the questions that both were asked, with intervals."""
    from ai_forge.cli.display import Display
    from ai_forge.judge.comparison import text_of, write_comparison
    from ai_forge.pipeline.compared import compare_runs
    from ai_forge.workspace import Workspace

    if page is not None and page.suffix not in ENDINGS:
        raise InputError(f"--page {page} ends in {page.suffix!r}.", f"it is one of {', '.join(ENDINGS)}.")
    with Display() as display:
        found = compare_runs(first, second, Workspace.open(home), display)
    if page is not None:
        write_comparison(page, found)

    def text() -> None:
        for which, side in (("first", found.first), ("second", found.second)):
            print(f"{which:<7} {_in_a_line(side)}")
        print()
        rows = []
        for row in found.rows:
            difference = text_of(row.difference, row.unit, is_difference=True)
            n = 0 if row.difference is None else row.difference.n
            rows.append(
                [
                    row.figure,
                    text_of(row.first, row.unit),
                    text_of(row.second, row.unit),
                    difference,
                    row.better,
                    str(n),
                ]
            )
        table(("figure", "first", "second", "second − first", "better", "n"), rows, right=("n",))
        print(f"\n{found.headline}")
        if page is not None:
            print(f"page: {page}")

    show(found.model_dump(mode="json"), text, json)


def _in_a_line(side: Side) -> str:
    if side.decision is None:
        return f"{side.model}, asked now"
    commit = "" if side.commit is None else f", commit {side.commit[:12]}"
    trained = "unknown" if side.n_train is None else side.n_train
    return f"{side.model}:{side.run_id}, {side.base}{commit}, {trained} examples: {side.decision}"
