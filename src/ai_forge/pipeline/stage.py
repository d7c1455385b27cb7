"""What a stage is: a value with a name, what it needs, a key, and a function that builds its output into a folder.

    inputs(run, outputs) ─► key ─► cache/<name>/<key>/ ◄─ build(context) ─► Summary

The key is the hash of all that goes into the stage, so a folder with a key and a whole manifest is the stage's output,
whoever made it and when. `inputs` reads nothing but its arguments: where it looks into the summary of a stage that was not run
yet, `NotMadeError` says that its key is not known. Keying by what a stage made, and not by its key, cuts off early: a mined
repository that gives the same examples as before trains nothing anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict

from ai_forge.cancel import CancelToken
from ai_forge.events import Sink, StageProgress
from ai_forge.workspace import Workspace

if TYPE_CHECKING:
    from ai_forge.pipeline.opened import Opened
    from ai_forge.pipeline.run import Run

S = TypeVar("S", bound="Summary")
M = TypeVar("M", bound=BaseModel)


class Summary(BaseModel):
    """What a stage says of what it made; kept in its manifest."""

    model_config = ConfigDict(frozen=True)

    def sentence(self) -> str:
        """The same in a few words for people."""
        return ""


# Not of the tree in `errors`: it never reaches a user. The runner turns it into a key that is not known yet.
class NotMadeError(Exception):
    """A stage that is asked for its output has none yet."""


@dataclass(frozen=True)
class StageResult:
    """The output of a stage. `seconds` is what it took to make, whenever that was; `cached`: nothing had to be done."""

    name: str
    key: str
    folder: Path
    summary: Summary
    seconds: float
    cached: bool


class Outputs:
    """What the stages before one have made, and the keys of those that have made nothing yet."""

    def __init__(self, keys: Mapping[str, str | None], results: Mapping[str, StageResult]) -> None:
        self._keys = keys
        self._results = results

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def key(self, name: str) -> str:
        """The key of a stage, made or not. Raises `NotMadeError` where that depends on what is not made."""
        key = self._keys[name]
        if key is None:
            raise NotMadeError(name)
        return key

    def folder(self, name: str) -> Path:
        """Where the output of a stage lies. Raises `NotMadeError`."""
        return self._result(name).folder

    def summary(self, name: str, kind: type[S]) -> S:
        """What a stage said of its output. Raises `NotMadeError`."""
        found = self._result(name).summary
        # a key that matched and a summary of another class can only mean two stages of one name in a recipe
        assert isinstance(found, kind), f"{name} gives {type(found).__name__}"
        return found

    def read(self, name: str, file: str, kind: type[M]) -> M:
        """What a stage left as JSON in a file of its folder. Raises `NotMadeError`."""
        return kind.model_validate_json((self.folder(name) / file).read_text(encoding="utf-8"))

    def _result(self, name: str) -> StageResult:
        if name not in self._results:
            raise NotMadeError(name)
        return self._results[name]


@dataclass(frozen=True)
class StageContext:
    """What a stage that is built is given. It leaves its output in `folder` and reads others' from `outputs`."""

    run: Run
    stage: str
    outputs: Outputs
    folder: Path
    opened: Opened
    workspace: Workspace
    emit: Sink
    cancel: CancelToken

    def report(self, done: int, total: int, note: str = "") -> None:
        """Say how far the stage has come; raises `CancelledError` where it is to stop."""
        # progress is reported where a step is whole, which is where stopping loses nothing
        self.cancel.check()
        self.emit(StageProgress(self.stage, done, total, note))


def keyed_by_files(run: Run, outputs: Outputs) -> Mapping[str, Any]:
    """The inputs of a stage that reads files and nothing else: two recipes may read the same ones differently."""
    return {"recipe": run.recipe, "files": run.sources["files"]}


@dataclass(frozen=True)
class Stage:
    """One step of a recipe.

    `made_of` names the modules whose code decides what the stage makes, with all that they import: a test holds their hash,
    and says when `version` has to be thought about. A `resumable` stage finds in its folder what an attempt that was cut off
    left there. `applies` says whether a run has the stage at all.
    """

    name: str
    needs: tuple[str, ...]
    version: int
    inputs: Callable[[Run, Outputs], Mapping[str, Any]]
    build: Callable[[StageContext], Summary]
    summary: type[Summary]
    made_of: tuple[str, ...]
    resumable: bool = False
    applies: Callable[[Run], bool] = lambda run: True
