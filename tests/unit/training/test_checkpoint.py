"""Checkpoints: damage is seen, the newest that a training can continue from is found."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ai_forge.events import EvalFinished
from ai_forge.training.checkpoint import is_whole, newest_checkpoint, prune_checkpoints, save_checkpoint


class Numbers:
    """The part of a trainee that checkpoints use."""

    def save_state(self, folder: Path) -> None:
        (folder / "adapter_model.safetensors").write_bytes(bytes(range(200)))
        (folder / "optimizer.safetensors").write_bytes(bytes(range(100)))


def evaluated(step: int, loss: float) -> EvalFinished:
    return EvalFinished(step, loss, 0.5, 3)


def saved(root: Path, *losses: float) -> list[Path]:
    """A checkpoint at steps 0, 10, 20 …, each with the history up to it."""
    history = [evaluated(10 * i, loss) for i, loss in enumerate(losses)]
    return [
        save_checkpoint(root, 10 * i, Numbers(), history[: i + 1])  # type: ignore[arg-type]
        for i in range(len(losses))
    ]


def flip_a_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_the_newest_is_found_with_its_history(tmp_path: Path) -> None:
    saved(tmp_path, 3.0, 2.0, 1.0)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 20
    assert found.folder == tmp_path / "step-000020"
    assert [event.loss for event in found.history] == [3.0, 2.0, 1.0]
    assert newest_checkpoint(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.safetensors", "trainer_state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_damaged_checkpoint_is_seen_and_the_one_before_is_used(tmp_path: Path, name: str, damage: str) -> None:
    *_, before, newest = saved(tmp_path, 3.0, 2.0, 1.0)
    file = newest / name
    match damage:
        case "cut":
            os.truncate(file, file.stat().st_size - 1)
        case "flipped":
            flip_a_bit(file)
        case "gone":
            file.unlink()
        case "empty":
            os.truncate(file, 0)
    assert not is_whole(newest)
    told: list[Path] = []
    found = newest_checkpoint(tmp_path, told.append)
    assert told == [newest]
    assert found is not None
    assert found.folder == before


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", "null", '"x"', '{"adapter_model.safetensors": 3}'])
def test_a_checkpoint_without_its_manifest_is_not_whole(tmp_path: Path, content: str | None) -> None:
    (folder,) = saved(tmp_path, 1.0)
    (folder / "manifest.json").unlink() if content is None else (folder / "manifest.json").write_text(content)
    assert not is_whole(folder)
    assert newest_checkpoint(tmp_path) is None


def test_a_checkpoint_whose_best_step_is_damaged_is_not_continued(tmp_path: Path) -> None:
    first, best, _ = saved(tmp_path, 3.0, 1.0, 2.0)
    flip_a_bit(best / "adapter_model.safetensors")
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found.folder == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000"]


@pytest.mark.parametrize(
    ("keep", "also", "left"),
    [(1, None, [40]), (2, None, [30, 40]), (2, 10, [10, 30, 40]), (1, 0, [0, 40]), (9, 0, [0, 10, 20, 30, 40])],
)
def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path, keep: int, also: int | None, left: list[int]) -> None:
    saved(tmp_path, 5.0, 4.0, 3.0, 2.0, 1.0)
    prune_checkpoints(tmp_path, keep, also)
    assert sorted(int(path.name.removeprefix("step-")) for path in tmp_path.iterdir()) == left


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    debris = tmp_path / f".step-000010.tmp-{int(gone.stdout)}"
    debris.mkdir()
    (debris / "adapter_model.safetensors").write_bytes(b"half")
    saved(tmp_path, 1.0)
    assert newest_checkpoint(tmp_path) is not None
    assert not debris.exists()


def test_the_manifest_hashes_every_file(tmp_path: Path) -> None:
    (folder,) = saved(tmp_path, 1.0)
    hashes = json.loads((folder / "manifest.json").read_text())
    assert set(hashes) == {p.name for p in folder.iterdir()} - {"manifest.json"}
