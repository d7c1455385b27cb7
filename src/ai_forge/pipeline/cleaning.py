"""What may be removed from a workspace: outputs that no kept run and no deployed version needs, and runs beyond the newest.

Kept always: what the registry's versions are served from, every output of a kept run, finished or not, converted bases (they are
shared and small beside what they save), and everything younger than the age that is asked for. Nothing is removed by looking.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ai_forge.errors import AIForgeError, InputError
from ai_forge.events import read_events
from ai_forge.pipeline.run import RECORD, read_record, read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.runs import view_of
from ai_forge.serving.ask_log import FOLDER as ASKED
from ai_forge.serving.registry import Registry
from ai_forge.workspace import MANIFEST, Workspace

Kind = Literal["run", "output", "unfinished", "locks", "asked"]
SHARED = {"bases", "files", "teacher", "vectors"}  # folders of the cache that are no stages' outputs


@dataclass(frozen=True)
class Removable:
    """A folder or file that may go: what it is, when it was last written (s since 1970), its size."""

    kind: Kind
    path: Path
    written: float
    n_bytes: int


def removable(
    workspace: Workspace, *, keep_runs: int, older_than_s: float, with_asked: bool = False
) -> list[Removable]:
    """What may go, the largest first.

    Raises:
        InputError: a row of the registry or the record of a run is damaged, so that nobody knows what they need.

    Args:
        workspace: where to look.
        keep_runs: how many runs of each model stay, the newest.
        older_than_s: what was written within so many seconds stays.
        with_asked: also what models were asked; what a person corrected stays all the same.
    """
    active = _served(workspace)
    kept, old = _runs(workspace, keep_runs, active)
    needed = {folder for run in kept for folder in _outputs(run, workspace)} | active
    before = time.time() - older_than_s
    found = [_removable("run", run) for run in old]
    for stage in sorted(workspace.cache_dir.iterdir()):
        if stage.name in SHARED or not stage.is_dir():
            continue
        for folder in sorted(stage.iterdir()):
            if folder.is_dir() and folder.resolve() not in needed:
                kind: Kind = "unfinished" if folder.suffix == ".work" else "output"
                found.append(_removable(kind, folder))
    if with_asked:
        found += [_removable_file("asked", file) for file in sorted((workspace.root / ASKED).glob("*/asked.jsonl"))]
    return sorted((one for one in found if one.written < before), key=lambda one: -one.n_bytes)


def remove(found: Iterable[Removable]) -> int:
    """Remove what was found; returns the bytes that were freed."""
    freed = 0
    for one in found:
        if one.path.is_dir():
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            one.path.unlink(missing_ok=True)
        if not one.path.exists():
            freed += one.n_bytes
    return freed


def _served(workspace: Workspace) -> set[Path]:
    """Folders and run ids' folders that a registered version is made of."""
    with Registry(workspace.registry_path) as registry:
        if damaged := registry.damaged():
            raise InputError(f"What is deployed cannot be told: {damaged[0]}")
        versions = [version.deployment for version in registry.versions()]
    served = sorted(folder for folder in workspace.served_dir.glob("*/*") if folder.is_dir())
    if served and not versions:
        raise InputError(
            f"What is deployed cannot be told: {workspace.registry_path} is gone or empty, and {served[0]} is of a version.",
            "restore it from a backup, or deploy again what is to be kept: ai-forge deploy.",
        )
    folders = {deployment.gguf_path.parent.resolve() for deployment in versions}
    return folders | {(workspace.runs_dir / deployment.version).resolve() for deployment in versions}


def _runs(workspace: Workspace, keep: int, active: set[Path]) -> tuple[list[Path], list[Path]]:
    """The runs that stay and those that may go: the `keep` newest of each model stay, and those that are deployed."""
    by_model: dict[str, list[tuple[float, Path]]] = {}
    for folder in workspace.runs_dir.glob("[!.]*"):
        run = (read_record(folder) or {}).get("run")
        if isinstance(run, dict):
            # the record is written once, when the run begins; the folder's own time changes with every link in it
            by_model.setdefault(str(run.get("model")), []).append(((folder / RECORD).stat().st_mtime, folder))
        elif folder.is_dir() and any(folder.iterdir()):  # an empty one is of a run that was killed at once
            raise InputError(
                f"What the run in {folder} needs cannot be told: {RECORD} is damaged or missing.",
                f"the same `ai-forge run` as then writes it again; or give the run up: rm -r {folder}",
            )
    kept: list[Path] = []
    old: list[Path] = []
    for runs in by_model.values():
        for place, (_, folder) in enumerate(sorted(runs, reverse=True)):
            if place < keep or folder.resolve() in active:
                kept.append(folder)
            else:
                old.append(folder)
    return kept, old


def _outputs(folder: Path, workspace: Workspace) -> list[Path]:
    """Where the outputs of the run in `folder` lie, made, being made or to be made."""
    run = read_run(folder)
    if run is None:
        return []  # of another version of AI Forge: nothing could continue it
    try:
        stages = Runner(run, workspace).plan()
    except AIForgeError:
        return []
    places = [workspace.stage_folder(stage.name, stage.key) for stage in stages if stage.key is not None]
    # where an output before one that was made is gone or damaged, nobody knows which of its kind is this run's: all stay
    made = view_of(read_events(folder / "events.jsonl")).stages
    for stage in stages:
        if stage.key is None and stage.name in made:
            places += (workspace.cache_dir / stage.name).glob("*")
    works = [place.with_name(f"{place.name}.work") for place in places]
    return [path.resolve() for path in (*places, *works)]


def _removable(kind: Kind, folder: Path) -> Removable:
    files = [path.stat(follow_symlinks=False) for path in folder.rglob("*") if not path.is_dir()]
    manifest = folder / MANIFEST
    if manifest.is_file():  # written last: it says when the output was whole
        written = manifest.stat().st_mtime
    else:
        written = max((status.st_mtime for status in files), default=0.0)
    return Removable(kind, folder, written, sum(status.st_size for status in files))


def _removable_file(kind: Kind, file: Path) -> Removable:
    status = file.stat()
    return Removable(kind, file, status.st_mtime, status.st_size)
