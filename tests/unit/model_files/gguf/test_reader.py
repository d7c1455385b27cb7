import random
import struct
from pathlib import Path

import pytest

from ai_forge.errors import InputError
from ai_forge.model_files.gguf.metadata import boolean, encode_header, float32, int32s, string, strings, uint32
from ai_forge.model_files.gguf.reader import check_gguf, gguf_tensor_types, read_gguf
from ai_forge.model_files.gguf.writer import write_gguf
from tiny_models import make_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    return write_gguf(make_tiny(folder / "tiny"), folder / "tiny.gguf")


def test_it_reads_what_the_reference_reader_reads(model: Path) -> None:
    from gguf import GGUFReader

    ours, theirs = read_gguf(model), GGUFReader(model)
    assert [(t.name, t.type, t.offset, t.n_bytes) for t in ours.tensors.values()] == [
        (t.name, t.tensor_type, t.data_offset, t.n_bytes) for t in theirs.tensors
    ]
    for key, value in ours.metadata.items():
        assert value == theirs.fields[key].contents(), key
    for tensor in theirs.tensors:
        assert ours.raw(tensor.name).tobytes() == tensor.data.tobytes()


def test_summary_and_types(model: Path) -> None:
    summary = check_gguf(model)
    assert (summary.architecture, summary.context_length, summary.quantization) == ("llama", 512, "F16")
    assert summary.chat_template
    assert summary.n_parameters == sum(t.n_elements for t in read_gguf(model).tensors.values())
    types = gguf_tensor_types(model)
    assert types["blk.0.attn_q.weight"] == "F16"
    assert types["blk.0.attn_norm.weight"] == "F32"


def test_every_kind_of_value_survives(tmp_path: Path) -> None:
    values = {
        "a": string("naïve"),
        "b": uint32(7),
        "c": float32(0.5),
        "d": boolean(True),
        "e": strings(["x", ""]),
        "f": int32s([-1, 2]),
    }
    path = tmp_path / "v.gguf"
    path.write_bytes(encode_header(values, []))
    file = read_gguf(path)
    assert file.metadata == {"a": "naïve", "b": 7, "c": 0.5, "d": True, "e": ["x", ""], "f": [-1, 2]}
    assert file.raw_values == values


def test_a_cut_off_file_is_found_wherever_it_was_cut(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    path = tmp_path / "cut.gguf"
    for keep in [0, 3, 23, 24, 100, 5000, len(whole) // 2, len(whole) - 40]:
        path.write_bytes(whole[:keep])
        with pytest.raises(InputError, match=r"cut off|too short|not a readable GGUF"):
            check_gguf(path)


def test_damaged_bytes_never_give_anything_but_an_input_error(model: Path, tmp_path: Path) -> None:
    whole = model.read_bytes()
    path = tmp_path / "damaged.gguf"
    chance = random.Random(0)
    for _ in range(300):
        data = bytearray(whole[:40_000])
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(4, 1500)] = chance.randrange(256)
        path.write_bytes(data)
        with pytest.raises(InputError):
            check_gguf(path)  # always an error: the tensors are not there


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04" + bytes(40), "starts with"),
        (struct.pack("<4sIQQ", b"GGUF", 1, 0, 0) + bytes(8), "version 1"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0) + bytes(8), "big-endian"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 0) + bytes(8), "announces 1152921504606846976 tensors"),
        (struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**60) + bytes(8), "metadata keys"),
        (encode_header({"general.alignment": uint32(3)}, []), "power of two"),
        (encode_header({"a": struct.pack("<IIQ", 9, 8, 2**50)}, []), "strings in an array"),
        (encode_header({"a": struct.pack("<IIQ", 9, 9, 1)}, []), "arrays of metadata type 9"),
        (encode_header({"a": struct.pack("<I", 99)}, []), "unknown metadata type 99"),
        (encode_header({"split.count": uint32(3)}, []), "split GGUF"),
    ],
)
def test_hostile_headers_are_refused_with_the_reason(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        check_gguf(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((1, (64,), 0, 32), "cut off"),
        ((1, (2**50,), 0, 0), "impossible shape"),
        ((4, (2**30, 2**30, 2**30, 2**30), 0, 0), "cut off"),
        ((9, (1,) * 9, 0, 0), "9 dimensions"),
        ((1, (64,), 77, 0), "unknown type 77"),
        ((1, (33,), 8, 0), "multiple of 32"),
        ((1, (8,), 0, 5), "starts at 5"),
    ],
)
def test_hostile_tensor_tables_are_refused(
    row: tuple[int, tuple[int, ...], int, int], message: str, tmp_path: Path
) -> None:
    n_dims, dims, kind, offset = row
    table = struct.pack("<Q1s", 1, b"t") + struct.pack(f"<I{len(dims)}QIQ", n_dims, *dims, kind, offset)
    path = tmp_path / "hostile.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + table + bytes(64))
    with pytest.raises(InputError, match=message):
        check_gguf(path)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No GGUF file"):
        check_gguf(tmp_path / "none.gguf")
