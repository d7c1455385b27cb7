"""`ai-forge doctor`, `models`, `runs` and `config show`: what is here. They change nothing."""

from __future__ import annotations

import typer

from ai_forge.cli.options import AsJson, Home, Options, Words, with_options
from ai_forge.cli.output import show, table, warn
from ai_forge.wording import local_time

config_app = typer.Typer(cls=Words, help="Settings: their values and where each came from.", no_args_is_help=True)
MARKS = {"ok": "✓", "missing": "✗", "optional": "–"}


@with_options("home", "set")
def doctor(options: Options, json: AsJson = False) -> None:
    """What is here, what is missing, what to do about it."""
    from ai_forge.doctor import examine

    findings = examine(options.settings().settings, options.home)

    def text() -> None:
        for finding in findings:
            print(f"{MARKS[finding.state]} {finding.name:<12} {finding.text}")
            if finding.next_step:
                print(f"{'':15}{finding.next_step}")

    show([vars(finding) for finding in findings], text, json)
    if any(finding.state == "missing" for finding in findings):
        raise typer.Exit(3)


def models(home: Home = None, json: AsJson = False) -> None:
    """The bases by name, and the models that were made here."""
    from ai_forge.config.models import load_models
    from ai_forge.serving.registry import Registry
    from ai_forge.workspace import Workspace

    with Registry(Workspace.open(home).registry_path) as registry:
        deployments = [version.deployment for version in registry.versions()]
        active = {name: one.activation for name, one in registry.deployed().items()}
        damaged = registry.damaged()
    made: list[dict[str, object]] = []
    states = []
    for one in deployments:
        current = active.get(one.name)
        is_active = current is not None and current.version == one.version
        made.append({"model": one.model, "base": one.base, "created": one.created_at, "active": is_active})
        states.append([one.model, one.base, local_time(one.created_at), "active" if is_active else ""])
    known = load_models().models
    bases = [{"name": n, "parameters": e.parameters, "licence": e.licence, "hub": e.hub} for n, e in known.items()]

    def text() -> None:
        rows = [[name, f"{entry.parameters / 1e9:.2f} B", entry.licence] for name, entry in known.items()]
        table(("base", "size", "licence"), rows, right=("size",))
        if made:
            print()
            table(("model", "base", "deployed", ""), states)

    show({"bases": bases, "made": made}, text, json)
    for sentence in damaged:
        warn(sentence)


def runs(home: Home = None, json: AsJson = False) -> None:
    """The runs, newest first, and how far each came."""
    from ai_forge.pipeline.runs import damaged_runs, runs_of
    from ai_forge.workspace import Workspace

    workspace = Workspace.open(home)
    found = runs_of(workspace)

    def text() -> None:
        if not found:
            print("no runs yet: ai-forge run REPO makes one")
            return
        shown = [
            [run.run_id, local_time(run.created), run.model, run.base, run.state, run.verdict or ""] for run in found
        ]
        table(("run", "began", "model", "base", "state", "verdict"), shown)

    show([run.model_dump() | {"created": local_time(run.created)} for run in found], text, json)
    for sentence in damaged_runs(workspace):
        warn(sentence)


@config_app.command("show")
@with_options("base", "set", "config", "recipe")
def config_show(options: Options, json: AsJson = False) -> None:
    """Each setting, its value and where it came from."""
    rows = options.settings().rows()
    values = [{"key": key, "value": value, "source": source} for key, value, source in rows]
    show(values, lambda: table(("setting", "value", "from"), [[k, str(v), s] for k, v, s in rows]), json)
