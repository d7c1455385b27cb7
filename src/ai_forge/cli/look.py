"""`ai-forge doctor`, `models`, `runs` and `config show`: what is here. They change nothing."""

from __future__ import annotations

from pathlib import Path

import typer

from ai_forge.cli.options import AsJson, Home, Options, with_options
from ai_forge.cli.output import show, table
from ai_forge.json_lines import JsonObject

config_app = typer.Typer(help="Settings: their values and where each came from.", no_args_is_help=True)
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
    """The bases that have a name, and the models that were made here."""
    from ai_forge.config.models import load_models
    from ai_forge.serving.registry import Registry
    from ai_forge.workspace import Workspace

    with Registry(Workspace.open(home).registry_path) as registry:
        deployments = [version.deployment for version in registry.versions()]
        active = {name: registry.active(name) for name in {deployment.name for deployment in deployments}}
    made: list[dict[str, object]] = []
    states = []
    for one in deployments:
        current = active[one.name]
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


def runs(home: Home = None, json: AsJson = False) -> None:
    """The runs in the workspace, newest first, with how far each came."""
    from ai_forge.workspace import Workspace, read_json

    records = [(path.parent, read_json(path)) for path in Workspace.open(home).runs_dir.glob("*/run.json")]
    # a folder whose record is torn, or of a version that wrote another, is passed over: the list is for finding runs
    rows = [_row(folder, record) for folder, record in records if record and "run" in record]
    rows.sort(key=lambda row: str(row["created"]), reverse=True)

    def text() -> None:
        if not rows:
            print("no runs yet: ai-forge run REPO makes one")
            return
        shown = [[row[key] or "" for key in ("run_id", "created", "model", "base", "state", "verdict")] for row in rows]
        table(("run", "began", "model", "base", "state", "verdict"), shown)

    show(rows, text, json)


def _row(folder: Path, record: JsonObject) -> JsonObject:
    """What `runs` says of a run, read off its record and its events."""
    from ai_forge.events import read_events

    state, verdict = "not begun", None
    finished: dict[str, None] = {}  # in the order of the first time: a stage that is made again takes no run back
    for event in read_events(folder / "events.jsonl"):
        kind, stage = event.get("event"), event.get("stage", "")
        if stage == "plan":  # a look at a run does not move it
            continue
        if kind == "StageStarted":
            state = f"in {stage}"
        elif kind == "StageFinished":
            finished.setdefault(stage)
            furthest = next(reversed(finished))
            state = "deployed" if furthest == "deploy" else f"{furthest} done"
            if stage == "report":
                verdict = event.get("text")
        elif kind == "StageFailed":
            state = f"{stage} failed"
        elif kind == "StageCancelled":
            state = f"{stage} cancelled"
    run = record["run"]
    # by recipe: `report.html` of a repository, `compliance.md` of a handbook
    report = next((str(path) for path in (folder / "report.html", folder / "compliance.md") if path.is_file()), None)
    return {
        "run_id": run["id"],
        "created": local_time(record["created"]),
        "model": run["model"],
        "repository": run["repository"],
        "recipe": run["recipe"],
        "base": record["base"]["name"],
        "state": state,
        "verdict": verdict,
        "report": report,
    }


def local_time(text: str) -> str:
    """An ISO time as this machine's clock shows it, to the minute.

    >>> len(local_time("2026-01-02T03:04:05+00:00"))
    16
    """
    import datetime

    try:
        return datetime.datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return text


@config_app.command("show")
@with_options("base", "set", "config", "recipe")
def config_show(options: Options, json: AsJson = False) -> None:
    """Each setting, its value and where it came from."""
    rows = options.settings().rows()
    values = [{"key": key, "value": value, "source": source} for key, value, source in rows]
    show(values, lambda: table(("setting", "value", "from"), [[k, str(v), s] for k, v, s in rows]), json)
