"""A base in pieces: the losses of one process, about half of its bytes in each of two, and refused where it cannot be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from torch.distributed.tensor import DTensor

from ai_forge.config import FineTuneConfig
from ai_forge.errors import InputError
from ai_forge.events import EvalFinished, Event, Notice, StepLogged
from ai_forge.model_files.base import Base
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.distributed.launcher import run_trainer
from ai_forge.training.dpo import PreferenceTrainer
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.group import Alone
from ai_forge.training.memory import memory_of
from ai_forge.training.record import TrainingResult
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import raft_examples, tiny_config

CONFIG = tiny_config(learning_rate=1e-3, grad_accum_steps=3, micro_batch_size=1, eval_steps=3, sample_every=3)
"""Three examples a step: one process passes once and repeats it, while the other passes twice."""


class Weighing(FineTuneTrainer):
    """Tells how many bytes of the model lie in each process."""

    def load_trainee(self, start: Path, config: FineTuneConfig) -> Any:
        trainee = super().load_trainee(start, config)
        pieces = [p.to_local() if isinstance(p, DTensor) else p for p in trainee.model.parameters()]
        n_bytes = sum(piece.numel() * piece.element_size() for piece in pieces)
        sizes = self.group.gather(n_bytes - 4 * trainee.n_trainable)
        self._emit(Notice("info", f"held {sizes}"))
        return trainee


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp("base")
    return resolve_base(str(make_tiny(root / "base", hidden=128, inner=512, layers=6)), cache_dir=root / "cache")


def train(base: Base, root: Path, config: FineTuneConfig) -> tuple[TrainingResult, list[Event]]:
    (root / "work").mkdir(parents=True)
    heard: list[Event] = []
    parts: dict[str, Any] = {"base": base, "folder": root / "work", "workspace": Workspace.open(root / "home")}
    data = raft_examples(8), raft_examples(3)
    return run_trainer(Weighing, config, "train", *data, emit=heard.append, **parts), heard


def figures(heard: list[Event]) -> list[float]:
    return [e.loss for e in heard if isinstance(e, StepLogged | EvalFinished)]


def held(heard: list[Event]) -> list[int]:
    (text,) = [e.message for e in heard if isinstance(e, Notice) and e.message.startswith("held ")]
    return [int(number) for number in text.removeprefix("held [").rstrip("]").split(", ")]


@pytest.fixture(scope="module")
def alone(base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingResult, list[Event]]:
    return train(base, tmp_path_factory.mktemp("alone"), CONFIG)


@pytest.mark.parametrize("setting", ["off", "on"])
def test_two_halves_of_a_base_have_the_losses_of_one(
    base: Base, alone: tuple[TrainingResult, list[Event]], tmp_path: Path, setting: str
) -> None:
    changes = {"nproc": 2, "sharded": True, "gradient_checkpointing": setting}
    result, heard = train(base, tmp_path, CONFIG.model_copy(update=changes))
    expected, expected_events = alone
    assert len(figures(heard)) == 10
    np.testing.assert_allclose(figures(heard), figures(expected_events), rtol=2e-3)
    ours, theirs = (load_file(r.folder / "adapter_model.safetensors") for r in (result, expected))
    before = load_file(expected.folder / "initial_adapter.safetensors")
    for name, values in theirs.items():
        assert np.abs(ours[name] - values).mean() < 0.05 * np.abs(values - before[name]).mean(), name
    (whole,) = held(expected_events)
    assert len(held(heard)) == 2
    assert all(0.5 < piece / whole < 0.6 for piece in held(heard)), (whole, held(heard))


def test_the_estimate_counts_the_piece_of_a_process(base: Base) -> None:
    one, two, four = (
        memory_of(base.folder, CONFIG.model_copy(update={"nproc": n, "sharded": n > 1}), dtype_bytes=4)
        for n in (1, 2, 4)
    )
    in_layers = one["frozen weights"] - 4 * 512 * 128
    assert two["frozen weights"] == 4 * 512 * 128 + in_layers // 2 + 2 * in_layers // 6
    assert two["frozen weights"] - four["frozen weights"] == in_layers // 4
    assert {k: v for k, v in one.items() if k != "frozen weights"} == {
        k: v for k, v in two.items() if k != "frozen weights"
    }


@pytest.mark.parametrize("changes", [{"sharded": True}, {"sharded": True, "nproc": 2, "backend": "mlx"}])
def test_one_process_or_another_backend_cannot_shard(base: Base, tmp_path: Path, changes: dict[str, Any]) -> None:
    group = Alone()
    group.size = changes.get("nproc", 1)
    config = CONFIG.model_copy(update=changes)
    with pytest.raises(InputError, match=r"training\.sharded cuts the base into pieces for several processes on torch"):
        FineTuneTrainer(config, base=base, folder=tmp_path, workspace=Workspace.open(tmp_path / "home"), group=group)


def test_preferences_cannot_be_trained_on_pieces(base: Base, tmp_path: Path) -> None:
    group = Alone()
    group.size = 2
    config, home = CONFIG.model_copy(update={"sharded": True, "nproc": 2}), Workspace.open(tmp_path)
    trainer = PreferenceTrainer(config, base=base, folder=tmp_path, workspace=home, group=group)
    with pytest.raises(InputError, match="Preference training cannot shard the base"):
        trainer.train_preferences([], [])
