import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

from ai_forge.errors import InputError
from ai_forge.model_files.base import Base
from ai_forge.model_files.gguf.kquants import MIXES, choose_types, quantize
from ai_forge.model_files.gguf.reader import gguf_tensor_types
from ai_forge.model_files.gguf.writer import write_gguf
from tiny_models import make_tiny

MODELS: dict[str, dict[str, Any]] = {
    "llama-tied": {"hidden": 256, "heads": 4, "kv_heads": 2, "inner": 512, "layers": 8},
    "llama-untied-mha": {"hidden": 256, "heads": 8, "kv_heads": 8, "inner": 768, "layers": 3, "tied": False},
    "llama-odd-rows": {"hidden": 192, "heads": 6, "kv_heads": 1, "inner": 320, "layers": 9},
    "llama-odd-untied": {"hidden": 96, "heads": 3, "kv_heads": 1, "inner": 256, "layers": 2, "tied": False},
    "qwen2-tied": {"architecture": "qwen2", "hidden": 256, "heads": 4, "kv_heads": 1, "inner": 512, "layers": 5},
    "qwen2-untied": {
        "architecture": "qwen2",
        "hidden": 512,
        "heads": 8,
        "kv_heads": 2,
        "inner": 800,
        "layers": 2,
        "tied": False,
    },
    "phi3": {
        "architecture": "phi3",
        "hidden": 256,
        "heads": 4,
        "kv_heads": 4,
        "inner": 512,
        "layers": 6,
        "tied": False,
    },
    "gemma2": {"architecture": "gemma2", "hidden": 256, "heads": 4, "kv_heads": 2, "inner": 768, "layers": 4},
    "gemma3": {"architecture": "gemma3_text", "hidden": 192, "heads": 3, "kv_heads": 1, "inner": 512, "layers": 7},
    "llama-80-layers": {"hidden": 32, "heads": 2, "kv_heads": 1, "inner": 256, "layers": 80},
}


def llama_quantize(source: Path, target: Path, mix: str) -> None:
    """What llama.cpp's own tool makes of a file."""
    tool = shutil.which("llama-quantize")
    if tool is None:
        pytest.skip("llama-quantize is not on PATH: the tensor types and bytes of K-quants were NOT compared")
    subprocess.run([tool, str(source), str(target), mix], check=True, capture_output=True, timeout=300)


@pytest.mark.ollama
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("model", MODELS)
def test_the_whole_file_is_llama_quantizes(model: str, mix: str, tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m", **MODELS[model])
    write_gguf(folder, tmp_path / "f16.gguf", "f16")
    ours = write_gguf(folder, tmp_path / "ours.gguf", mix)
    llama_quantize(tmp_path / "f16.gguf", tmp_path / "theirs.gguf", mix)
    assert gguf_tensor_types(ours) == gguf_tensor_types(tmp_path / "theirs.gguf")
    assert ours.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


@pytest.mark.ollama
@pytest.mark.slow
@pytest.mark.parametrize("mix", MIXES)
def test_smollm2_is_llama_quantizes_byte_for_byte(smollm2: Base, mix: str, tmp_path: Path) -> None:
    write_gguf(smollm2.folder, tmp_path / "f16.gguf", "f16")
    ours = write_gguf(smollm2.folder, tmp_path / "ours.gguf", mix)
    llama_quantize(tmp_path / "f16.gguf", tmp_path / "theirs.gguf", mix)
    assert gguf_tensor_types(ours) == gguf_tensor_types(tmp_path / "theirs.gguf")
    assert ours.read_bytes() == (tmp_path / "theirs.gguf").read_bytes()


def test_smollm2s_fallbacks_are_those_measured(smollm2: Base, tmp_path: Path) -> None:
    types = list(gguf_tensor_types(write_gguf(smollm2.folder, tmp_path / "q.gguf", "q4_k_m")).values())
    counts = {kind: types.count(kind) for kind in set(types)}
    assert counts == {"F32": 61, "Q5_0": 166, "Q8_0": 15, "Q4_K": 16, "Q6_K": 14}


def test_a_70b_gets_more_bits_in_its_shared_values() -> None:
    names = [("token_embd.weight", (512, 256), Type.F16), ("output.weight", (512, 256), Type.F16)]
    names += [(f"blk.{i}.attn_v.weight", (256, 256), Type.F16) for i in range(80)]
    plain = choose_types(names, MIXES["q4_k_m"], n_layers=80, is_70b=False)
    large = choose_types(names, MIXES["q4_k_m"], n_layers=80, is_70b=True)
    assert plain[:2] == large[:2] == [Type.Q4_K, Type.Q6_K]
    assert {(p, q) for p, q in zip(plain, large, strict=True)} >= {(Type.Q4_K, Type.Q5_K), (Type.Q6_K, Type.Q6_K)}


def test_rows_that_no_type_holds_are_refused() -> None:
    with pytest.raises(InputError, match=r"token_embd.weight has rows of 40; K-quants need a multiple of 32"):
        choose_types([("token_embd.weight", (512, 40), Type.F16)], MIXES["q4_k_m"], n_layers=1, is_70b=False)


def test_slices_and_threads_do_not_change_the_bytes() -> None:
    values = np.random.default_rng(0).normal(0, 1, (9000, 256)).astype(np.float32)
    whole = quantize(lambda first, last: values[first:last], (9000, 256), Type.Q4_K)
    parts = [
        quantize(lambda f, t, i=i: values[i : i + 1000][f:t], (1000, 256), Type.Q4_K) for i in range(0, 9000, 1000)
    ]
    assert whole.tobytes() == b"".join(part.tobytes() for part in parts)
    error = np.abs(dequantize(whole.reshape(9000, 144), Type.Q4_K) - values).mean()
    assert error < 0.08  # a sixteenth of the spread
    assert os.cpu_count()
