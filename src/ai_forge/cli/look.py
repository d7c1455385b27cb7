"""`ai-forge doctor`, `models`, `runs` and `config show`: what is here. They change nothing."""

import typer

from ai_forge.cli.options import AsJson, Choices, Home, show, taking
from ai_forge.workspace import Workspace

config_app = typer.Typer(help="Settings: their values and where each came from.", no_args_is_help=True)


@taking("home", "set")
def doctor(choices: Choices, json: AsJson = False) -> None:
    """What is here, what is missing, what to do about it."""
    from ai_forge.doctor import examine

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
@taking("base", "set", "config")
def config_show(choices: Choices, json: AsJson = False) -> None:
    """Each setting, its value and where it came from."""
    rows = choices.settings().rows()
    if json:
        show([{"key": key, "value": value, "source": source} for key, value, source in rows])
        return
    width = max(len(key) for key, _, _ in rows)
    for key, value, source in rows:
        print(f"{key:<{width}}  {value!s:<40} {source}")
