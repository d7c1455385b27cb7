"""The second phase: from a trained adapter, through preference pairs, to an adapter that prefers the chosen answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from ai_forge.data_pipeline.datasets.storage import write_jsonl
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage, PairOrigin, PreferencePair
from ai_forge.errors import InputError
from ai_forge.events import Event, Notice, StepLogged
from ai_forge.model_files.base import Base
from ai_forge.model_files.merge import merge_adapters_to_base
from ai_forge.training import dpo as prefer
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.distributed.launcher import run_trainer
from ai_forge.training.dpo import PreferenceTrainer, split_pairs
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import NAMES, raft_examples, tiny_config

CONFIG = tiny_config(dpo_learning_rate=3e-3, dpo_epochs=4, max_steps=None, quantization="none")


def pairs(n: int) -> list[PreferencePair]:
    """The right function over the one next to it."""
    made = []
    for i in range(n):
        name, other = NAMES[i % len(NAMES)], NAMES[(i + 1) % len(NAMES)]
        prompt = (ChatMessage(role="user", content=f"Which function does {name} call ({i})?"),)
        made.append(
            PreferencePair(
                prompt=prompt,
                chosen=f"It calls `{name}_all`.",
                rejected=f"It surely calls `{other}_all`, I think.",
                kind=KIND,
                origin=ORIGIN,
            )
        )
    return made


KIND: Any = "fix"
ORIGIN = PairOrigin(path="src/a.py")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Base, Path]:
    """A supervised result."""
    root = tmp_path_factory.mktemp("prefer")
    workspace = Workspace.open(root / "home")
    base = resolve_base(str(make_tiny(root / "base")), cache_dir=workspace.cache_dir)
    (root / "sft").mkdir()
    config = CONFIG.model_copy(update={"max_steps": 3})
    FineTuneTrainer(config, base=base, folder=root / "sft", workspace=workspace).train(
        raft_examples(6), raft_examples(2)
    )
    return workspace, base, root / "sft"


def trainer(trained: tuple[Workspace, Base, Path], folder: Path, emit: Any = lambda _: None) -> PreferenceTrainer:
    workspace, base, adapter = trained
    folder.mkdir(exist_ok=True)
    return PreferenceTrainer(CONFIG, base=base, folder=folder, workspace=workspace, adapter=adapter, emit=emit)


def test_the_chosen_answers_gain_and_the_result_is_an_adapter(
    trained: tuple[Workspace, Base, Path], tmp_path: Path
) -> None:
    heard: list[Event] = []
    result = trainer(trained, tmp_path / "dpo", heard.append).train_preferences(pairs(8), pairs(10)[8:])
    assert result.n_steps == 4 * 8 // 2
    assert result.last_loss < result.first_loss
    assert result.first_loss == pytest.approx(0.693, abs=0.02)  # bf16 or float32: the reference is the start
    steps = [event for event in heard if isinstance(event, StepLogged)]
    assert steps[-1].loss < 0.5 < steps[0].loss
    assert {p.name for p in result.folder.iterdir()} >= {"adapter_model.safetensors", "residual.safetensors"}
    assert not list(result.folder.glob("reference-*"))
    record = json.loads((result.folder / "training.json").read_text())
    assert record["preferences"] == {"pairs": 8, "loss": "sigmoid"}
    assert (merge_adapters_to_base(trained[1], result.folder, tmp_path / "merged") / "model.safetensors").is_file()


def test_a_cut_off_run_ends_with_the_same_bytes(trained: tuple[Workspace, Base, Path], tmp_path: Path) -> None:
    class EndedError(Exception):
        pass

    def end(event: Event) -> None:
        if isinstance(event, StepLogged) and event.step == 6:
            raise EndedError

    with pytest.raises(EndedError):
        trainer(trained, tmp_path / "cut", end).train_preferences(pairs(8), pairs(10)[8:])
    kept = {path.name: path.read_bytes() for path in (tmp_path / "cut").glob("reference-*.json")}
    assert len(kept) == 2
    heard: list[Event] = []
    trainer(trained, tmp_path / "cut", heard.append).train_preferences(pairs(8), pairs(10)[8:])
    assert any(isinstance(e, Notice) and e.message.startswith("continuing after step") for e in heard)
    trainer(trained, tmp_path / "straight").train_preferences(pairs(8), pairs(10)[8:])
    cut, straight = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in ("cut", "straight"))
    assert cut == straight


def test_two_processes_prefer_as_one_does(trained: tuple[Workspace, Base, Path], tmp_path: Path) -> None:
    workspace, base, adapter = trained
    steps: dict[int, list[float]] = {1: [], 2: []}
    for n, losses in steps.items():
        (folder := tmp_path / str(n)).mkdir()
        config = CONFIG.model_copy(update={"nproc": n, "micro_batch_size": 1, "grad_accum_steps": 4, "max_steps": 4})
        parts: dict[str, Any] = {"base": base, "folder": folder, "workspace": workspace, "adapter": adapter}
        heard = lambda event, losses=losses: losses.append(event.loss) if isinstance(event, StepLogged) else None  # noqa: E731
        run_trainer(PreferenceTrainer, config, "train_preferences", pairs(8), pairs(10)[8:], emit=heard, **parts)
        assert json.loads((folder / "training.json").read_text())["preferences"]["pairs"] == 8
    assert len(steps[1]) == 4
    assert steps[2] == pytest.approx(steps[1], rel=5e-3)


def test_what_cannot_be_trained_on_is_told(trained: tuple[Workspace, Base, Path], tmp_path: Path) -> None:
    workspace, base, _ = trained
    without = PreferenceTrainer(CONFIG, base=base, folder=tmp_path, workspace=workspace)
    with pytest.raises(InputError, match="needs a trained adapter to start from"):
        without.train_preferences(pairs(2), pairs(2))
    with pytest.raises(InputError, match="8 training and 0 held-out pairs fit into 512 tokens"):
        trainer(trained, tmp_path).train_preferences(pairs(8), [])
    with pytest.raises(InputError, match="1 preference pairs are too few"):
        split_pairs(pairs(1))


def test_a_pair_stays_on_its_side_when_pairs_are_added() -> None:
    few, many = split_pairs(pairs(60)), split_pairs(pairs(200))
    assert {p.id for p in few[1]} <= {p.id for p in many[1]}
    assert {p.id for p in few[0]}.isdisjoint(p.id for p in many[1])
    assert 5 <= len(many[1]) <= 40
    train, held_out = split_pairs(pairs(2))
    assert len(train) == len(held_out) == 1


def test_the_command_trains_and_tells(
    trained: tuple[Workspace, Base, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, base, adapter = trained
    write_jsonl(tmp_path / "pairs.jsonl", pairs(8))
    words = [str(adapter), str(tmp_path / "pairs.jsonl"), str(tmp_path / "out"), "--base", str(base.folder)]
    settings = ["--set", "training.dpo_loss=ipo", "--set", "training.max_steps=2", "--home", str(workspace.root)]
    assert prefer.main([*words, *settings]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["n_steps"] == 1  # eight examples a step by default
    assert '"StepLogged"' in told.err
    assert prefer.main([str(tmp_path), *words[1:], *settings]) == 2
    assert "holds no adapter" in capsys.readouterr().err
