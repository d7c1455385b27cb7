"""Checkpoints that survive a kill at any moment: written aside, hashed, renamed; the newest whole one is resumed.

    step-000050/adapter_model.safetensors, optimizer.safetensors, trainer_state.json, manifest.json (SHA-256 of each)

A torn or altered checkpoint is seen by its hashes and the one before is used. The data cursor is the step number
(`packing.step_order`), and nothing else is random, so a resumed run repeats the uninterrupted one bit by bit.
"""

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from ai_forge.errors import PrerequisiteError
from ai_forge.events import EvalFinished, StepLogged
from ai_forge.training.backends.base import Trainee
from ai_forge.training.history import as_row, best_step, from_row
from ai_forge.workspace import MANIFEST, atomic_folder, atomic_write, file_sha256, read_json, remove_debris

STATE = "trainer_state.json"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: `step` optimizer steps are done, `history` holds the events so far.

    `micro_batch_size` is how many examples went through the model at a time, None where that was not kept.
    """

    step: int
    folder: Path
    history: list[StepLogged | EvalFinished]
    micro_batch_size: int | None = None


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the state after `step` optimizer steps lies or will lie."""
    return root / f"step-{step:06d}"


def save_checkpoint(
    root: Path,
    step: int,
    trainee: Trainee,
    history: Sequence[StepLogged | EvalFinished],
    micro_batch_size: int | None = None,
) -> Path:
    """Write the state after `step` optimizer steps under `root`; return its folder.

    Raises:
        PrerequisiteError: it cannot be written (the disk is full, most of the time); those before are as they were.
    """
    target = checkpoint_folder(root, step)
    state = {"step": step, "history": [as_row(event) for event in history], "micro_batch_size": micro_batch_size}
    try:
        with atomic_folder(target) as folder:
            trainee.save_state(folder)
            atomic_write(folder / STATE, json.dumps(state))
            # last: a folder without it, or with other files than it names, was torn by a crash and is not continued
            hashes = {f.name: file_sha256(f) for f in sorted(folder.iterdir())}
            atomic_write(folder / MANIFEST, json.dumps(hashes, indent=1))
    except (OSError, SafetensorError) as error:
        raise _not_written(f"The checkpoint of step {step}", root, error) from error
    return target


def is_whole(folder: Path) -> bool:
    """Whether every file is there and unaltered."""
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(hashes) and all(file_sha256(folder / name) == digest for name, digest in hashes.items())
    except (OSError, ValueError, AttributeError):  # no JSON, no UTF-8, no name that a file can have
        return False


def newest_checkpoint(root: Path, on_damaged: Callable[[Path], None] = lambda _: None) -> Checkpoint | None:
    """The newest checkpoint under `root` that a training can continue from: whole, and so is that of its best step.

    Damaged ones met on the way are handed to `on_damaged`; they and what cannot be used without them are removed, for
    the training will write those steps again. So is what a killed process left half-written.
    """
    remove_debris(root)
    for folder in sorted(root.glob("step-*"), reverse=True):
        if is_whole(folder):
            checkpoint = _read(folder)
            best = checkpoint_folder(root, best_step(checkpoint.history, default=checkpoint.step))
            if best == folder or is_whole(best):
                return checkpoint
        else:
            on_damaged(folder)
        shutil.rmtree(folder)
    return None


def _read(folder: Path) -> Checkpoint:
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    history = [from_row(row) for row in state["history"]]
    return Checkpoint(state["step"], folder, history, state.get("micro_batch_size"))


def prune_checkpoints(root: Path, keep: int, also: int | None) -> None:
    """Remove all but the newest `keep` checkpoints, that of step `also`, and the best one that each of the kept names.

    Without the last, a damaged newest checkpoint would take with it the one before: what that calls its best would be gone.
    """
    folders = sorted(root.glob("step-*"))
    wanted = set(folders[-keep:])
    if also is not None:
        wanted.add(checkpoint_folder(root, also))
    for folder in folders[-keep:]:
        if read_json(folder / STATE) is not None:  # else it is damaged, and names nothing
            kept = _read(folder)
            wanted.add(checkpoint_folder(root, best_step(kept.history, default=kept.step)))
    for folder in folders:
        if folder not in wanted:
            shutil.rmtree(folder)


@contextlib.contextmanager
def full_disk_told(root: Path) -> Iterator[None]:
    """Turn the errors of a disk that is full into one that says so and names the checkpoint that is continued.

    Raises:
        PrerequisiteError: a file could not be written for lack of room.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise _not_written("A file of the training", root, error) from error


def _not_written(what: str, root: Path, error: Exception) -> PrerequisiteError:
    whole = [folder.name for folder in sorted(root.glob("step-*")) if is_whole(folder)]
    return PrerequisiteError(
        f"{what} could not be written to {root} ({shutil.disk_usage(root).free / 1e9:.1f} GB are free): {error}. "
        f"The last good checkpoint is {whole[-1] if whole else 'none'}.",
        "free some disk and run the same command again: it continues from there.",
    )
