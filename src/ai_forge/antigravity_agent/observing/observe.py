"""Observe: how a repository differs from what its model was trained on, in numbers and names, without changing anything.

    git       files and commits since the commit of the last training, new tags         (where that commit is there)
    index     files and blocks against what the model knows of them                     (where git cannot tell)
    miner     today's blocks, of which only those of changed files are mined            (cached by file)

Names and texts of the repository are data: they are matched against globs of the settings and shown escaped, nothing else.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ai_forge.antigravity_agent.observing.changes import Tag, changes_since, has_commit, matches, new_tags
from ai_forge.antigravity_agent.observing.trained import Block, Known, LastTraining, known_to
from ai_forge.config import Settings
from ai_forge.data_pipeline.languages import language_of
from ai_forge.data_pipeline.miner import mine_repository
from ai_forge.data_pipeline.search.entries import block_entries
from ai_forge.data_pipeline.source.repository import Repository, blob_id, blobs_at_head, read_repository
from ai_forge.errors import AIForgeError
from ai_forge.file_cache import FileCache
from ai_forge.pipeline.opened import files_state
from ai_forge.workspace import Workspace, stage_key

__all__ = ["Observation", "ProbeLoss", "observe"]

MAX_COMPARED_BYTES = 1_000_000
ProbeLoss = Callable[[frozenset[str]], float | None]
"""How much higher (share) the deployed model's loss is on the changed files than it was on its held-out code."""


class Observation(BaseModel):
    """What was seen. Counts that could not be taken are None.

    `compared_with` says against what files were compared: the commit of the last training, what its model knows (`index`), or
    nothing, where all files count as changed. `state` names the state of the files that were looked at. `problem` is set where
    the repository cannot be read; nothing else is then known.
    """

    model_config = ConfigDict(frozen=True)

    repository: Path
    recipe: str = "repository"
    head: str | None = None
    state: str | None = None
    last_training: LastTraining | None = None
    compared_with: Literal["commit", "index", "nothing"] = "nothing"
    files: tuple[str, ...] = ()
    n_uncommitted: int = 0
    critical_files: tuple[str, ...] = ()
    commits: int | None = None
    rewritten: bool = False
    tags: tuple[str, ...] = ()
    block_share: float | None = None
    age_days: float | None = None
    loss_rise: float | None = None
    given_up: str | None = None
    """How the last cycle on this very state ended, where it made no model: it would end so again."""
    problem: str | None = None


def observe(
    repository: Path,
    since: LastTraining | None,
    settings: Settings,
    workspace: Workspace,
    *,
    now: datetime.datetime | None = None,
    given_up: Callable[[str], str | None] = lambda state: None,
    probe_loss: ProbeLoss | None = None,
) -> Observation:
    """How `repository` differs from what the training `since` read; from nothing where there was none.

    Args:
        given_up: how the last cycle on a state of the files ended, where it made no model.
        probe_loss: measures the deployed model on changed files; left out, it is not measured.
    """
    try:
        read = read_repository(repository, max_file_bytes=settings.miner.max_file_bytes)
    except AIForgeError as error:  # a watch goes on: tomorrow it may be whole
        return Observation(repository=repository, last_training=since, problem=str(error))
    committed = blobs_at_head(read.root) if read.commit is not None else {}
    uncommitted = _uncommitted(read, committed)
    seen = _Seen(read, settings, workspace, committed, uncommitted)
    known = None if since is None else known_to(since)
    compared_with, paths, commits, rewritten = seen.compare(since, known)
    tags: tuple[Tag, ...] = ()
    if read.commit is not None and since is not None:
        commit = since.commit if compared_with == "commit" else None
        tags = new_tags(read.root, settings.guardian.tags, commit, since.at.timestamp())
    age = loss_rise = None
    if since is not None:
        at = now or datetime.datetime.now(datetime.UTC)
        age = max(0.0, (at - since.at).total_seconds() / 86_400)
        if probe_loss is not None and paths:
            loss_rise = probe_loss(paths)
    state = files_state(read)
    return Observation(
        repository=read.root,
        head=read.commit,
        state=state,
        last_training=since,
        compared_with=compared_with,
        files=tuple(sorted(paths)),
        n_uncommitted=len(uncommitted),
        critical_files=tuple(sorted(matches(paths, settings.guardian.critical_paths))),
        commits=commits,
        rewritten=rewritten,
        tags=tuple(tag.name for tag in tags),
        block_share=seen.block_share(known),
        age_days=age,
        loss_rise=loss_rise,
        given_up=given_up(state),
    )


class _Seen:
    """A repository as it is, compared with what was."""

    def __init__(
        self,
        read: Repository,
        settings: Settings,
        workspace: Workspace,
        committed: dict[str, str],
        uncommitted: frozenset[str],
    ) -> None:
        self._read = read
        self._settings = settings
        self._workspace = workspace
        self._uncommitted = uncommitted
        self._blobs = committed | {file.path: file.blob_id for file in read.files}

    def compare(
        self, since: LastTraining | None, known: Known | None
    ) -> tuple[Literal["commit", "index", "nothing"], frozenset[str], int | None, bool]:
        """(against what, the paths that differ, commits between, whether the history was rewritten)."""
        root = self._read.root
        if since is not None and self._read.commit is not None and has_commit(root, since.commit):
            changes = changes_since(root, str(since.commit))
            if changes is not None:
                paths = changes.paths | self._uncommitted
                if known is not None:  # uncommitted work that was trained on is no change, committed since or not
                    paths = frozenset(path for path in paths if not self._is_as_trained(path, known))
                return "commit", paths, changes.commits, changes.rewritten
        if known is not None:
            return "index", self._against(known), None, False
        return "nothing", frozenset(file.path for file in self._read.files), None, False

    def _is_as_trained(self, path: str, known: Known) -> bool:
        return path in known.blobs and self._blobs.get(path) == known.blobs[path] and self._exists(path)

    def _against(self, known: Known) -> frozenset[str]:
        """Files that the index knows otherwise or that are gone, and new ones that have blocks."""
        changed = {path for path, blob in known.blobs.items() if self._blob_now(path) != blob}
        new = {path for path, _, _ in self._blocks()} - known.blobs.keys()
        return frozenset(changed | new)

    def _exists(self, path: str) -> bool:
        return os.path.lexists(self._read.root / path)

    def _blob_now(self, path: str) -> str | None:
        if path in self._blobs and path not in self._uncommitted:
            return self._blobs[path]
        if path in self._blobs and self._exists(path):
            return self._blobs[path]
        if self._read.is_git:
            return None
        return _blob_on_disk(self._read.root / path)

    def block_share(self, known: Known | None) -> float | None:
        """Share of the code's blocks that are new, changed or gone, 0–1; None where nothing is known of what was."""
        if known is None or not known.blocks:
            return None
        now = self._blocks()
        most = max(len(now), len(known.blocks))
        return round(1 - len(now & known.blocks) / most, 4)

    def _blocks(self) -> frozenset[Block]:
        if not hasattr(self, "_mined"):
            # the cache of the stage `mine`: only files that no run has mined are mined here
            place = self._workspace.cache_dir / "files" / f"{stage_key(root=str(self._read.root))}.db"
            mined = mine_repository(self._read, self._settings.miner, cache=FileCache(place))
            entries = block_entries(mined.documents)
            self._mined = frozenset((entry.path, entry.name, entry.text) for entry in entries)
        return self._mined


def _uncommitted(read: Repository, committed: dict[str, str]) -> frozenset[str]:
    """Source files that differ from HEAD or are gone from the folder; git is not asked, because it would run filters."""
    if not committed:
        return frozenset()
    changed = {file.path for file in read.files if committed.get(file.path) != file.blob_id}
    present = {file.path for file in read.files}
    gone = {
        path
        for path in committed
        if path not in present and language_of(path) is not None and not os.path.lexists(read.root / path)
    }
    return frozenset(changed | gone)


def _blob_on_disk(path: Path) -> str | None:
    """Blob id of a regular file that is no link and not huge."""
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > MAX_COMPARED_BYTES:
            return None
        return blob_id(path.read_bytes())
    except OSError:
        return None
