"""What a training is asked to read: an uploaded file of examples, an uploaded repository, or one that lies on this machine.

All of it is checked before a job is queued, and lies in the job's own folder, which goes with the job.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ai_forge.conductor.archives import ARCHIVES, unpack
from ai_forge.conductor.problems import ServiceError
from ai_forge.config.models import load_models
from ai_forge.data_pipeline.datasets.formats import read_dataset
from ai_forge.data_pipeline.datasets.rows import ENDINGS
from ai_forge.errors import InputError
from ai_forge.places import expanded
from ai_forge.workspace import require_disk

__all__ = ["Received", "check_base", "receive", "repository_inside"]

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
OLLAMA_NAME = re.compile(r"ollama:[\w.-]+(/[\w.-]+)*(:[\w.-]+)?")


@dataclass(frozen=True)
class Received:
    """What is trained on: its place, the recipe that reads it, and what was found in it."""

    path: Path
    recipe: str
    found: str


def receive(file: BinaryIO, name: str, size: int | None, folder: Path, recipe: str | None, max_bytes: int) -> Received:
    """Keep an upload in `folder` and look whether it can be trained on.

    Raises:
        InputError: it is neither examples nor a repository; the message says where it goes wrong.
        PrerequisiteError: too little disk.
    """
    # the caller's name decides the ending and nothing else
    ending = next((one for one in (*ENDINGS, *ARCHIVES[::-1]) if name.lower().endswith(one)), None)
    if ending is None:
        known = ", ".join((*ENDINGS, *ARCHIVES))
        raise InputError(f"{name[:100]!r} is no file that can be trained on.", f"send one of {known}.")
    require_disk(folder, 2 * (size or 0), "The upload")
    stored = folder / f"upload{ending}"
    with stored.open("wb") as kept:
        shutil.copyfileobj(file, kept, 1 << 20)
    if ending in ENDINGS:
        if recipe not in (None, "dataset"):
            raise InputError(
                f"A file of examples is no {recipe}.", "leave recipe out, or send a zip or tar of a repository."
            )
        dataset = read_dataset(stored)
        return Received(stored, "dataset", f"{len(dataset.records)} records, {dataset.format}")
    if recipe == "dataset":
        raise InputError("An archive is no file of examples.", "leave recipe out, or send .jsonl, .json or .parquet.")
    target = folder / "repository"
    target.mkdir()
    unpacked = unpack(stored, target, max_bytes=max_bytes)
    stored.unlink()
    return Received(unpacked.root, recipe or "repository", f"{unpacked.n_files} files, {unpacked.n_left_out} left out")


def repository_inside(path: str, roots: tuple[str, ...]) -> Path:
    """The repository at `path`, which lies inside one of `roots`.

    Raises:
        ServiceError: it does not, or is not there: which of the two is not told.
    """
    allowed = [expanded(Path(root)).resolve() for root in roots]
    try:
        chosen = Path(path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        chosen = None
    if chosen is None or not chosen.is_dir() or not any(chosen.is_relative_to(root) for root in allowed):
        raise ServiceError(
            400,
            "outside",
            f"{path[:200]!r} is no folder inside the roots of this service.",
            "send the repository as a zip or tar, or add its folder to service.repository_roots.",
            param="repository",
        )
    return chosen


def check_base(name: str, roots: tuple[str, ...]) -> str:
    """A base that a request may name: one of `models.yaml`, a hub's id, a model of Ollama here, or a folder inside the roots.

    Raises:
        ServiceError: another path or address.
    """
    if load_models().find(name) is not None or OLLAMA_NAME.fullmatch(name):
        return name
    if HUB_ID.fullmatch(name) and ".." not in name and not Path(name).exists():
        return name
    try:
        return str(repository_inside(name, roots))
    except ServiceError as error:
        raise ServiceError(
            400,
            "unknown_base",
            f"There is no base {name[:200]!r}.",
            "name one of `ai-forge models`, OWNER/NAME of a hub, or ollama:NAME.",
            param="base_model",
        ) from error
