"""Observe a handbook: whether its rules would make other training pairs than those that its model was trained on.

The pairs are written anew into a copy of the agent folder and compared with the state that the last run recorded, so a change
of wording that changes no pair asks for nothing, and pairs that an owner wrote beside the rules stay theirs.
"""

from __future__ import annotations

import datetime
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ai_forge.antigravity_agent.observing.observe import Observation
from ai_forge.antigravity_agent.observing.trained import LastTraining
from ai_forge.data_pipeline.handbook.agent_folder import find_agent_folder, read_agent_folder
from ai_forge.data_pipeline.handbook.files import MADE_FILE, write_handbook
from ai_forge.data_pipeline.handbook.handbook import COMPANIONS, read_handbook
from ai_forge.errors import AIForgeError
from ai_forge.workspace import file_sha256, stage_key

__all__ = ["observe_handbook", "write_pairs"]


def write_pairs(repository: Path) -> None:
    """Write what `ai-forge handbook` writes: the pairs of the rules as they are now, in the agent folder."""
    write_handbook(read_handbook(repository))


def observe_handbook(
    repository: Path,
    since: LastTraining | None,
    *,
    now: datetime.datetime | None = None,
    given_up: Callable[[str], str | None] = lambda state: None,
) -> Observation:
    """How the handbook at or below `repository` differs from the one that the training `since` read.

    `files` are the handbook's where its pairs would be others, none where they are the same.
    """
    try:
        read = read_agent_folder(repository)
        state = _state_to_be(find_agent_folder(repository), tuple(file.path for file in read.files))
    except (AIForgeError, OSError) as error:
        return Observation(repository=repository, recipe="handbook", last_training=since, problem=str(error))
    age = None
    if since is not None:
        at = now or datetime.datetime.now(datetime.UTC)
        age = max(0.0, (at - since.at).total_seconds() / 86_400)
    trained_on = None if since is None else since.sources.get("files")
    is_same = trained_on == state
    return Observation(
        repository=repository,
        recipe="handbook",
        state=state,
        last_training=since,
        compared_with="nothing" if trained_on is None else "index",
        files=() if is_same else tuple(file.path for file in read.files),
        age_days=age,
        given_up=given_up(state),
    )


def _state_to_be(folder: Path, files: tuple[str, ...]) -> str:
    """What a run's `sources` would say of the handbook after its pairs are written; `folder` stays as it is."""
    with tempfile.TemporaryDirectory(prefix="ai-forge-handbook-") as temporary:
        copy = Path(temporary) / folder.name
        for name in (*files, *(name for name in (*COMPANIONS, MADE_FILE) if (folder / name).is_file())):
            if (folder / name).is_symlink():  # what it points to is not the repository's to give
                continue
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, copy / name)
        write_handbook(read_handbook(copy))
        written = {name: file_sha256(copy / name) for name in COMPANIONS if (copy / name).is_file()}
    return stage_key(**written)
