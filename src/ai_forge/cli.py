"""`ai-forge`: words to calls, values to text. Data goes to stdout, messages and bars to stderr.

Exit codes are those of `errors.py`; Ctrl-C ends with 130 and what was trained is kept.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
import yaml
from rich.markup import escape
from rich.table import Table

from ai_forge import __version__
from ai_forge.cli_data import data_app, handbook
from ai_forge.config import LoadedSettings, environment_layer, file_layer, load_settings, recipe_layer
from ai_forge.console import Display, stderr, summary
from ai_forge.errors import AIForgeError, InputError
from ai_forge.events import Event, EventStream, Notice
from ai_forge.pipeline import Pipeline, Reply
from ai_forge.pipeline_handbook import HandbookPipeline
from ai_forge.training.cluster import in_cluster
from ai_forge.workspace import Workspace

app = typer.Typer(
    help="Fine-tune a local language model on your repository, see whether it helped, serve it. All on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="Settings: their values and where each came from.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(data_app, name="data")
app.command("handbook")(handbook)

INTERRUPTED = 130
PIPELINES: dict[str | None, type[Pipeline]] = {None: Pipeline, "handbook": HandbookPipeline}
"""What a recipe works on; its settings stand in `config/recipes.yaml`."""
WITH_RECIPE = ("train", "evaluate", "export", "deploy")

Repo = Annotated[Path, typer.Argument(help="The repository: a folder, under git or not.", show_default="this folder")]
Question = Annotated[str, typer.Argument(help="A question about the repository.")]
Base = Annotated[
    str | None,
    typer.Option(
        "--base", help="A name of `ai-forge models`, a Hugging Face id, a folder, a .gguf file or ollama:NAME."
    ),
]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimizer steps, at the most.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the examples, at the most.")]
Budget = Annotated[str | None, typer.Option("--time-budget", help="Time for training, such as 90s, 4m or 2h.")]
Teacher = Annotated[
    str | None,
    typer.Option("--teacher", help="A model that rewords the examples: ollama:NAME, or URL#MODEL (OpenAI-compatible)."),
]
Recipe = Annotated[
    str | None,
    typer.Option("--recipe", help="handbook: train on the pairs of `ai-forge handbook` instead of the code."),
]
Nproc = Annotated[
    int | None, typer.Option("--nproc", min=1, help="Processes that share the training, one for each GPU.")
]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting: training.rank=16. See `ai-forge config show`.")
]
AllowLicence = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-licence", help="A licence beside the repository's own, such as MIT or 'BSD-*'; several times."
    ),
]
Config = Annotated[Path | None, typer.Option("--config", help="A YAML file with settings.")]
Home = Annotated[Path | None, typer.Option("--home", help="Where everything is kept; AI_FORGE_HOME otherwise.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@dataclass(frozen=True)
class Choices:
    """The flags that commands share."""

    base: str | None = None
    steps: int | None = None
    epochs: int | None = None
    time_budget: str | None = None
    teacher: str | None = None
    set: list[str] | None = None
    config: Path | None = None
    home: Path | None = None
    allow_licence: list[str] | None = None
    recipe: str | None = None
    nproc: int | None = None

    def settings(self) -> LoadedSettings:
        """All layers put together."""
        flags: dict[str, Any] = {}
        for text in self.set or []:
            key, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"--set {text} has no value.", "write --set training.rank=16.")
            try:
                flags[key.strip()] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise InputError(f"--set {text} is no value.", "write --set training.rank=16.") from error
        named = {
            "training.base_model": self.base,
            "training.max_steps": self.steps,
            "training.nproc": self.nproc,
            "training.num_epochs": self.epochs,
            "miner.allow_licence": self.allow_licence or None,
            "synthesis.teacher": self.teacher,
            "training.time_budget_s": None if self.time_budget is None else seconds_of(self.time_budget),
        }
        flags |= {key: value for key, value in named.items() if value is not None}
        if (self.steps is not None or self.epochs is not None) and self.time_budget is None:
            flags.setdefault("training.time_budget_s", None)  # who counts steps does not want the clock to count too
        layers = [recipe_layer(self.recipe)] if self.recipe else []
        layers += [file_layer(self.config)] if self.config else []
        return load_settings(*layers, environment_layer(), ("flag", flags))

    def workspace(self) -> Workspace:
        """The workspace that was asked for."""
        return Workspace.open(self.home)


def seconds_of(text: str) -> float:
    """A duration with its unit, in seconds.

    >>> seconds_of("90s"), seconds_of("4m"), seconds_of("1.5h"), seconds_of("45")
    (90.0, 240.0, 5400.0, 45.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if match is None:
        raise InputError(f"{text!r} is not a duration.", "write 90s, 4m or 2h.")
    return float(match[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[match[2]]


def show(value: Any) -> None:
    """Print data on stdout."""
    print(json.dumps(value, indent=1, default=str, ensure_ascii=False))


@contextmanager
def opened(repo: Path, choices: Choices) -> Iterator[tuple[Pipeline, Display]]:
    """A pipeline whose events are shown and recorded; one process at a time works on a repository."""
    workspace = choices.workspace()
    loaded = choices.settings()
    early: list[Event] = []  # what happens before the run has a folder to be written to
    with Display() as display:
        pipeline = PIPELINES[choices.recipe](repo, loaded, workspace, EventStream(None, early.append, display))
        pipeline.repository  # noqa: B018 (reads it: a wrong path is told before anything is loaded)
        with workspace.lock(f"run-{pipeline.model_name}"):
            path = pipeline.run_folder / "events.jsonl"
            for event in early:
                EventStream(path)(event)
            pipeline.emit = EventStream(path, display)
            yield pipeline, display


# -- the main job ---------------------------------------------------------------------------------------------------


@app.command()
def run(
    repo: Repo = Path(),
    base: Base = None,
    steps: Steps = None,
    epochs: Epochs = None,
    time_budget: Budget = None,
    teacher: Teacher = None,
    set: Set = None,
    config: Config = None,
    home: Home = None,
    allow_licence: AllowLicence = None,
    json: AsJson = False,
) -> None:
    """Mine, train, judge, export and deploy, then answer a first question. Again: only what changed."""
    choices = Choices(base, steps, epochs, time_budget, teacher, set, config, home, allow_licence)
    with opened(repo, choices) as (pipeline, display):
        wanted = pipeline.settings.runtime.deploy
        if wanted != "never":
            pipeline.require_runtime()
        report = pipeline.report
        verdict = pipeline.verdict
        deployed = wanted == "always" or (wanted == "if-better" and verdict.better)
        if deployed:
            pipeline.deploy()
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
    same = "the same words with `deploy` in place of `run`."
    if deployed:
        text = f"deployed  {pipeline.model_name}:{pipeline.run_id}; back to the one before: ai-forge rollback {pipeline.path}"
    elif wanted == "never":
        text = f"not deployed, as asked. To deploy it: {same}"
    else:
        text = f"not deployed: it was not shown to be better. To deploy it all the same: {same}"
    out.print(escape(text), style=None if deployed or wanted == "never" else "yellow", soft_wrap=True)


def first_answer(pipeline: Pipeline) -> tuple[str, Reply]:
    """A first question, about what a held-out block is for, answered by the deployed model."""
    held_out = pipeline.held_out_questions
    question = next((e.question for e in held_out if e.family == "purpose"), held_out[0].question)
    reply = pipeline.ask(question)
    for _ in reply:
        pass
    return question, reply


def print_answer(question: str, reply: Reply) -> None:
    """A question and its answer with what it cites."""
    print(f"\n> {question}\n{reply.text.strip()}")
    print_citations(reply)


def print_citations(reply: Reply) -> None:
    """The cited blocks with file and lines, and what was cited without being shown."""
    for document in reply.cited:
        print(f"  {document.citation}  {document.text.strip().splitlines()[0][:90]}")
    for citation in reply.invented:
        stderr.print(f"[yellow]  {escape(citation)} was cited but not shown to the model: do not trust it.[/yellow]")
    if not reply.cited and not reply.invented:
        stderr.print("[yellow]  The answer cites nothing.[/yellow]")


# -- one stage at a time --------------------------------------------------------------------------------------------


def _stage_command(name: str, text: str, act: Callable[[Pipeline], Any]) -> None:
    def command(
        repo: Repo = Path(),
        base: Base = None,
        steps: Steps = None,
        epochs: Epochs = None,
        time_budget: Budget = None,
        teacher: Teacher = None,
        set: Set = None,
        config: Config = None,
        home: Home = None,
        allow_licence: AllowLicence = None,
        recipe: Recipe = None,
        nproc: Nproc = None,
    ) -> None:
        if recipe and name not in WITH_RECIPE:
            raise InputError(f"`ai-forge {name}` knows no recipe.", f"give it to {', '.join(WITH_RECIPE)}.")
        choices = Choices(base, steps, epochs, time_budget, teacher, set, config, home, allow_licence, recipe, nproc)
        with opened(repo, choices) as (pipeline, _):
            result = act(pipeline)
        show(result)

    command.__doc__ = text
    app.command(name)(command)


def _stage(attribute: str) -> Callable[[Pipeline], Any]:
    def act(pipeline: Pipeline) -> Any:
        stage = getattr(pipeline, attribute)
        return {"stage": stage.name, "folder": str(stage.folder), **stage.counts}

    return act


def _export(pipeline: Pipeline) -> Any:
    made = _stage("export")(pipeline)
    try:
        return {**made, "modelfile": str(pipeline.write_modelfile())}
    except InputError as error:  # the files are good all the same: the embedded runtime follows any template
        pipeline.emit(Notice("warning", f"no Modelfile: {error}"))
        return made


def _evaluate(pipeline: Pipeline) -> Any:
    report = pipeline.report
    return {"verdict": pipeline.verdict.headline, "better": pipeline.verdict.better, "report": str(report)}


def _deploy(pipeline: Pipeline) -> Any:
    deployed = pipeline.deploy()
    activation = deployed.activation
    return {
        "model": f"{pipeline.model_name}:{activation.version}",
        "runtime": activation.runtime,
        "changed": deployed.changed,
    }


_stage_command("mine", "Parse the repository into code blocks.", _stage("mine"))
_stage_command("synthesize", "Split by file, write and validate the examples.", _stage("dataset"))
_stage_command(
    "validate",
    "The quality report of the examples.",
    lambda p: {"report": str(p.dataset.folder / "quality.md"), **p.dataset.counts},
)
_stage_command("train", "Train the adapter; continues where it was cut off.", _stage("train"))
_stage_command("evaluate", "Judge the tuned model against the base; write the report.", _evaluate)
_stage_command("export", "Merge, write the GGUF files and a Modelfile.", _export)
_stage_command("deploy", "Make the tuned model the active one, whatever the verdict; parity must hold.", _deploy)
_stage_command("plan", "Counts, tokens, memory and time, before training.", lambda p: p.plan())


# -- the deployed model ---------------------------------------------------------------------------------------------


@app.command()
def ask(
    question: Question,
    repo: Annotated[Path, typer.Option("--repo", help="The repository.")] = Path(),
    set: Set = None,
    config: Config = None,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """Ask the deployed model about the repository; prints the answer and the code it cites."""
    choices = Choices(set=set, config=config, home=home)
    pipeline = Pipeline(repo, choices.settings(), choices.workspace(), lambda _: None)
    reply = pipeline.ask(question)
    for piece in reply:
        if not json:
            print(piece, end="", flush=True)
    if json:
        cited = [document.citation for document in reply.cited]
        show(
            {
                "question": question,
                "answer": reply.text,
                "cited": cited,
                "invented": reply.invented,
                "model": reply.model,
            }
        )
        return
    print()
    print_citations(reply)


@app.command()
def chat(
    repo: Annotated[Path, typer.Option("--repo", help="The repository.")] = Path(),
    set: Set = None,
    config: Config = None,
    home: Home = None,
) -> None:
    """Ask one question after the other; an empty line ends."""
    choices = Choices(set=set, config=config, home=home)
    pipeline = Pipeline(repo, choices.settings(), choices.workspace(), lambda _: None)
    while True:
        try:
            question = input("> ").strip()
        except EOFError:
            question = ""
        if not question:
            return
        reply = pipeline.ask(question)
        for piece in reply:
            print(piece, end="", flush=True)
        print()
        print_citations(reply)


@app.command()
def rollback(repo: Repo = Path(), set: Set = None, config: Config = None, home: Home = None) -> None:
    """Return to the version that the active one replaced."""
    choices = Choices(set=set, config=config, home=home)
    pipeline = Pipeline(repo, choices.settings(), choices.workspace(), lambda _: None)
    activation = pipeline.rollback()
    show({"model": f"{pipeline.model_name}:{activation.version}", "runtime": activation.runtime})


# -- looking around -------------------------------------------------------------------------------------------------


@app.command()
def doctor(home: Home = None, set: Set = None, json: AsJson = False) -> None:
    """What is here, what is missing, what to do about it."""
    from ai_forge.doctor import examine

    choices = Choices(set=set, home=home)
    findings = examine(choices.settings().settings, choices.home)
    if json:
        show([vars(finding) for finding in findings])
    else:
        for finding in findings:
            mark = {"ok": "✓", "missing": "✗", "optional": "–"}[finding.state]
            print(
                f"{mark} {finding.name:<12} {finding.text}"
                + (f"\n{'':15}{finding.next_step}" if finding.next_step else "")
            )
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(3)


@app.command()
def models(home: Home = None, json: AsJson = False) -> None:
    """The bases that have a name, and the models that were made here."""
    from ai_forge.conductor import Registry
    from ai_forge.config.models import load_models

    workspace = Workspace.open(home)
    with Registry(workspace.registry_path) as registry:
        versions = registry.versions()
        active = {v.deployment.name: registry.active(v.deployment.name) for v in versions}
    made = [
        {
            "model": v.deployment.model,
            "base": v.deployment.base,
            "created": v.deployment.created_at,
            "active": (a := active[v.deployment.name]) is not None and a.version == v.deployment.version,
        }
        for v in versions
    ]
    known = load_models().models
    bases = [{"name": n, "parameters": e.parameters, "licence": e.licence, "hub": e.hub} for n, e in known.items()]
    if json:
        show({"bases": bases, "made": made})
        return
    for name, entry in known.items():
        print(f"{name:<34} {entry.parameters / 1e9:5.2f} B  {entry.licence}")
    for row in made:
        print(f"{row['model']:<34} from {row['base']}, {row['created']}" + ("  (active)" if row["active"] else ""))


@app.command()
def runs(home: Home = None, json: AsJson = False) -> None:
    """The runs in the workspace, newest first."""
    from ai_forge.workspace import read_json

    found = [read_json(path) for path in Workspace.open(home).runs_dir.glob("*/run.json")]
    rows = sorted((r for r in found if r), key=lambda r: str(r["created"]), reverse=True)
    if json:
        show(rows)
        return
    for row in rows:
        print(f"{row['run_id']}  {row['created']}  {row['name']}  {row['base']['name']}")


@config_app.command("show")
def config_show(base: Base = None, set: Set = None, config: Config = None, json: AsJson = False) -> None:
    """Each setting, its value and where it came from."""
    rows = Choices(base=base, set=set, config=config).settings().rows()
    if json:
        show([{"key": key, "value": value, "source": source} for key, value, source in rows])
        return
    width = max(len(key) for key, _, _ in rows)
    for key, value, source in rows:
        print(f"{key:<{width}}  {value!s:<40} {source}")


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
