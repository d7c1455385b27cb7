"""Checkpoints that survive a kill at any moment: written aside, hashed, renamed; the newest whole one is resumed.

    step-000050/adapter_model.safetensors, optimizer.safetensors, trainer_state.json, manifest.json (SHA-256 of each)

A torn or altered checkpoint is seen by its hashes and the one before is used. The data cursor is the step number
(`packing.step_order`), and nothing else is random, so a resumed run repeats the uninterrupted one bit by bit.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_forge.training.backends.base import Trainee
from ai_forge.workspace import MANIFEST, atomic_folder, atomic_write, file_sha256, remove_debris


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: `step` optimizer steps are done, `history` holds the events so far."""

    step: int
    folder: Path
    history: list[dict[str, Any]]


def checkpoint_folder(root: Path, step: int) -> Path:
    """Where the state after `step` optimizer steps lies or will lie."""
    return root / f"step-{step:06d}"


def save_checkpoint(root: Path, step: int, trainee: Trainee, history: list[dict[str, Any]]) -> Path:
    """Write the state after `step` optimizer steps under `root`; return its folder."""
    target = checkpoint_folder(root, step)
    with atomic_folder(target) as folder:
        trainee.save_state(folder)
        atomic_write(folder / "trainer_state.json", json.dumps({"step": step, "history": history}))
        hashes = {f.name: file_sha256(f) for f in sorted(folder.iterdir())}
        atomic_write(folder / MANIFEST, json.dumps(hashes, indent=1))
    return target


def is_whole(folder: Path) -> bool:
    """Whether every file is there and unaltered."""
    try:
        hashes: dict[str, str] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return bool(hashes) and all(file_sha256(folder / name) == digest for name, digest in hashes.items())
    except (OSError, json.JSONDecodeError, AttributeError):
        return False


def newest_checkpoint(root: Path, on_damaged: Callable[[Path], None] = lambda _: None) -> Checkpoint | None:
    """The newest checkpoint under `root` that a training can continue from: whole, and so is that of its best step.

    Damaged ones met on the way are handed to `on_damaged`; they and what cannot be used without them are removed, for
    the training will write those steps again. So is what a killed process left half-written.
    """
    remove_debris(root)
    for folder in sorted(root.glob("step-*"), reverse=True):
        if is_whole(folder):
            state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
            best = checkpoint_folder(root, best_step(state["history"], default=state["step"]))
            if best == folder or is_whole(best):
                return Checkpoint(state["step"], folder, state["history"])
        else:
            on_damaged(folder)
        shutil.rmtree(folder)
    return None


def best_step(history: list[dict[str, Any]], default: int) -> int:
    """The step of the lowest held-out loss in a history, the first of equals."""
    losses = [(r["loss"], r["step"]) for r in history if r["event"] == "EvalFinished" and math.isfinite(r["loss"])]
    return int(min(losses)[1]) if losses else default


def prune_checkpoints(root: Path, keep: int, also: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and that of step `also`."""
    for folder in sorted(root.glob("step-*"))[:-keep]:
        if also is None or folder != checkpoint_folder(root, also):
            shutil.rmtree(folder)
