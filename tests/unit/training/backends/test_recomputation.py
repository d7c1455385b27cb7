"""Gradient checkpointing: the same gradients bit by bit, much less kept, and only where it is asked for or needed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ai_forge.config import FineTuneConfig, load_settings
from ai_forge.training.backends.torch_backend import TorchTrainee
from ai_forge.training.backends.torch_init import initialise
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.fit import with_checkpointing_settled
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.losses import sft_loss
from ai_forge.training.memory import memory_of
from ai_forge.training.tokens.packing import TokenizedExample, collate
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import check_batch, random_examples, tiny_config

SHARED = [TokenizedExample((*range(3, 90), 100 + n, 7, 8, 9), 88) for n in range(3)]
BATCH = collate([*random_examples(3), *SHARED])
"""Documents of their own and some that share a prompt."""


def trainee(folder: Path, setting: str, *, exact: bool = False) -> TorchTrainee:
    config = tiny_config(gradient_checkpointing=setting)
    return initialise(folder, config, check_batch(), exact=exact)[0]


def gradients(made: TorchTrainee, batch: Any = BATCH) -> dict[str, Tensor]:
    made.forward_backward(batch, sft_loss, batch.n_supervised)
    return {name: p.grad for name, p in made.named_parameters() if p.grad is not None}


@contextmanager
def kept_for_backward() -> Iterator[dict[int, int]]:
    """Bytes by storage of what the forward pass keeps outside of the layers that are computed again."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


@pytest.mark.parametrize("exact", [True, False], ids=["float32", "as computed here"])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_gradients_are_equal_bit_by_bit(tmp_path: Path, architecture: str, exact: bool) -> None:
    folder = make_tiny(tmp_path, architecture, hidden=128, inner=256)
    kept, again = (gradients(trainee(folder, setting, exact=exact)) for setting in ("off", "on"))
    assert len(again) == len(kept) == 28
    for name, gradient in kept.items():
        assert torch.equal(again[name], gradient), name


def test_only_the_layers_inputs_are_kept(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, hidden=128, inner=256, layers=6)
    sizes = {}
    for setting in ("off", "on"):
        made, batch = trainee(folder, setting, exact=True), check_batch()
        frozen = {p.untyped_storage().data_ptr() for p in (*made.model.parameters(), *made.model.buffers())}
        with kept_for_backward() as kept:
            gradients(made, batch)
        sizes[setting] = sum(size for place, size in kept.items() if place not in frozen)
    n_layers, row = 6, 200 * 128 * 4
    assert sizes["on"] < (n_layers + 4) * row  # the inputs, and what the last norm and the head keep
    assert sizes["off"] > n_layers * 10 * row


def test_answers_and_evaluations_are_what_they_were(tmp_path: Path) -> None:
    from ai_forge.training.backends.torch_model import TorchGenerator

    folder = make_tiny(tmp_path)
    prompts = [list(example.ids[:6]) for example in random_examples(3)]
    said = []
    for setting in ("off", "on"):
        made = trainee(folder, setting)
        said.append((made.evaluate(BATCH), TorchGenerator(made.model, 2).generate(prompts, 5)))
    assert said[0] == said[1]


def test_a_whole_training_ends_with_the_same_bytes(tmp_path: Path) -> None:
    from tiny_training import raft_examples

    workspace = Workspace.open(tmp_path / "home")
    base = resolve_base(str(make_tiny(tmp_path / "base")), cache_dir=workspace.cache_dir)
    ended = []
    for setting in ("off", "on"):
        (work := tmp_path / setting).mkdir()
        config = tiny_config(gradient_checkpointing=setting, max_steps=3)
        FineTuneTrainer(config, base=base, folder=work, workspace=workspace).train(raft_examples(6), raft_examples(2))
        assert json.loads((work / "training.json").read_text())["config"]["gradient_checkpointing"] == setting
        ended.append((work / "adapter_model.safetensors").read_bytes())
    assert ended[0] == ended[1]


@pytest.mark.parametrize(("free_gb", "expected"), [(16, "off"), (2.2, "on")])
def test_auto_is_settled_by_the_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_gb: float, expected: str
) -> None:
    import dataclasses

    from ai_forge.training import forge

    backend = forge.load_backend("torch")
    small = dataclasses.replace(backend, free_bytes=lambda n_processes: int(free_gb * 1e9))
    monkeypatch.setattr(forge, "load_backend", lambda _: small)
    workspace = Workspace.open(tmp_path / "home")
    base = resolve_base(str(make_tiny(tmp_path / "base", layers=24)), cache_dir=workspace.cache_dir)
    config = tiny_config(micro_batch_size=64, max_seq_len=512)
    assert FineTuneTrainer(config, base=base, folder=tmp_path, workspace=workspace).config.gradient_checkpointing == (
        expected
    )


def test_the_estimate_of_auto_is_that_of_on_until_it_is_settled(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path, layers=8)

    def estimate(config: FineTuneConfig) -> dict[str, int]:
        return memory_of(folder, config)

    auto, on, off = (tiny_config(gradient_checkpointing=setting) for setting in ("auto", "on", "off"))
    assert estimate(auto) == estimate(on)
    assert estimate(on)["activations"] < estimate(off)["activations"]
    assert {k: v for k, v in estimate(on).items() if k != "activations"} == {
        k: v for k, v in estimate(off).items() if k != "activations"
    }
    assert with_checkpointing_settled(auto, 10**12, estimate) == off
    assert with_checkpointing_settled(auto, 0, estimate) == on
    assert with_checkpointing_settled(off, 0, estimate) == off
    assert with_checkpointing_settled(on, 10**12, estimate) == on


def test_yaml_reads_on_and_off_as_truth_values() -> None:
    for value, expected in ((True, "on"), (False, "off"), ("on", "on"), ("auto", "auto")):
        loaded = load_settings(("flag", {"training.gradient_checkpointing": value}))
        assert loaded.settings.training.gradient_checkpointing == expected
