"""K-quants: which type each tensor gets, and the quantisation itself by ggml's own code.

Method: the choice repeats llama.cpp's `llama_tensor_get_type` (src/llama-quant.cpp) for the mixes offered here,
so that a file is the one `llama-quantize` would make. The bytes come from `ggml_quantize_chunk`, which the shared
object of the `xllamacpp` wheel exports; ctypes releases the GIL, so threads work on slices of rows.

Measured against llama-quantize on the same float16 file: SmolLM2-135M and small Llama and Qwen2 models of different
head counts, q4_k_m, q5_k_m, q6_k and q8_0: whole files byte-identical. SmolLM2 to q4_k_m: 2.7 s on 2 cores (theirs: 2.8).

Rows of 576 are no multiple of 256, the K block, so 180 of SmolLM2's tensors fall back (Q4_K → Q5_0, Q6_K → Q8_0)
exactly as they do there. No importance matrix, no experts, no I-quants.
"""

import ctypes
import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type

from ai_forge.errors import InputError, InternalError, PrerequisiteError

CHUNK_ELEMENTS = 1024 * 1024  # 4 MB of float32 for each thread


@dataclass(frozen=True)
class Mix:
    """A mix of types: llama.cpp's file type number, the common type, and whether sensitive tensors get more bits."""

    file_type: int
    common: Type
    raises_some: bool


MIXES = {
    "q4_k_m": Mix(15, Type.Q4_K, True),
    "q5_k_m": Mix(17, Type.Q5_K, True),
    "q6_k": Mix(18, Type.Q6_K, False),
    "q8_0": Mix(7, Type.Q8_0, False),
}
# with blocks of 32, each with at least the bits of what it stands for
_FALLBACK = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}


def choose_types(
    tensors: Sequence[tuple[str, tuple[int, ...], Type]], mix: Mix, *, n_layers: int, is_70b: bool
) -> list[Type]:
    """The type of each tensor (name, shape, present type), in llama.cpp's order: by layer, then by name.

    `n_layers` is the model's block count. `is_70b` is llama.cpp's name for 80 layers with shared key-value heads.

    Raises:
        InputError: a matrix whose rows are not a multiple of 32; llama-quantize refuses it as well.
    """
    tied = all(name != "output.weight" for name, _, _ in tensors)
    holds_values = ("attn_v.weight", "attn_qkv.weight")
    n_attention_v = sum(name.endswith(holds_values) for name, _, _ in tensors)
    seen_v = seen_down = 0
    types = []
    for name, shape, present in tensors:
        if len(shape) < 2 or not name.endswith("weight") or "_norm.weight" in name:
            types.append(present)
            continue
        chosen = mix.common
        if name == "output.weight" or (tied and name == "token_embd.weight"):
            # in every mix; a tied embedding is the head as well
            chosen = Type.Q8_0 if shape[-1] % 256 or chosen == Type.Q8_0 else Type.Q6_K
        elif name.endswith(holds_values):
            if mix.raises_some and use_more_bits(seen_v, n_attention_v):
                chosen = Type.Q6_K
            if is_70b and chosen == Type.Q4_K:
                chosen = Type.Q5_K
            seen_v += 1
        elif "ffn_down" in name:
            if mix.raises_some and use_more_bits(seen_down, n_layers):
                chosen = Type.Q6_K
            seen_down += 1
        types.append(_fit(name, shape[-1], chosen))
    return types


def use_more_bits(layer: int, n_layers: int) -> bool:
    """The first and last eighth of the layers, and every third between them.

    >>> [layer for layer in range(16) if use_more_bits(layer, 16)]
    [0, 1, 4, 7, 10, 13, 14, 15]
    """
    return layer < n_layers // 8 or layer >= 7 * n_layers // 8 or (layer - n_layers // 8) % 3 == 2


def _fit(name: str, row: int, chosen: Type) -> Type:
    """The chosen type, or the one with blocks of 32 where rows are no multiple of its block."""
    if row % GGML_QUANT_SIZES[chosen][0] == 0:
        return chosen
    fallback = _FALLBACK.get(chosen)
    if fallback is None:
        raise InputError(
            f"{name} has rows of {row}; K-quants need a multiple of 32.",
            "export this model with quantization f16.",
        )
    return fallback if row % 32 == 0 else Type.F16


@cache
def ggml() -> ctypes.CDLL:
    """ggml's C functions from the xllamacpp wheel. Raises `PrerequisiteError` where it is missing or lacks them."""
    # found, not imported: only the shared object is needed
    spec = importlib.util.find_spec("xllamacpp")
    libraries: list[Path] = []
    if spec is not None:
        for place in spec.submodule_search_locations or ():
            libraries += [path for path in sorted(Path(place).glob("xllamacpp*")) if path.suffix in (".so", ".pyd")]
    if not libraries:
        raise PrerequisiteError(
            "The package xllamacpp is not installed; it holds the quantiser.", "pip install xllamacpp"
        )
    library = ctypes.CDLL(str(libraries[0]))
    try:
        quantize = library.ggml_quantize_chunk
    except AttributeError as error:
        raise PrerequisiteError(
            f"{libraries[0].name} exports no ggml_quantize_chunk.", "pip install --upgrade xllamacpp"
        ) from error
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, pointer, pointer, size, size, size, pointer]
    quantize.restype = ctypes.c_size_t
    library.ggml_quantize_init.argtypes = [ctypes.c_int]
    return library


def quantized_bytes(shape: tuple[int, ...], kind: Type) -> int:
    """Bytes of a tensor of this shape in this type."""
    block, n_bytes = GGML_QUANT_SIZES[kind]
    return int(np.prod(shape, dtype=np.int64)) // int(block) * int(n_bytes)


def quantize(rows: Callable[[int, int], np.ndarray], shape: tuple[int, int], kind: Type) -> np.ndarray:
    """Quantises a matrix, uint8 `[n_bytes]`.

    `rows(first, last)` gives float32 `[last - first, columns]`; it is asked for slices of about a million weights, from
    several threads, so the matrix never exists in float32 as a whole.
    """
    n_rows, columns = shape
    library = ggml()
    library.ggml_quantize_init(int(kind))  # before the threads: it may fill tables that they share
    out = np.empty((n_rows, quantized_bytes((columns,), kind)), dtype=np.uint8)
    step = max(1, CHUNK_ELEMENTS // columns)

    def work(first: int) -> None:
        last = min(first + step, n_rows)
        values = np.ascontiguousarray(rows(first, last), dtype=np.float32)
        written = library.ggml_quantize_chunk(
            int(kind), values.ctypes.data, out[first:last].ctypes.data, 0, last - first, columns, None
        )
        if written != out[first:last].nbytes:
            raise InternalError(f"ggml wrote {written} bytes of {out[first:last].nbytes} for {kind.name}.")

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        # read to the end, or what a thread raised would be lost
        list(pool.map(work, range(0, n_rows, step)))
    return out.ravel()
