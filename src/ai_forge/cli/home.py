"""`ai-forge clean`, `backup` and `restore`: the workspace as a whole."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import AsJson, Home, readable
from ai_forge.cli.output import show, table, warn
from ai_forge.errors import InputError

if TYPE_CHECKING:
    from ai_forge.pipeline.backup import Backup

KeepRuns = Annotated[int, typer.Option("--keep-runs", min=1, help="Runs of each model that stay, the newest.")]
OlderThan = Annotated[str, typer.Option("--older-than", help="Only what was written longer ago: 12h, 30d.")]
AndAsked = Annotated[bool, typer.Option("--asked", help="Also what models were asked; corrections stay.")]
Yes = Annotated[bool, typer.Option("--yes", help="Remove it. Without this nothing is removed.")]
File = Annotated[Path, typer.Argument(help="The backup: a .tar file.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Restore over a workspace with data, which is kept beside it.")]


def clean(
    keep_runs: KeepRuns = 3,
    older_than: OlderThan = "7d",
    asked: AndAsked = False,
    yes: Yes = False,
    home: Home = None,
    json: AsJson = False,
) -> None:
    """What nothing needs any more: listed; with --yes removed. Old runs and outputs; deployed versions stay whatever is asked."""
    from ai_forge.pipeline.cleaning import removable, remove
    from ai_forge.workspace import Workspace

    workspace = Workspace.open(home)
    found = removable(workspace, keep_runs=keep_runs, older_than_s=age_of(older_than), with_asked=asked)
    total = sum(one.n_bytes for one in found)
    freed = 0
    if yes:
        freed = remove(found)  # less than the total where something could not be removed
    values, rows = [], []
    for one in found:
        day = datetime.datetime.fromtimestamp(one.written).astimezone().strftime("%Y-%m-%d")
        values.append({"kind": one.kind, "path": str(one.path), "bytes": one.n_bytes, "written": day})
        rows.append([one.kind, day, f"{one.n_bytes / 1e6:.0f}", str(one.path.relative_to(workspace.root))])

    def text() -> None:
        if not found:
            print("Nothing to remove.")
            return
        table(("kind", "written", "MB", "folder"), rows, right=("MB",))
        if yes:
            print(f"{freed / 1e9:.2f} GB freed.")
        else:
            print(f"{total / 1e9:.2f} GB may go.")
            warn("Nothing was removed: add --yes.")

    show({"removed": yes, "bytes": total, "folders": values}, text, json)


def age_of(text: str) -> float:
    """An age in seconds.

    >>> age_of("12h"), age_of("30d"), age_of("0d")
    (43200.0, 2592000.0, 0.0)
    """
    match = re.fullmatch(r"(\d+)\s*([hd])", text.strip())
    if match is None:
        raise InputError(f"{text!r} is not an age.", "write 12h or 30d.")
    return float(match[1]) * {"h": 3600, "d": 86400}[match[2]]


def backup(file: File, home: Home = None, json: AsJson = False) -> None:
    """Write the workspace to a file and check it. A running service need not stop."""
    from ai_forge.pipeline.backup import back_up
    from ai_forge.workspace import Workspace

    workspace, target = Workspace.open(home), readable(file)
    made = back_up(workspace, target)
    if not (workspace.root / "jobs.db").exists():
        warn("There is no jobs.db: jobs that are kept in PostgreSQL are backed up there (pg_dump).")
    _print(made, f"{target} holds", json)


def restore(file: File, home: Home = None, force: Force = False, json: AsJson = False) -> None:
    """Put back the workspace that a backup holds. Every file is checked first."""
    from ai_forge.conductor.jobs.supervisor import worker_lives
    from ai_forge.errors import TransientError
    from ai_forge.pipeline import backup
    from ai_forge.workspace import Workspace

    root = Workspace.root_at(home)
    if root.exists() and worker_lives(Workspace(root)):
        raise TransientError(f"A service is at work in {root}.", "stop it, restore, start it again.")
    _print(backup.restore(readable(file), root, force=force), f"{root} holds again", json)


def _print(backup: Backup, what: str, json: bool) -> None:
    value = {"files": len(backup.files), "bytes": backup.n_bytes, "created": backup.created}
    show(value, f"{what} {len(backup.files)} files, {backup.n_bytes / 1e6:.1f} MB, each checked by its hash", json)
