"""Safetensors folders read and written tensor by tensor, without torch and without holding a model in memory.

Method: the format is a JSON header and raw bytes, so a reader is a memory map and a writer is a loop. bfloat16, which
numpy lacks, travels as uint16 and is widened to float32 by a shift.

Trade-off: `safetensors.numpy` refuses bfloat16 and its `save_file` needs every tensor at once (2 × a model in memory
while merging). This module peaks at one tensor. What a file claims is checked against its size before it is used.

It reads float32, float16 and bfloat16 only: a model's weights. Pickle files (.bin, .pt, .pth, .ckpt) are refused, since
loading one runs code. Format: https://huggingface.co/docs/safetensors
"""

import json
import mmap
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ai_forge.errors import InputError

INDEX_NAME = "model.safetensors.index.json"
WEIGHTS_NAME = "model.safetensors"
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
SLICE_ELEMENTS = 8_000_000  # 32 MB of float32
STORAGE: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


def bf16_to_f32(bits: np.ndarray) -> np.ndarray:
    """bfloat16 bit patterns (uint16) → float32, exact.

    >>> float(bf16_to_f32(np.array([0x3F80], dtype=np.uint16))[0])
    1.0
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)


def f32_to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 → bfloat16 bit patterns (uint16), rounded to nearest even; NaN stays NaN.

    >>> hex(int(f32_to_bf16(np.array([1.0], dtype=np.float32))[0]))
    '0x3f80'
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    # half of the last place, one less where that place is even; the carry may run into the exponent, which is right
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)  # rounded, a NaN may become an infinity


def to_storage(values: np.ndarray, dtype: str, name: str = "tensor") -> np.ndarray:
    """float32 values in storage type "F32", "F16" or "BF16". Raises `InputError` where float16 would overflow."""
    if dtype == "BF16":
        return f32_to_bf16(values)
    if dtype == "F16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise InputError(
                f"{name} holds values that float16 cannot (largest {np.abs(values).max():g}; limit 65504)."
            )
        return half
    return values.astype(np.float32, copy=False)


def slices(shape: tuple[int, ...], n_elements: int = SLICE_ELEMENTS) -> list[tuple[int, int]]:
    """The rows of a tensor in slices of about `n_elements`: what is computed with them never exists as a whole.

    >>> slices((5, 4), n_elements=8)
    [(0, 2), (2, 4), (4, 5)]
    """
    step = max(1, n_elements // max(1, int(np.prod(shape[1:], dtype=np.int64))))
    return [(first, min(first + step, shape[0])) for first in range(0, shape[0], step)]


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to come: its name, storage type ("F32", "F16", "BF16") and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * STORAGE[self.dtype].itemsize


class SafetensorsFile:
    """A checked safetensors file, mapped read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        if size < 8:  # an empty file cannot be mapped either
            raise InputError(f"{path} is {size} bytes long: too short for safetensors.")
        with path.open("rb") as handle:
            self._map = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        (n_header,) = struct.unpack_from("<Q", self._map, 0)
        if n_header > min(size - 8, MAX_HEADER_BYTES):
            raise InputError(f"{path} is cut off or not safetensors: its header claims {n_header} bytes of {size}.")
        try:
            header = json.loads(self._map[8 : 8 + n_header])
            rows = {name: row for name, row in header.items() if name != "__metadata__"}
            self.specs = {n: TensorSpec(n, r["dtype"], tuple(map(int, r["shape"]))) for n, r in rows.items()}
            spans = {n: (8 + n_header + int(r["data_offsets"][0]), int(r["data_offsets"][1])) for n, r in rows.items()}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
            raise InputError(f"{path} has a broken safetensors header: {error}.", "download the file again.") from error
        self._starts = {name: start for name, (start, _) in spans.items()}
        for name, spec in self.specs.items():
            self._check(spec, self._starts[name], size)

    def _check(self, spec: TensorSpec, start: int, size: int) -> None:
        if spec.dtype not in STORAGE:
            raise InputError(
                f"{self.path}: {spec.name} is stored as {spec.dtype}; weights must be one of {', '.join(STORAGE)}.",
                "use the unquantised version of the model.",
            )
        if any(side < 0 for side in spec.shape) or start < 8 or start + spec.n_bytes > size:
            raise InputError(
                f"{self.path} is cut off: {spec.name} lies outside its {size} bytes.", "download it again."
            )

    def stored(self, name: str) -> np.ndarray:
        """The tensor as stored (bfloat16 as uint16), mapped, not copied."""
        spec = self.specs[name]
        dtype = STORAGE[spec.dtype]
        flat = np.frombuffer(self._map, dtype=dtype, count=spec.n_bytes // dtype.itemsize, offset=self._starts[name])
        return flat.reshape(spec.shape)

    def load(self, name: str, n_rows: int | None = None) -> np.ndarray:
        """The tensor, or its first `n_rows`, as float32."""
        return self.rows(name, 0, n_rows)

    def rows(self, name: str, first: int, last: int | None) -> np.ndarray:
        """Rows `first` to before `last` (None: to the end) of the tensor, as float32."""
        stored = self.stored(name)[first:last]
        if self.specs[name].dtype == "BF16":
            return bf16_to_f32(stored)
        return stored.astype(np.float32)

    def release(self) -> None:
        """Let go of the pages that were read: they would count as this process's memory. Reading them again is all it costs."""
        self._map.madvise(mmap.MADV_DONTNEED)


class Weights:
    """All weights of a Hugging Face style folder, one file or sharded with an index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = [SafetensorsFile(path) for path in weight_files(folder)]
        self._home = {name: file for file in self.files for name in file.specs}
        if not self._home:
            raise InputError(f"{folder} holds no tensors.")

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """Name → storage type and shape of every tensor."""
        return {name: file.specs[name] for name, file in self._home.items()}

    def stored(self, name: str) -> np.ndarray:
        """The tensor as stored (bfloat16 as uint16)."""
        return self._home[name].stored(name)

    def load(self, name: str) -> np.ndarray:
        """The tensor as float32."""
        return self._home[name].load(name)

    def rows(self, name: str, first: int, last: int | None) -> np.ndarray:
        """Some rows of the tensor as float32."""
        return self._home[name].rows(name, first, last)

    def release(self) -> None:
        """Let go of the pages that were read."""
        for file in self.files:
            file.release()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in `folder`, in a stable order.

    Raises:
        InputError: there are none, only pickle files, or the index names a file that is missing or outside.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise InputError(f"{index} is not a weight index: {error}.") from error
        for name in names:
            # a name with a folder in it would read outside
            if Path(str(name)).name != name or not (folder / name).is_file():
                raise InputError(f"{index} names {name!r}, which is not in {folder}.", "download the model again.")
        return [folder / name for name in names]
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if pickles:
        raise InputError(
            f"{folder} has only pickle weights ({', '.join(pickles[:3])}); loading them would run code from the file.",
            "use a version with .safetensors, or convert it with safetensors.torch.save_file on a machine you trust.",
        )
    raise InputError(
        f"{folder} has no weights: neither {WEIGHTS_NAME} nor {INDEX_NAME}.",
        "download the model again, or name the folder that holds them.",
    )


def write_safetensors(
    path: Path, tensors: Iterable[tuple[TensorSpec, np.ndarray]], specs: Iterable[TensorSpec]
) -> None:
    """Writes tensors as they come, in the order of `specs`; one is in memory at a time.

    `tensors` yields (spec, values already in storage type). The file is fsynced; making it appear atomically is the
    caller's part (write into a folder that is renamed).
    """
    ordered = list(specs)
    with path.open("wb") as handle:
        handle.write(_header(ordered))
        written = 0
        for expected, (spec, values) in zip(ordered, tensors, strict=True):
            if spec != expected or values.nbytes != spec.n_bytes:
                raise ValueError(f"expected {expected}, got {spec} with {values.nbytes} bytes")
            handle.write(np.ascontiguousarray(values).data)
            written += spec.n_bytes
        handle.flush()
        os.fsync(handle.fileno())


def _header(specs: Iterable[TensorSpec]) -> bytes:
    rows: dict[str, Mapping[str, object]] = {"__metadata__": {"format": "pt"}}
    at = 0
    for spec in specs:
        rows[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [at, at + spec.n_bytes]}
        at += spec.n_bytes
    text = json.dumps(rows, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that float32 data is aligned in the map
    return struct.pack("<Q", len(text)) + text
