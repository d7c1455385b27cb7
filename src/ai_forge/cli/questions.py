"""`ai-forge questions`: a team's own questions, what retrieval finds for them, and what could be asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.model import Model, open_model
from ai_forge.cli.options import AsJson, Options, Repo, Words, with_options
from ai_forge.cli.output import print_json, show, table, warn
from ai_forge.errors import InputError

if TYPE_CHECKING:
    from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
    from ai_forge.data_pipeline.search.question_index import QuestionIndex
    from ai_forge.data_pipeline.source.team_questions import TeamQuestions
    from ai_forge.judge.questions.team_questions import Places


class _Listing(Words):
    """`ai-forge questions REPO` lists; only the other words are commands."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put `list` before what is no command."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


questions_app = typer.Typer(cls=_Listing, help="Your team's own questions: add, check and ask them.")
OF_INDEX = ("set", "config", "home")  # flags of the commands that look into the repository's index


def _written(repo: Path) -> TeamQuestions:
    """What the repository's file asks. Raises `InputError` where there is no file, or nothing in it."""
    from ai_forge.data_pipeline.source.team_questions import QUESTIONS_FILE, read_team_questions

    found = read_team_questions(repo)
    if found is None or not found.questions:
        what = "is no" if found is None else "is nothing in"
        raise InputError(
            f"There {what} {repo / QUESTIONS_FILE}.",
            'write one: ai-forge questions add "…" --file PATH, or see `ai-forge questions suggest`.',
        )
    return found


def _index(options: Options, repo: Path) -> QuestionIndex:
    """The index of the repository as it is."""
    with options.running(repo) as (runner, _):
        runner.run_until("index")
        return runner.opened.index(runner.outputs())


@questions_app.command("list")
@with_options(*OF_INDEX)
def list_questions(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
    """Each question, and whether retrieval finds its file. First, among three, later, or not."""
    from ai_forge.judge.questions.team_questions import AMONG, Places, rank_of

    written = _written(repo)
    index = _index(options, repo)
    asked = [Places.of(question, index.entries) for question in written.questions]
    ranks = [rank_of(places, index) for places in asked]
    first = sum(rank == 1 for rank in ranks)
    among = sum(rank is not None and rank <= AMONG for rank in ranks)
    values = [
        {"question": places.question.question, "rank": rank, "missing": places.missing}
        for places, rank in zip(asked, ranks, strict=True)
    ]

    def text() -> None:
        rows = [[_found(rank), places.question.question] for places, rank in zip(asked, ranks, strict=True)]
        table(("found", "question"), rows)
        print(f"{first} of {len(ranks)} found first, {among} among the first {AMONG} files.")
        _tell_missing(asked)

    show({"questions": values, "first": first, "among": among, "n": len(ranks)}, text, json)


def _found(rank: int | None) -> str:
    if rank is None:
        return "not"
    return "first" if rank == 1 else f"file {rank}"


def _tell_missing(asked: list[Places]) -> None:
    missing = sorted({name for places in asked for name in places.missing})
    if missing:
        warn(f"Not in the index: {', '.join(missing)}. See `ai-forge questions check`.")


@questions_app.command("ask")
@with_options("set", "config", "home", "recipe")
def ask_all(options: Options, repo: Repo = Path(), model: Model = None, json: AsJson = False) -> None:
    """Ask the deployed model each question and score it. By rule: found, cited, said."""
    from ai_forge.cli.display import Display
    from ai_forge.events import StageFinished, StageProgress, StageStarted
    from ai_forge.judge.questions.team_questions import ask_deployed, shares_of

    written = _written(repo)
    with Display() as display, open_model(options, repo, model) as served:
        display(StageStarted("questions"))
        answers = ask_deployed(
            served,
            written.questions,
            lambda done, total, note="": display(StageProgress("questions", done, total, note)),
        )
        display(StageFinished("questions", 0.0, False, {}, f"{len(answers)} asked"))
        name = served.deployment.model
    shares = shares_of(answers)
    values = [answer.model_dump(mode="json") | {"right": answer.score.right} for answer in answers]
    value = {"model": name, "shares": {key: vars(one) for key, one in shares.items()}, "answers": values}

    def text() -> None:
        marks = {True: "✓", False: "✗", None: "–"}
        rows = []
        for one in answers:
            rows.append([_found(one.rank), marks[one.score.citation_right], marks[one.score.said_right], one.question])
        table(("found", "cited", "said", "question"), rows)
        for key, share in shares.items():
            print(f"{key:<18} {share.value:>4.0%}  ({share.low:.0%} to {share.high:.0%}, n = {share.n})")

    show(value, text, json)


@questions_app.command("add")
def add(
    question: Annotated[str, typer.Argument(help="The question, as somebody would type it.")],
    file: Annotated[
        list[str] | None, typer.Option("--file", help="A file that answers it, or a folder/; several times.")
    ] = None,
    symbol: Annotated[
        list[str] | None, typer.Option("--symbol", help="A definition that answers it; several times.")
    ] = None,
    answer: Annotated[str | None, typer.Option("--answer", help="A right answer.")] = None,
    must: Annotated[
        list[str] | None, typer.Option("--must", help="A word that a right answer holds; several times.")
    ] = None,
    must_not: Annotated[
        list[str] | None, typer.Option("--must-not", help="A word that only a wrong one holds.")
    ] = None,
    repo: Annotated[Path, typer.Option("--repo", help="The repository.")] = Path(),
    json: AsJson = False,
) -> None:
    """Add a question to the repository's file."""
    from ai_forge.data_pipeline.source.team_questions import QUESTIONS_FILE
    from ai_forge.pipeline.question_file import add_question, as_yaml

    made = _question(
        question=question,
        files=file or (),
        symbols=symbol or (),
        answer=answer,
        must=must or (),
        must_not=must_not or (),
    )
    _require_files(repo, made)
    n = add_question(repo, made)
    value = {"file": str(repo / QUESTIONS_FILE), "questions": n, "added": made.model_dump(exclude_defaults=True)}
    show(
        value,
        f"{as_yaml([made])}is question {n} of {repo / QUESTIONS_FILE}; `ai-forge questions` shows what is found.",
        json,
    )


def _question(**values: object) -> TeamQuestion:
    from pydantic import ValidationError

    from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion

    try:
        return TeamQuestion.model_validate(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'])) or 'question'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors()
        ]
        raise InputError(f"{'; '.join(problems)}.", "name what answers it: --file PATH or --symbol NAME.") from error


def _require_files(repo: Path, question: TeamQuestion) -> None:
    """Raises `InputError` where a file is not there; the nearest name is told."""
    import difflib

    from ai_forge.data_pipeline.source.repository import file_names

    names = file_names(repo)
    for file in question.files:
        if not any(name == file or (file.endswith("/") and name.startswith(file)) for name in names):
            near = difflib.get_close_matches(file, names, n=1)
            hint = "write its path from the repository's root; a folder ends with /."
            if near:
                hint = f"did you mean {near[0]}?"
            raise InputError(f"{repo} has no file {file}.", hint)


@questions_app.command("suggest")
@with_options(*OF_INDEX)
def suggest(
    options: Options,
    repo: Repo = Path(),
    n: Annotated[int, typer.Option("-n", min=1, max=200, help="How many.")] = 10,
    json: AsJson = False,
) -> None:
    """Questions that could be in the file, to choose and reword. Of what was asked and corrected, headings, commits."""
    from collections import Counter

    from ai_forge.data_pipeline.source.history import read_commits
    from ai_forge.data_pipeline.source.team_questions import read_team_questions
    from ai_forge.pipeline.question_file import as_yaml, suggestions
    from ai_forge.serving.ask_log import AskLog

    with options.running(repo) as (runner, _):
        runner.run_until("index")
        index, run = runner.opened.index(runner.outputs()), runner.run
    log = AskLog(options.workspace(), run.model)
    known = read_team_questions(repo)
    found = suggestions(
        known.questions if known else (),
        corrections=log.corrections(),
        asked=log.asked(),
        entries=index.entries,
        commits=read_commits(run.repository, 500, Counter()) if run.commit else (),
        n=n,
    )
    if json:
        print_json([{"source": one.source, **one.question.model_dump(exclude_defaults=True)} for one in found])
        return
    # YAML also in a pipe: what is printed is meant for the file
    for one in found:
        print(f"# {one.source}\n{as_yaml([one.question])}", end="")
    if not found:
        warn("Nothing to suggest: nobody asked anything, and no heading or commit says what it answers.")


@questions_app.command("check")
@with_options(*OF_INDEX)
def check(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
    """Whether all that the file names is there. Files and symbols, and the form of the file; exit code 2 where not."""
    from ai_forge.data_pipeline.source.repository import file_names
    from ai_forge.judge.questions.team_questions import Places

    written = _written(repo)
    entries, names = _index(options, repo).entries, file_names(repo)
    problems = []
    for question, line in zip(written.questions, written.lines, strict=True):
        for name in Places.of(question, entries).missing:
            what = "no definition of that name" if name in question.symbols else "no such file"
            if name in question.files and any(path == name or path.startswith(name) for path in names):
                what = "there, but nothing of it can be found: it is no code, documentation or configuration"
            problems.append({"line": line, "question": question.question, "name": name, "problem": what})

    def text() -> None:
        table(("line", "names", "which is"), [[str(p["line"]), str(p["name"]), str(p["problem"])] for p in problems])
        print(f"{len(written.questions)} questions, {len(problems)} problems.")

    show({"questions": len(written.questions), "problems": problems}, text, json)
    if problems:
        raise typer.Exit(2)
