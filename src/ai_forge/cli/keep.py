"""`ai-forge backup` and `restore`: a workspace in one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ai_forge.cli.options import AsJson, Home, readable
from ai_forge.cli.output import show, warn

if TYPE_CHECKING:
    from ai_forge.pipeline.backup import Backup

File = Annotated[Path, typer.Argument(help="The backup: a .tar file.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Restore over a workspace with data, which is kept beside it.")]


def backup(file: File, home: Home = None, json: AsJson = False) -> None:
    """Write the workspace to a file and check it; a running service need not stop."""
    from ai_forge.pipeline.backup import back_up
    from ai_forge.workspace import Workspace

    workspace, target = Workspace.open(home), readable(file)
    made = back_up(workspace, target)
    if not (workspace.root / "jobs.db").exists():
        warn("There is no jobs.db: jobs that are kept in PostgreSQL are backed up there (pg_dump).")
    _print(made, f"{target} holds", json)


def restore(file: File, home: Home = None, force: Force = False, json: AsJson = False) -> None:
    """Make the workspace what it was when the backup was written; every file is checked first."""
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
