"""`ai-forge`: words to calls, values to text. Data goes to stdout, messages and bars to stderr.

Exit codes are those of `errors.py`; Ctrl-C ends with 130 and what was trained is kept.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from rich.table import Table

from ai_forge import __version__
from ai_forge.cli.console import Display, stderr, summary
from ai_forge.cli.data import data_app, handbook
from ai_forge.cli.look import config_app, doctor, models, runs
from ai_forge.cli.model import ask, chat, print_answer, rollback
from ai_forge.cli.options import AsJson, Choices, Repo, show, taking
from ai_forge.errors import AIForgeError, InputError
from ai_forge.events import Event, EventStream, Notice
from ai_forge.pipeline import serving
from ai_forge.pipeline.repository import Pipeline
from ai_forge.pipeline.serving import Reply
from ai_forge.training.distributed.cluster import in_cluster

app = typer.Typer(
    help="Fine-tune a local language model on your repository, see whether it helped, serve it. All on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
INTERRUPTED = 130
WITH_RECIPE = ("train", "evaluate", "export", "deploy")
"""Of the commands for a stage, those that a recipe has as well."""


@contextmanager
def opened(repo: Path, choices: Choices) -> Iterator[tuple[Pipeline, Display]]:
    """A pipeline whose events are shown and recorded; one process at a time works on a repository."""
    early: list[Event] = []  # what happens before the run has a folder to be written to
    with Display() as display:
        pipeline = choices.pipeline(repo, EventStream(None, early.append, display))
        pipeline.repository  # noqa: B018 (reads it: a wrong path is told before anything is loaded)
        with pipeline.workspace.lock(f"run-{pipeline.model_name}"):
            path = pipeline.run_folder / "events.jsonl"
            for event in early:
                EventStream(path)(event)
            pipeline.emit = EventStream(path, display)
            yield pipeline, display


# -- the main job ---------------------------------------------------------------------------------------------------


@app.command()
@taking()
def run(choices: Choices, repo: Repo = Path(), json: AsJson = False) -> None:
    """Mine, train, judge, export and deploy, then answer a first question. Again: only what changed."""
    with opened(repo, choices) as (pipeline, display):
        wanted = pipeline.settings.runtime.deploy
        if wanted != "never":
            serving.require_runtime(pipeline)
        report = pipeline.report
        verdict = pipeline.verdict
        deployed = wanted == "always" or (wanted == "if-better" and verdict.better)
        if deployed:
            serving.deploy(pipeline)
        reply = first_answer(pipeline) if deployed else None
    result = {
        "run_id": pipeline.run_id,
        "verdict": verdict.headline,
        "better": verdict.better,
        "checks": [vars(check) for check in verdict.checks],
        "deployed": f"{pipeline.model_name}:{pipeline.run_id}" if deployed else None,
        "gguf": str(pipeline.gguf),
        "report": str(report),
        "stages": [vars(event) for event in display.finished],
        "answer": reply
        and {"question": reply[0], "answer": reply[1].text, "cited": [d.citation for d in reply[1].cited]},
    }
    if json:
        show(result)
        return
    print_run(pipeline, display, deployed, wanted)
    if reply is not None:
        print_answer(*reply)


def print_run(pipeline: Pipeline, display: Display, deployed: bool, wanted: str) -> None:
    """The table and the conclusions at the end of a run."""
    from rich.console import Console

    out = Console(highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "seconds", "made"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left")
    for event in display.finished:
        table.add_row(event.stage, "–" if event.cached else f"{event.seconds:.1f}", escape(summary(event)))
    out.print(table)
    verdict = pipeline.verdict
    out.print(f"\n[bold]{escape(verdict.headline)}[/bold]")
    for check in verdict.checks:
        mark = {True: "[green]✓[/green]", False: "[red]✗[/red]", None: "[yellow]?[/yellow]"}[check.passed]
        out.print(f"  {mark} {check.name}: {escape(check.text)}", soft_wrap=True)
    for name, value in pipeline.parity_result.rows.items():
        out.print(f"  {name}: {value}", soft_wrap=True)
    out.print(f"report    {pipeline.report}", soft_wrap=True)
    out.print(f"model     {pipeline.gguf} ({pipeline.gguf.stat().st_size / 1e6:.0f} MB)", soft_wrap=True)
    of_recipe = f" --recipe {pipeline.recipe}" if pipeline.recipe else ""
    same = "the same words with `deploy` in place of `run`."
    if deployed:
        back = f"ai-forge rollback {pipeline.path}{of_recipe}"
        text = f"deployed  {pipeline.model_name}:{pipeline.run_id}; back to the one before: {back}"
    elif wanted == "never":
        text = f"not deployed, as asked. To deploy it: {same}"
    else:
        text = f"not deployed: it was not shown to be better. To deploy it all the same: {same}"
    out.print(escape(text), style=None if deployed or wanted == "never" else "yellow", soft_wrap=True)


def first_answer(pipeline: Pipeline) -> tuple[str, Reply]:
    """A first question, answered by the deployed model."""
    question = pipeline.first_question
    reply = serving.ask(pipeline, question)
    for _ in reply:
        pass
    return question, reply


# -- one stage at a time --------------------------------------------------------------------------------------------


def _stage_command(name: str, text: str, act: Callable[[Pipeline], Any]) -> None:
    def command(choices: Choices, repo: Repo = Path()) -> None:
        if choices.recipe and name not in WITH_RECIPE:
            verbs = ("run", *WITH_RECIPE, "ask", "chat", "rollback")
            raise InputError(f"`ai-forge {name}` knows no recipe.", f"give it to one of {', '.join(verbs)}.")
        with opened(repo, choices) as (pipeline, _):
            result = act(pipeline)
        show(result)

    command.__doc__ = text
    app.command(name)(taking()(command))


def _stage(attribute: str) -> Callable[[Pipeline], Any]:
    def act(pipeline: Pipeline) -> Any:
        stage = getattr(pipeline, attribute)
        return {"stage": stage.name, "folder": str(stage.folder), **stage.counts}

    return act


def _export(pipeline: Pipeline) -> Any:
    made = _stage("export")(pipeline)
    try:
        return {**made, "modelfile": str(serving.write_modelfile(pipeline))}
    except InputError as error:  # the files are good all the same: the embedded runtime follows any template
        pipeline.emit(Notice("warning", f"no Modelfile: {error}"))
        return made


def _evaluate(pipeline: Pipeline) -> Any:
    report = pipeline.report
    return {"verdict": pipeline.verdict.headline, "better": pipeline.verdict.better, "report": str(report)}


def _deploy(pipeline: Pipeline) -> Any:
    deployed = serving.deploy(pipeline)
    activation = deployed.activation
    return {
        "model": f"{pipeline.model_name}:{activation.version}",
        "runtime": activation.runtime,
        "changed": deployed.changed,
    }


_stage_command("mine", "Parse the repository into code blocks.", _stage("mine"))
_stage_command("synthesize", "Split by commit date or by file, write and validate the examples.", _stage("dataset"))
_stage_command(
    "validate",
    "The quality report of the examples.",
    lambda p: {"report": str(p.dataset.folder / "quality.md"), **p.dataset.counts},
)
_stage_command("train", "Train the adapter; continues where it was cut off.", _stage("adapter"))
_stage_command("evaluate", "Judge the tuned model against the base; write the report.", _evaluate)
_stage_command("export", "Merge, write the GGUF files and a Modelfile.", _export)
_stage_command("deploy", "Make the tuned model the active one, whatever the verdict; parity must hold.", _deploy)
_stage_command("plan", "Counts, tokens, memory and time, before training.", lambda p: p.plan().model_dump())


for command in (ask, chat, rollback, doctor, models, runs, handbook):
    app.command()(command)
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")


def _version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """The entry point: every error on purpose becomes one line and its exit code."""
    try:
        # gives the exit code of `typer.Exit`; 130 is Ctrl-C
        code = in_cluster(lambda: app(prog_name="ai-forge", standalone_mode=False))
    except AIForgeError as error:
        code = _complain(error)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        usage = getattr(error, "format_message", None)  # the command line's own errors: a wrong word or value
        if usage is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # typer keeps its copy of click to itself
            print(usage(), file=sys.stderr)
            sys.exit(2)
        code = _complain(InputError(f"{usage().rstrip('.')}.", "`ai-forge --help`, and `--help` after any command."))
    if code == INTERRUPTED:
        stderr.print("\nInterrupted. What was done is kept: the same command continues.", soft_wrap=True)
    sys.exit(code or 0)


def _complain(error: AIForgeError) -> int:
    stderr.print(f"[red]{error.code}:[/red] {escape(' '.join(str(error).split()))}", soft_wrap=True)
    return error.exit_code
