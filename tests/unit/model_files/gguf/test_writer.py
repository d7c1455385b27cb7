import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.model_files.base import Base
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.model_files.gguf.writer import QUANTIZATIONS, check_exportable, write_gguf
from ai_forge.training.bases.resolve import resolve_base
from llama_cpp import LlamaCpp
from tiny_models import SPECIAL, make_tiny, tokenizer_json, with_gemma_tokenizer


def test_smollm2s_tokenizer_is_carried_over_byte_for_byte(smollm2: Base, base_gguf: Path, tmp_path: Path) -> None:
    source = read_gguf(base_gguf)
    written = read_gguf(write_gguf(smollm2.folder, tmp_path / "m.gguf"))
    keys = [key for key in source.raw_values if key.startswith("tokenizer.")]
    assert len(keys) >= 11
    assert [key for key in keys if written.raw_values.get(key) != source.raw_values[key]] == []
    for key in ("block_count", "context_length", "rope.freq_base", "attention.layer_norm_rms_epsilon"):
        assert written.metadata[f"llama.{key}"] == source.metadata[f"llama.{key}"]
    assert written.metadata["general.file_type"] == 1


def test_the_folders_chat_template_wins_over_the_carried_one(tmp_path: Path) -> None:
    path = write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf")
    base = resolve_base(str(path), cache_dir=tmp_path / "cache")
    folder = Path(shutil.copytree(base.folder, tmp_path / "b"))
    (folder / "chat_template.jinja").write_text("<|im_start|>new")
    assert read_gguf(write_gguf(folder, tmp_path / "b.gguf")).metadata["tokenizer.chat_template"] == "<|im_start|>new"


def test_a_vocabulary_built_from_tokenizer_json_equals_the_carried_one(tmp_path: Path) -> None:
    """tokenizer.json → GGUF → folder → GGUF: built the first time, carried the second."""
    built = write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf")
    base = resolve_base(str(built), cache_dir=tmp_path / "cache")
    carried = write_gguf(base.folder, tmp_path / "b.gguf", name="a")
    before, after = read_gguf(built).raw_values, read_gguf(carried).raw_values
    assert [key for key in before if key.startswith("tokenizer.") and after.get(key) != before[key]] == []


def test_added_tokens_and_empty_rows_get_their_types(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a", vocab_size=520)
    data = json.loads(json.dumps(tokenizer_json()))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    data["added_tokens"].append({"id": 512, "content": "<|tool|>", "special": False, **flags})
    data["added_tokens"].append({"id": 513, "content": "<note>", "special": False, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(data))
    path = write_gguf(folder, tmp_path / "a.gguf")
    metadata = read_gguf(path).metadata
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    assert tokens[:3] == SPECIAL
    assert (types[0], types[100], types[512], types[513], types[519]) == (3, 1, 3, 4, 5)
    assert tokens[519] == "[PAD519]"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "see <note> and <|tool|>x<|im_end|>"
    assert LlamaCpp(path).tokenize(text) == tokenizer.encode(text).ids


def test_a_begin_token_is_declared_only_where_the_tokenizer_adds_it(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a", pre="llama-bpe")
    path = write_gguf(folder, tmp_path / "a.gguf")
    assert read_gguf(path).metadata["tokenizer.ggml.add_bos_token"] is False
    data = json.loads((folder / "tokenizer.json").read_text())
    bos = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(data))
    path = write_gguf(folder, tmp_path / "b.gguf")
    assert read_gguf(path).metadata["tokenizer.ggml.add_bos_token"] is True
    assert LlamaCpp(path).tokenize("x = 1", special=True)[0] == 1


def test_merges_in_the_old_form_are_read(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a")
    data = json.loads((folder / "tokenizer.json").read_text())
    new = write_gguf(folder, tmp_path / "a.gguf").read_bytes()
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    assert write_gguf(folder, tmp_path / "b.gguf").read_bytes() == new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "kind 'Unigram'"),
        ({"model": {"type": "BPE", "byte_fallback": True, "vocab": {}, "merges": []}}, "treating spaces"),
        ({"pre_tokenizer": {"type": "Metaspace"}}, "not one llama.cpp knows"),
        ({"added_tokens": [{"id": 9999, "content": "<x>", "special": True}]}, "the model has 512 embeddings"),
    ],
)
def test_tokenizers_that_cannot_be_exported_are_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path / "a")
    data = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(data | change))
    with pytest.raises(InputError, match=message):
        write_gguf(folder, tmp_path / "a.gguf")
    assert list(tmp_path.glob("*.gguf*")) == []


WORD_PIECE = {
    "type": "WordPiece",
    "vocab": {"a": 0},
    "unk_token": "a",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
SYSTEM_LAST = "{% for message in messages | reverse %}{{ message['content'] }}<|im_end|>{% endfor %}"


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (
            "config.json",
            {"rope_scaling": {"type": "longrope"}, "rope_parameters": None},
            "'longrope' cannot be exported",
        ),
        ("config.json", {"hidden_act": "gelu"}, "the activation gelu"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "not one llama.cpp knows"),
        ("tokenizer.json", {"model": WORD_PIECE}, "kind 'WordPiece'"),
        ("tokenizer_config.json", {"chat_template": "{{ raise_exception('no chats') }}"}, "no chats"),
        ("tokenizer_config.json", {"chat_template": SYSTEM_LAST}, "no Go template can follow it"),
    ],
)
def test_what_cannot_be_exported_is_found_without_writing(
    spoil: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path / "a")
    check_exportable(folder, ollama=True)
    path = folder / spoil
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    with pytest.raises(InputError, match=message):
        check_exportable(folder, ollama=True)
    if "Go template" in message:
        check_exportable(folder)


def test_a_base_without_a_chat_template_can_be_asked_in_alpacas_way(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "chat_template"}))
    check_exportable(folder, prompt_template="alpaca", ollama=True)
    with pytest.raises(InputError, match="has no chat template"):
        check_exportable(folder)


def test_a_space_before_the_first_word_is_exportable_where_the_template_asked_for_begins_with_a_token(
    tmp_path: Path,
) -> None:
    """Llama 2 and Mistral before their instruct versions: no chat template, so Alpaca's."""
    folder = with_gemma_tokenizer(make_tiny(tmp_path / "model"))
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    for name, changes in {
        "tokenizer.json": {"normalizer": None, "pre_tokenizer": metaspace},
        "tokenizer_config.json": {"chat_template": None},
    }.items():
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(data | changes), encoding="utf-8")
    check_exportable(folder, prompt_template="alpaca")


def test_rows_that_the_mix_does_not_hold_are_found_without_writing(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a", hidden=40, heads=2, kv_heads=1)
    check_exportable(folder)
    with pytest.raises(InputError, match="K-quants need a multiple of 32"):
        check_exportable(folder, "q4_k_m")


def test_special_tokens_that_swallow_whitespace_otherwise_than_phi3s_are_refused(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a")
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"][1]["rstrip"] = True
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="swallow whitespace beside them, which llama"):
        check_exportable(folder)


def test_no_begin_token_is_asked_for_where_the_chat_has_none(tmp_path: Path) -> None:
    """The trainer adds none to a chat, so llama.cpp must not either."""
    folder = make_tiny(tmp_path / "a")
    data = json.loads((folder / "tokenizer.json").read_text())
    bos = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    (folder / "tokenizer.json").write_text(json.dumps(data))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert read_gguf(write_gguf(folder, tmp_path / "a.gguf")).metadata["tokenizer.ggml.add_bos_token"] is False


def test_an_unknown_quantization_lists_the_allowed_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'q3_k' is not one of f16, q4_k_m, q5_k_m, q6_k, q8_0"):
        write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf", "q3_k")
    assert QUANTIZATIONS == ("f16", "q4_k_m", "q5_k_m", "q6_k", "q8_0")


def test_names_of_quantizations_are_read_in_any_case(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a", hidden=256)
    small = write_gguf(folder, tmp_path / "a.gguf", "Q4_K_M")
    assert small.read_bytes() == write_gguf(folder, tmp_path / "b.gguf", "q4_k_m").read_bytes()


def test_too_little_disk_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sparse file stands for a model of 4 GB, with the largest vocabulary that is accepted, on a disk with 1 GB left."""
    folder = make_tiny(tmp_path / "a")
    config = json.loads((folder / "config.json").read_text())
    rows = 2**24
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    raw = (folder / "model.safetensors").read_bytes()
    n_header = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + n_header])
    size = rows * 64 * 4
    header["model.embed_tokens.weight"] = {"dtype": "F32", "shape": [rows, 64], "data_offsets": [0, size]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    with pytest.raises(PrerequisiteError, match=r"Writing a.gguf needs 2\.\d GB of disk .* 1\.0 GB are free"):
        write_gguf(folder, tmp_path / "a.gguf")
    assert list(tmp_path.glob("*.gguf*")) == []


def test_bfloat16_weights_come_out_as_their_float16(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "a", dtype="BF16")
    file = read_gguf(write_gguf(folder, tmp_path / "a.gguf"))
    from ai_forge.model_files.tensors import Weights

    weights = Weights(folder)
    written = file.raw("blk.0.ffn_up.weight").view(np.float16).reshape(128, 64)
    assert np.array_equal(written, weights.load("model.layers.0.mlp.up_proj.weight").astype(np.float16))
    norm = file.raw("output_norm.weight").view(np.float32)
    assert np.array_equal(norm, weights.load("model.norm.weight"))


def test_progress_counts_every_tensor(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_gguf(make_tiny(tmp_path / "a"), tmp_path / "a.gguf", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 20) for i in range(1, 21)]
