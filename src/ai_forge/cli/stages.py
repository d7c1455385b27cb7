"""`ai-forge run`, `plan`, and a command for each stage: a run taken through its stages, in whole or in part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai_forge.cli.model import print_answer
from ai_forge.cli.options import AsJson, Options, Repo, with_options
from ai_forge.cli.output import show, table
from ai_forge.errors import InputError
from ai_forge.wording import duration

if TYPE_CHECKING:
    from ai_forge.cli.display import Display
    from ai_forge.pipeline.runner import Planned, Runner
    from ai_forge.pipeline.stages.report import ReportSummary
    from ai_forge.serving.served_model import Reply
    from ai_forge.training.forge import TrainingPlan

Act = Callable[["Runner"], tuple[Any, Callable[[], None] | str]]
"""Does something with a run: its result as values, and what prints it for people."""
MARKS = {True: "✓", False: "✗", None: "?"}


# -- the main job ---------------------------------------------------------------------------------------------------


@with_options()
def run(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
    """All of it: mine, train, judge, export, deploy, ask once. Again: only what changed."""
    from ai_forge.pipeline import actions
    from ai_forge.pipeline.stages.export import gguf_of

    with options.running(repo) as (runner, display):
        wanted = runner.run.settings.runtime.deploy
        # before hours of training, not after them
        if wanted != "never":
            actions.require_runtime(runner)
        verdict = _report(runner)
        deployed = wanted == "always" or (wanted == "if-better" and verdict.better)
        if deployed:
            actions.deploy(runner)
        gguf = gguf_of(runner.run, runner.outputs())
        reply = first_answer(runner) if deployed else None
    answer = None
    if reply is not None:
        cited = [document.citation for document in reply[1].cited]
        answer = {"question": reply[0], "answer": reply[1].text, "cited": cited}
    result = {
        "run_id": runner.run.id,
        "verdict": verdict.headline,
        "better": verdict.better,
        "checks": [check.model_dump() for check in verdict.checks],
        "deployed": f"{runner.run.model}:{runner.run.id}" if deployed else None,
        "gguf": str(gguf),
        "report": str(runner.folder / verdict.file),
        "stages": [vars(event) for event in display.finished],
        "answer": answer,
    }
    show(result, lambda: print_run(runner, display, verdict, gguf, deployed, reply), json)


def _report(runner: Runner) -> ReportSummary:
    """The report and its verdict, linked into the run's folder."""
    from ai_forge.pipeline.actions import link_results
    from ai_forge.pipeline.stages.report import ReportSummary

    summary = runner.run_until("report").summary
    assert isinstance(summary, ReportSummary)
    link_results(runner)
    return summary


def print_run(
    runner: Runner,
    display: Display,
    verdict: ReportSummary,
    gguf: Path,
    deployed: bool,
    reply: tuple[str, Reply] | None,
) -> None:
    """The table and the conclusions at the end of a run."""
    from rich.console import Console
    from rich.markup import escape

    from ai_forge.pipeline.stages.parity import ParitySummary

    rows = [[e.stage, "–" if e.cached else f"{e.seconds:.1f}", e.text] for e in display.finished]
    table(("stage", "seconds", "made"), rows, right=("seconds",))
    out = Console(highlight=False, soft_wrap=True)
    out.print(f"\n[bold]{escape(verdict.headline)}[/bold]")
    for check in verdict.checks:
        out.print(f"  {MARKS[check.passed]} {check.name}: {escape(check.text)}")
    for name, value in runner.outputs().summary("parity", ParitySummary).rows.items():
        out.print(f"  {name}: {value}")
    out.print(f"report    {runner.folder / verdict.file}")
    out.print(f"model     {gguf} ({gguf.stat().st_size / 1e6:.0f} MB)")
    out.print(escape(_deployment_line(runner, deployed)))
    if reply is not None:
        print_answer(*reply)


def _deployment_line(runner: Runner, deployed: bool) -> str:
    run = runner.run
    same = "the same words with `deploy` in place of `run`."
    if deployed:
        # without the recipe the command would look for the model of the repository's code
        of_recipe = f" --recipe {run.recipe}" if run.recipe != "repository" else ""
        back = f"ai-forge rollback {run.repository}{of_recipe}"
        return f"deployed  {run.model}:{run.id}; back to the one before: {back}"
    if run.settings.runtime.deploy == "never":
        return f"not deployed, as asked. To deploy it: {same}"
    return f"not deployed: it was not shown to be better. To deploy it all the same: {same}"


def first_answer(runner: Runner) -> tuple[str, Reply]:
    """A first question, answered by the deployed model."""
    from ai_forge.pipeline.actions import first_question
    from ai_forge.serving.served_model import ServedModel

    question = first_question(runner)
    with ServedModel.open(runner.run.model, runner.workspace, runner.run.settings.runtime) as model:
        reply = model.ask(question)
        for _ in reply:  # read to its end: the text and its citations come of that
            pass
    return question, reply


# -- what it would cost ---------------------------------------------------------------------------------------------


@with_options()
def plan(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
    """What is done, what is to do, and what it will cost here. Memory and time of the training are measured."""
    from ai_forge.pipeline.actions import plan_training

    with options.running(repo) as (runner, _):
        training = plan_training(runner)
        stages = runner.plan()
    result = {
        "run_id": runner.run.id,
        "stages": [vars(stage) for stage in stages],
        "training": training and training.model_dump(),
    }
    show(result, lambda: print_plan(stages, training), json)


def print_plan(stages: list[Planned], training: TrainingPlan | None) -> None:
    """The plan as a table and what was measured as two sentences."""
    rows = []
    for row in stages:
        text = row.text
        if row.key is None:
            text = "depends on what is not made yet"
        cost = "?"
        if row.seconds is not None:
            cost = duration(row.seconds)
            if row.state != "done":  # what the last one of its kind took, of another run
                cost = f"about {cost}"
        rows.append([row.name, row.state, cost, text])
    table(("stage", "state", "time", "made"), rows, right=("time",))
    if training is None:
        return
    print()
    print(
        f"Training: {training.n_steps} steps on {training.n_examples} of {training.train_examples} examples, "
        f"about {duration(training.expected_s)} at {training.tokens_per_s:.0f} tokens/s ({training.reason})."
    )
    parts = sorted(training.memory_bytes.items(), key=lambda part: -part[1])
    # what would be shown as 0.0 GB says nothing
    shown = ", ".join(f"{name.replace('_', ' ')} {size / 1e9:.1f} GB" for name, size in parts if size > 5e7)
    print(f"Memory: {sum(size for _, size in parts) / 1e9:.1f} GB ({shown}).")


# -- one stage at a time --------------------------------------------------------------------------------------------


def _stage(name: str) -> Act:
    def act(runner: Runner) -> tuple[Any, str]:
        result = runner.run_until(name)
        value = {"stage": name, "folder": str(result.folder), **result.summary.model_dump(mode="json")}
        return value, f"{result.summary.sentence()}\n{result.folder}"

    return act


Also = Annotated[str, typer.Option("--also", help="safetensors, adapter or both, with a comma between.")]


def _train(runner: Runner) -> tuple[Any, Callable[[], None] | str]:
    from ai_forge.pipeline.stages.train import adapter_stage

    return _stage(adapter_stage(runner.outputs()))(runner)


def _validate(runner: Runner) -> tuple[Any, str]:
    result = runner.run_until("dataset")
    report = result.folder / "quality.md"
    value = {"report": str(report), **result.summary.model_dump(mode="json")}
    if not report.is_file():  # a handbook and a dataset file have no report of their examples
        return value, result.summary.sentence()
    return value, report.read_text(encoding="utf-8")


def _evaluate(runner: Runner) -> tuple[Any, str]:
    verdict = _report(runner)
    value = {"verdict": verdict.headline, "better": verdict.better, "report": str(runner.folder / verdict.file)}
    lines = [verdict.headline, *(f"  {MARKS[c.passed]} {c.name}: {c.text}" for c in verdict.checks)]
    return value, "\n".join([*lines, f"report    {value['report']}"])


def _deploy(runner: Runner) -> tuple[Any, str]:
    from ai_forge.pipeline import actions

    deployed = actions.deploy(runner)
    activation = deployed.activation
    model = f"{runner.run.model}:{activation.version}"
    value = {"model": model, "runtime": activation.runtime, "changed": deployed.changed}
    text = f"{model} is active ({activation.runtime})"
    if not deployed.changed:
        text += ", as it was before"
    return value, text


VERBS: tuple[tuple[str, str, Act], ...] = (
    ("mine", "Parse the repository into code blocks.", _stage("mine")),
    (
        "synthesize",
        "Write the training examples and check them. They are split by commit date or by file.",
        _stage("dataset"),
    ),
    ("validate", "The quality report of the examples.", _validate),
    ("train", "Train the adapter; continues where it was cut off.", _train),
    ("deploy", "Make the tuned model the active one. Whatever the verdict; but parity must hold.", _deploy),
)


def add_stage_commands(app: typer.Typer, heading: str) -> None:
    """Give `app` a command for each verb, under `heading` in its help."""
    for name, text, act in VERBS:
        app.command(name, rich_help_panel=heading)(_command(act, text))
        if name == "train":
            app.command(rich_help_panel=heading)(evaluate)
            app.command(rich_help_panel=heading)(export)


@with_options()
def evaluate(
    options: Options,
    repo: Repo = Path(),
    completion: Annotated[
        bool, typer.Option("--completion", help="Instead: complete what the newest commits wrote, base against tuned.")
    ] = False,
    gaps: Annotated[int, typer.Option("--gaps", min=2, max=2000, help="How many pieces of code to complete.")] = 48,
    for_at_most: Annotated[str, typer.Option("--for", help="Time for completing, such as 3m.")] = "5m",
    json: AsJson = False,
) -> None:
    """Judge the tuned model against the base; write the report."""
    from ai_forge.cli.options import seconds_of

    with options.running(repo) as (runner, _):
        value, printed = _completion(runner, gaps, seconds_of(for_at_most)) if completion else _evaluate(runner)
    show(value, printed, json)


def _completion(runner: Runner, n_gaps: int, budget_s: float) -> tuple[Any, Callable[[], None] | str]:
    """Base and tuned model on pieces of code that were taken away."""
    from ai_forge.judge.completion.measure import figures_of
    from ai_forge.pipeline.completing import FILE, measure_completion

    made = measure_completion(runner, n_gaps=n_gaps, budget_s=budget_s)
    figures = figures_of(made.rows, runner.run.settings.judge.confidence)
    value = {
        **made.model_dump(exclude={"rows"}),
        "figures": [one.model_dump() for one in figures],
        "file": str(runner.folder / FILE),
    }

    def text() -> None:
        where = f"{made.n_commits} newest commits" if made.source == "commits" else "held-out files (no history)"
        print(f"Completing what was taken out of {where}, asked by {made.form}:")
        rows = []
        for one in figures:
            for name, estimate in one.difference.items():
                interval = "none: one file"
                if estimate.low is not None and estimate.high is not None:
                    interval = f"{estimate.low:+.3f} … {estimate.high:+.3f}"
                shown = [f"{one.base[name]:.3f}", f"{one.tuned[name]:.3f}", f"{estimate.value:+.3f}", interval]
                rows.append(["retrieved" if one.context else "file alone", name.replace("_", " "), *shown])
        table(("shown", "figure", "base", "tuned", "difference", "95 % interval"), rows, right=("base", "tuned"))
        if figures:
            print(f"{figures[0].n} gaps in {figures[0].n_files} files. Nats per byte: lower is better.")
        print(runner.folder / FILE)

    return value, text


# a function of its own, because a closure in the loop above would see the last verb only
def _command(act: Act, text: str) -> Callable[..., None]:
    def command(options: Options, repo: Repo = Path(), json: AsJson = False) -> None:
        with options.running(repo) as (runner, _):
            value, printed = act(runner)
        show(value, printed, json)

    command.__doc__ = text
    return with_options()(command)


@with_options()
def export(options: Options, repo: Repo = Path(), also: Also = "", json: AsJson = False) -> None:
    """Merge, and write the GGUF files and a Modelfile. With --also the merged weights or the adapter as files for other tools."""
    from ai_forge.events import Notice
    from ai_forge.pipeline.actions import write_also, write_modelfile

    kinds = [kind.strip() for kind in also.split(",") if kind.strip()]
    with options.running(repo) as (runner, _):
        others = write_also(runner, kinds)
        value, text = _stage("export")(runner)
        lines = [str(text), *map(str, others.values())]
        value |= {kind: str(path) for kind, path in others.items()}
        try:
            modelfile = str(write_modelfile(runner))
            value["modelfile"] = modelfile
            lines.append(modelfile)
        except InputError as error:  # the files are good all the same: the embedded runtime follows any template
            runner.emit(Notice("warning", f"no Modelfile: {error}"))
    show(value, "\n".join(lines), json)
