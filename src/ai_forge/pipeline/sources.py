"""What a run reads, and the state that it is in: the part of a run's id that is not a setting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ai_forge.config import Settings
from ai_forge.data_pipeline.examples.project_notes import state_of_notes
from ai_forge.data_pipeline.handbook.agent_folder import find_agent_folder, read_agent_folder
from ai_forge.data_pipeline.handbook.handbook import COMPANIONS, FINE_TUNING_FILE
from ai_forge.data_pipeline.search.entries import entries_beside_code
from ai_forge.data_pipeline.source.file_dates import read_dates
from ai_forge.data_pipeline.source.repository import Repository, read_repository
from ai_forge.data_pipeline.source.team_questions import read_team_questions
from ai_forge.errors import InputError
from ai_forge.pipeline.opened import files_state
from ai_forge.places import expanded
from ai_forge.workspace import file_sha256, stage_key

FROM_NOTES = {"why", "fits_together"}  # question families that quote commits and documentation


@dataclass(frozen=True)
class Source:
    """What is read. `states` are hashes by kind: a stage's key holds those that it depends on."""

    root: Path
    name: str
    commit: str | None
    states: dict[str, str]


class ReadSource(Protocol):
    """Looks at what a recipe reads. Raises `InputError` where that is not there."""

    def __call__(self, path: Path, settings: Settings) -> Source:  # noqa: D102 (the class says it)
        ...


def asks_for_notes(settings: Settings) -> bool:
    """Whether any question is made of what commits and documentation say."""
    families = set(settings.synthesis.families)
    return not families or not families.isdisjoint(FROM_NOTES)


def read_code(path: Path, settings: Settings) -> Source:
    """A repository: its files, and where they matter its history and documentation."""
    repository = read_repository(path, max_file_bytes=settings.miner.max_file_bytes)
    # what an index holds beside code: documentation, configuration, commits. So a new commit is another run, of which only
    # the index is made anew
    beside_code = [entry.id for entry in entries_beside_code(repository)]
    states = {"files": files_state(repository), "beside_code": stage_key(entries=beside_code)}
    # what blame and dates say enters the keys of examples only where an example is made of it
    if asks_for_notes(settings):
        states["notes"] = stage_key(**state_of_notes(repository))
    if settings.split.by != "file":
        states["dates"] = stage_key(dates=dates_of(repository, settings))
    asked = read_team_questions(repository.root)
    if asked is not None and asked.questions:
        states["team_questions"] = asked.state
    states |= _preferences(settings)
    return Source(repository.root, repository.name, repository.commit, states)


def dates_of(repository: Repository, settings: Settings) -> dict[str, int]:
    """When each file was written (s since 1970); nothing where the split does not ask."""
    if settings.split.by == "file":
        return {}
    return read_dates(repository)


def read_handbook_files(path: Path, settings: Settings) -> Source:
    """An agent's folder with the pairs that `ai-forge handbook` wrote, or that its owner did."""
    folder = find_agent_folder(path)
    if not (folder / FINE_TUNING_FILE).is_file():
        raise InputError(f"{folder} has no {FINE_TUNING_FILE}.", f"write it: ai-forge handbook {path}.")
    files = {name: file_sha256(folder / name) for name in COMPANIONS if (folder / name).is_file()}
    root = folder.resolve().parent
    known = {"files": stage_key(**files)} | _preferences(settings)
    if settings.synthesis.baked_tasks:  # then the rules are read as they stand, not only the pairs made of them
        known["rules"] = stage_key(**{file.path: file.text for file in read_agent_folder(folder).files})
    return Source(root, root.name or "repository", None, known)


def read_dataset_file(path: Path, settings: Settings) -> Source:
    """A file of examples in any format that `ai-forge data` reads, or a folder that it made."""
    path = expanded(path)
    if not path.exists():
        raise InputError(f"{path} does not exist.", "give a dataset: .jsonl, .json or .parquet.")
    if path.is_dir():
        files = {f.name: file_sha256(f) for f in sorted(path.iterdir()) if f.is_file()}
    else:
        files = {"file": file_sha256(path)}  # its name decides nothing: the same data makes the same model
    return Source(path.resolve(), path.stem, None, {"files": stage_key(**files)} | _preferences(settings))


def _preferences(settings: Settings) -> dict[str, str]:
    """The state of the file of preference pairs; a missing one is told by the stage that reads it."""
    pairs = settings.training.preferences
    if pairs is None or not Path(pairs).is_file():
        return {}
    return {"preferences": file_sha256(Path(pairs))}
