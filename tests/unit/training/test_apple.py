"""The settings for Macs fit them, by the formula whose activations are compared with MLX's counter in `test_mlx_backend`."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ai_forge.config import FineTuneConfig, load_settings
from ai_forge.config.models import load_models
from ai_forge.errors import InputError
from ai_forge.training.apple import (
    GPU_SHARE,
    AppleDefault,
    apple_default_for,
    apple_defaults,
)
from ai_forge.training.memory import mlx_memory_of, shape_in
from tiny_models import make_tiny

TINY = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    path = Path(__file__).resolve().parents[3] / "docs" / "generate.py"
    spec = importlib.util.spec_from_file_location("docs_generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("row", apple_defaults(), ids=lambda row: f"{row.memory_gb} GB")
def test_training_and_judging_fit_into_the_share_of_memory(row: AppleDefault, generate: ModuleType) -> None:
    available = GPU_SHARE * row.memory_gb * 2**30
    needed = mlx_memory_of(generate.shape_of(row.config.base_model), row.config)
    assert sum(needed.values()) < available, needed
    entry = load_models().find(row.config.base_model)
    assert entry is not None
    assert 2 * entry[1].parameters < available  # the judge reads the merged model in 16 bits


def test_a_row_s_flags_are_settings() -> None:
    for row in apple_defaults():
        words = row.flags.split(" --set training.")
        values: dict[str, Any] = {"training.base_model": words[0].removeprefix("--base ")}
        for word in words[1:]:
            key, _, text = word.partition("=")
            values[f"training.{key}"] = json.loads(text) if text[0] != "[" else text[1:-1].split(",")
        assert load_settings(("flag", values)).settings.training.rank == row.config.rank


@pytest.mark.parametrize(("gib", "row"), [(4, None), (8, 8), (16, 16), (18, 16), (24, 16), (36, 32), (128, 64)])
def test_a_mac_gets_the_largest_row_that_it_holds(gib: int, row: int | None) -> None:
    found = apple_default_for(gib * 2**30)
    assert (found and found.memory_gb) == row


def test_the_weights_are_counted_one_by_one() -> None:
    """Two blocks: q 64×64, k and v 64×32, o 64×64, three of 64×128; a tied vocabulary of 512."""
    blocks = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 128 * 3)
    packed = mlx_memory_of(TINY, FineTuneConfig(target_modules=("all-linear",), rank=4))
    assert packed["frozen weights"] == blocks * 4.5 / 8 + 512 * 64 * 2
    named = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert mlx_memory_of(TINY, FineTuneConfig(target_modules=named, rank=4)) == packed
    plain = mlx_memory_of(TINY, FineTuneConfig(target_modules=("q_proj",), rank=4, quantization="none"))
    assert plain["frozen weights"] == (blocks + 512 * 64) * 2
    assert plain["optimizer (float32)"] == 2 * 4 * (64 + 64) * 8
    q_only = FineTuneConfig(target_modules=("q_proj",))
    tied, untied = (mlx_memory_of(TINY | {"tie_word_embeddings": tied}, q_only) for tied in (True, False))
    assert untied["frozen weights"] - tied["frozen weights"] == 512 * 64 * 2


def test_a_folder_s_configuration_is_read(tmp_path: Path) -> None:
    config = FineTuneConfig(rank=8)
    assert mlx_memory_of(shape_in(make_tiny(tmp_path)), config) == mlx_memory_of(TINY, config)


@pytest.mark.parametrize("modules", [("qkv_proj", "o_proj", "gate_up_proj", "down_proj"), ("all-linear",)])
def test_fused_layers_are_counted(tmp_path: Path, modules: tuple[str, ...]) -> None:
    """Phi-3 has q, k and v in one matrix, gate and up in another."""
    shape = shape_in(make_tiny(tmp_path, "phi3"))
    needed = mlx_memory_of(shape, FineTuneConfig(target_modules=modules, rank=4, quantization="nf4"))
    sides = [(64 + 2 * 32, 64), (64, 64), (2 * 128, 64), (64, 128)]
    assert needed["optimizer (float32)"] == 2 * 4 * sum(a + b for a, b in sides) * 8
    vocabularies = 512 * 64 * (1 if shape.get("tie_word_embeddings") else 2)
    assert needed["frozen weights"] == int(2 * sum(a * b for a, b in sides) * 4.5 / 8) + vocabularies * 2


@pytest.mark.parametrize("name", ["q_proj", "gate_proj", "w1"])
def test_a_layer_that_the_base_does_not_have_is_named(tmp_path: Path, name: str) -> None:
    config = FineTuneConfig(target_modules=("o_proj", name))
    with pytest.raises(InputError, match=f"target_modules names {name}, which this base does not have"):
        mlx_memory_of(shape_in(make_tiny(tmp_path, "phi3")), config)
