"""How a stage runs: its key, its folder in the cache, and what is told of it.

A stage's key is the hash of what goes into it, its folder lies under that key. A stage whose folder is whole is not run
again; one that was cut off is run again, or continued where it can be.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_forge.events import Sink, StageFinished, StageProgress, StageStarted
from ai_forge.workspace import Workspace, stage_key

VERSIONS = {
    "mine": 3,
    "words": 1,
    "dataset": 9,
    "index": 2,
    "train": 6,
    "prefer": 1,
    "merge": 1,
    "evaluate": 2,
    "export": 2,
    "parity": 4,
    "handbook": 1,
    "compliance": 1,
}
"""Raised when a stage's code changes what it makes from the same input."""


@dataclass(frozen=True)
class Stage:
    """A finished stage: where its output lies, and what it counted."""

    name: str
    key: str
    folder: Path
    counts: dict[str, Any]


class Stages:
    """What runs stages.

    Args:
        workspace: where everything is kept.
        emit: hears the events.
    """

    def __init__(self, workspace: Workspace, emit: Sink) -> None:
        self.workspace = workspace
        self.emit = emit

    @contextmanager
    def told(self, stage: str) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Tell that `stage` starts and ends; the yielded function takes its counts."""
        began = time.monotonic()
        told: dict[str, Any] = {}
        self.emit(StageStarted(stage))
        yield told.update
        self.emit(StageFinished(stage, time.monotonic() - began, bool(told.pop("cached", False)), told))

    def _stage(
        self, name: str, build: Callable[[Path], dict[str, Any]], /, *, continues: bool = False, **inputs: Any
    ) -> Stage:
        """The output of a stage: from the cache where it is whole, else what `build` puts into a folder and counts.

        The folder is new and appears when it is whole; with `continues` it is the one that a stage that was cut off left.
        """
        key = stage_key(stage=name, version=VERSIONS[name], **inputs)
        with self.told(name) as tell:
            manifest = self.workspace.finished(name, key)
            if manifest is not None:
                counts = manifest["counts"]
            else:
                place = self.workspace.continuing if continues else self.workspace.building
                with place(name, key) as (folder, counts):
                    counts.update(build(folder))
            tell({**counts, "cached": manifest is not None})
        return Stage(name, key, self.workspace.stage_folder(name, key), counts)

    def _progress(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self.emit(StageProgress(stage, done, total))
