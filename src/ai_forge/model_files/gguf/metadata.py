"""Encodes a GGUF header: metadata values and the tensor table.

Method: values are bytes before they reach the header, so what was read from one file goes into another unchanged, and
what is new is encoded by `string`, `uint32`, … with the type llama.cpp expects. `gguf.GGUFWriter` re-types what it is
given and keeps all tensors until the end; here the header is a function of its inputs and the writer streams.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping, Sequence

from ai_forge.model_files.gguf.reader import DEFAULT_ALIGNMENT, GGUFTensor


def string(value: str) -> bytes:
    """A string value with its type."""
    return struct.pack("<I", 8) + _text(value)


def uint32(value: int) -> bytes:
    """An unsigned 32-bit value with its type."""
    return struct.pack("<II", 4, value)


def float32(value: float) -> bytes:
    """A 32-bit float value with its type."""
    return struct.pack("<If", 6, value)


def boolean(value: bool) -> bytes:
    """A boolean value with its type."""
    return struct.pack("<I?", 7, value)


def strings(values: Sequence[str]) -> bytes:
    """An array of strings with its type."""
    return struct.pack("<IIQ", 9, 8, len(values)) + b"".join(map(_text, values))


def int32s(values: Sequence[int]) -> bytes:
    """An array of signed 32-bit values with its type."""
    return struct.pack(f"<IIQ{len(values)}i", 9, 5, len(values), *values)


def float32s(values: Sequence[float]) -> bytes:
    """An array of 32-bit floats with its type."""
    return struct.pack(f"<IIQ{len(values)}f", 9, 6, len(values), *values)


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def padded(n_bytes: int, alignment: int = DEFAULT_ALIGNMENT) -> int:
    """`n_bytes` rounded up to the alignment."""
    return -(-n_bytes // alignment) * alignment


def encode_header(values: Mapping[str, bytes], tensors: Sequence[GGUFTensor]) -> bytes:
    """Magic, metadata and tensor table, padded so that the data may follow at once. Offsets follow from the order."""
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values))]
    parts += [_text(key) + raw for key, raw in values.items()]
    offset = 0
    for tensor in tensors:
        dims = tensor.shape[::-1]  # ggml's `ne`: the fastest dimension first
        parts.append(_text(tensor.name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, tensor.type, offset))
        offset += padded(tensor.n_bytes)  # from the start of the data, not of the file
    header = b"".join(parts)
    return header + bytes(padded(len(header)) - len(header))
