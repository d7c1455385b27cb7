"""What a model was trained on last, by the registry and by the runs in the workspace; and which versions were taken back.

A training counts whether or not its model was deployed: one that was refused need not be tried again on the same code. What it
knew of the repository is read from its index (paths, blobs, blocks), so it can be compared with files where git cannot help:
no history, a commit that is gone, uncommitted work that was trained on.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.events import read_events
from ai_forge.pipeline.run import Run, read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import NotMadeError
from ai_forge.places import regular_bytes
from ai_forge.serving.registry import Registry
from ai_forge.workspace import Workspace

__all__ = ["Block", "Known", "LastTraining", "known_in", "known_to", "last_training", "withdrawn"]

BESIDE_CODE = ("documentation", "configuration", "commit")
Block = tuple[str, str, str]
"""Path, qualified name and text: a block that only moved within its file is the same."""


class LastTraining(BaseModel):
    """A training that ended. `version` is the run's id; `sources` the state of what it read, by kind, where its run is kept."""

    model_config = ConfigDict(frozen=True)

    version: str
    commit: str | None
    at: datetime.datetime
    index: Path | None = None
    sources: Mapping[str, str] = {}


@dataclass(frozen=True)
class Known:
    """What an index holds of a repository."""

    entries: tuple[Entry, ...]

    @cached_property
    def blobs(self) -> dict[str, str]:
        """Blob id of each file that something was read of."""
        return {entry.path: entry.blob_id for entry in self.entries if entry.kind != "commit" and entry.blob_id}

    @cached_property
    def blocks(self) -> frozenset[Block]:
        """Its code."""
        code = (entry for entry in self.entries if entry.kind not in BESIDE_CODE)
        return frozenset((entry.path, entry.name, entry.text) for entry in code)


def last_training(model: str, workspace: Workspace) -> LastTraining | None:
    """The newest training of `model`: of a version in the registry, or of a run whose training ended."""
    found = [*_registered(model, workspace), *_of_runs(model, workspace)]
    # of one training that both know the run's row says more
    return max(found, key=lambda training: (training.at, bool(training.sources)), default=None)


def _registered(model: str, workspace: Workspace) -> Iterator[LastTraining]:
    if not workspace.registry_path.is_file():
        return
    with Registry(workspace.registry_path) as registry:
        deployments = [version.deployment for version in registry.versions(model)]
    for one in deployments:
        asking = one.asking
        commit = None if asking is None or asking.repository is None else asking.repository.commit
        index = None if asking is None else asking.index_folder
        try:
            at = datetime.datetime.fromisoformat(one.created_at)
        except ValueError:  # a row of a damaged clock says nothing of when
            continue
        yield LastTraining(version=one.version, commit=commit, at=_aware(at), index=index)


def _of_runs(model: str, workspace: Workspace) -> Iterator[LastTraining]:
    for path in workspace.runs_dir.glob("*/run.json"):
        run = read_run(path.parent)
        if run is None or run.model != model:
            continue
        ended = [
            float(event["time"])
            for event in read_events(path.with_name("events.jsonl"))
            if event.get("event") == "StageFinished" and event.get("stage") == "train" and "time" in event
        ]
        if ended:
            at = datetime.datetime.fromtimestamp(max(ended), datetime.UTC)
            yield LastTraining(
                version=run.id, commit=run.commit, at=at, index=_index_of(run, workspace), sources=run.sources
            )


def _index_of(run: Run, workspace: Workspace) -> Path | None:
    served = workspace.served_dir / run.model / run.id / "index"
    if served.is_dir():
        return served
    try:
        return Runner(run, workspace).outputs().folder("index")
    except (NotMadeError, KeyError):  # cleaned away, or a recipe without one
        return None


def _aware(at: datetime.datetime) -> datetime.datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=datetime.UTC)


def known_to(training: LastTraining) -> Known | None:
    """What the training knew of the repository; None where its index is gone or damaged."""
    return None if training.index is None else known_in(training.index)


def known_in(index: Path) -> Known | None:
    """What the index in a folder holds; None where it is gone or damaged."""
    try:
        lines = regular_bytes(index / "entries.jsonl").decode("utf-8").split("\n")
        return Known(tuple(Entry.from_json(line) for line in lines if line))
    except (OSError, ValueError, TypeError):
        return None


def withdrawn(model: str, workspace: Workspace) -> frozenset[str]:
    """The versions that were rolled back and not deployed again since: what a guardian does not deploy by itself."""
    if not workspace.registry_path.is_file():
        return frozenset()
    with Registry(workspace.registry_path) as registry:
        history = registry.history(model)
    taken_back = set[str]()
    for before, now in itertools.pairwise(history):
        if now.reason == "rollback":
            taken_back.add(before.version)
        else:
            taken_back.discard(now.version)
    return frozenset(taken_back)
