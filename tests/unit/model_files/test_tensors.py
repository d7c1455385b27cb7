import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ai_forge.errors import InputError
from ai_forge.model_files.tensors import (
    SafetensorsFile,
    TensorSpec,
    Weights,
    bf16_to_f32,
    f32_to_bf16,
    to_storage,
    weight_files,
    write_safetensors,
)
from tiny_models import make_tiny


def test_bfloat16_rounds_as_torch_does() -> None:
    import torch

    values = np.random.default_rng(0).normal(0, 3, 20_000).astype(np.float32)
    values[:4] = [0.0, np.inf, -np.inf, np.float32(3.3895314e38)]
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert np.array_equal(f32_to_bf16(values), expected.view(torch.uint16).numpy())
    assert np.array_equal(bf16_to_f32(f32_to_bf16(values)), expected.float().numpy())
    assert np.isnan(bf16_to_f32(f32_to_bf16(np.array([np.nan], dtype=np.float32))))[0]


def test_the_library_reads_what_is_written_and_the_other_way_round(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    spec = TensorSpec("w", "F16", (3, 4))
    write_safetensors(tmp_path / "ours.safetensors", [(spec, to_storage(values, "F16"))], [spec])
    assert np.array_equal(load_file(tmp_path / "ours.safetensors")["w"], values.astype(np.float16))
    save_file({"w": values}, tmp_path / "theirs.safetensors")
    assert np.array_equal(SafetensorsFile(tmp_path / "theirs.safetensors").load("w"), values)


def test_a_value_that_float16_cannot_hold_is_an_error() -> None:
    with pytest.raises(InputError, match="65504"):
        to_storage(np.array([70_000.0], dtype=np.float32), "F16", "w")


def test_a_writer_that_is_given_another_tensor_than_announced_stops(tmp_path: Path) -> None:
    spec = TensorSpec("w", "F32", (4,))
    with pytest.raises(ValueError, match="expected"):
        write_safetensors(tmp_path / "w.safetensors", [(spec, np.zeros(3, dtype=np.float32))], [spec])


def _header(rows: object, data: bytes = b"") -> bytes:
    text = json.dumps(rows).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"abc", "too short"),
        (struct.pack("<Q", 2**62) + b"{}", "cut off or not safetensors"),
        (struct.pack("<Q", 2) + b"[]", "broken safetensors header"),
        (_header({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}), "cut off"),
        (_header({"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}, bytes(16)), "cut off"),
        (_header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [-900, 4]}}, bytes(16)), "cut off"),
        (_header({"w": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]}}, bytes(4)), "stored as I8"),
        (_header({"w": {"dtype": "F32"}}), "broken safetensors header"),
    ],
)
def test_hostile_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        SafetensorsFile(path)


def test_a_sharded_folder_reads_as_one(tmp_path: Path) -> None:
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "x-1.safetensors")
    save_file({"b": np.zeros(2, np.float32)}, tmp_path / "x-2.safetensors")
    index = {"weight_map": {"a": "x-1.safetensors", "b": "x-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = Weights(tmp_path)
    assert sorted(weights.specs) == ["a", "b"]
    assert weights.load("a").tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["../outside.safetensors", "missing.safetensors", "/etc/passwd"])
def test_an_index_cannot_name_files_outside_or_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InputError, match="which is not in"):
        weight_files(tmp_path)


def test_pickle_weights_are_refused_by_name(tmp_path: Path) -> None:
    make_tiny(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"only pickle weights \(pytorch_model.bin\)"):
        weight_files(tmp_path)
