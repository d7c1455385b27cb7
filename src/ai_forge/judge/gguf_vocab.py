"""The `tokenizer.*` metadata of a GGUF, from a model folder.

Method: where the base came from a GGUF, its header travels in the folder as `tokenizer.gguf` and is carried over byte
for byte. Else it is built from `tokenizer.json`: tokens and types as llama.cpp's converter writes them, the
pre-tokenizer recognised from its split expressions, and whether a begin token is added found out by encoding. The chat
template is always the folder's, because that is what the model was trained with.

Byte-level BPE only. Source: llama.cpp `conversion/base.py` (get_vocab_base), `gguf-py/gguf/vocab.py` (SpecialVocab).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ai_forge.errors import InputError
from ai_forge.training.bases import chat_template
from ai_forge.training.gguf_import import TOKENIZER_GGUF
from ai_forge.training.gguf_metadata import boolean, int32s, string, strings, uint32
from ai_forge.training.gguf_reader import read_gguf
from ai_forge.training.pretokenizers import recognise
from ai_forge.training.tokenizer import CONTROL, NORMAL, UNUSED, USER_DEFINED

TEMPLATE_KEY = "tokenizer.chat_template"


def tokenizer_metadata(folder: Path, config: Mapping[str, Any]) -> dict[str, bytes]:
    """Key → encoded value for everything under `tokenizer.`; as many tokens as the model has embeddings.

    Raises:
        InputError: no tokenizer.json, not byte-level BPE, an unknown way of splitting, or more tokens than embeddings.
    """
    vocab_size = int(config["vocab_size"])
    values = _carried(folder, vocab_size) or _built(folder, config, vocab_size)
    template = chat_template(folder)
    if template is not None:
        values[TEMPLATE_KEY] = string(template)
    return values


def _carried(folder: Path, vocab_size: int) -> dict[str, bytes] | None:
    path = folder / TOKENIZER_GGUF
    if not path.is_file():
        return None
    header = read_gguf(path)
    if len(header.metadata.get("tokenizer.ggml.tokens", [])) != vocab_size:
        return None  # the vocabulary was changed since
    return {key: raw for key, raw in header.raw_values.items() if key.startswith("tokenizer.")}


def _built(folder: Path, config: Mapping[str, Any], vocab_size: int) -> dict[str, bytes]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{folder} has no tokenizer.json.", "save the tokenizer there with tokenizer.save_pretrained.")
    data = json.loads(path.read_text(encoding="utf-8"))
    model = data.get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise InputError(
            f"{path} is of kind {model.get('type')!r}{' with byte fallback' if model.get('byte_fallback') else ''}; "
            "only byte-level BPE can be exported.",
            "use a base with a GPT-2, Llama 3 or Qwen style tokenizer.",
        )
    pre = recognise(data.get("pre_tokenizer"))
    tokens, types = _tokens(data, vocab_size, path)
    settings_path = folder / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8")) if settings_path.is_file() else {}
    values = {
        "tokenizer.ggml.model": string("gpt2"),
        "tokenizer.ggml.pre": string(pre),
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.token_type": int32s(types),
        "tokenizer.ggml.merges": strings([_merge(pair) for pair in model.get("merges", [])]),
    }
    values |= _special_ids(data, settings, config)
    bos = values.get("tokenizer.ggml.bos_token_id")
    values["tokenizer.ggml.add_bos_token"] = boolean(bos is not None and _adds_first(path, bos))
    return values


def _tokens(data: Mapping[str, Any], vocab_size: int, path: Path) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [UNUSED] * vocab_size
    added = {row["id"]: row for row in data.get("added_tokens", [])}
    for token, index in [*data["model"]["vocab"].items(), *((row["content"], index) for index, row in added.items())]:
        if not 0 <= index < vocab_size:
            raise InputError(f"{path}: token {token!r} has id {index}, the model has {vocab_size} embeddings.")
        tokens[index], types[index] = token, NORMAL
    for index, row in added.items():
        types[index] = CONTROL if row.get("special") or _looks_special(row["content"]) else USER_DEFINED
    return tokens, types


def _looks_special(token: str) -> bool:
    """Tokens that some models forget to mark as special, as llama.cpp's converter knows them."""
    return token == "<pad>" or (token[:2], token[-2:]) in (("<|", "|>"), ("<｜", "｜>"))


def _merge(pair: Any) -> str:
    """`"a b"` of a merge in the old (string) or new (pair) form; a space inside a token is written as Ġ."""
    return pair if isinstance(pair, str) else " ".join(part.replace(" ", "Ġ") for part in pair)


def _special_ids(data: Mapping[str, Any], settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, bytes]:
    ids = {row["content"]: row["id"] for row in data.get("added_tokens", [])}
    values = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = settings.get(f"{role}_token")
        token = token.get("content") if isinstance(token, dict) else token
        index = ids.get(token, config.get(f"{role}_token_id"))
        if isinstance(index, int):
            values[f"tokenizer.ggml.{key}_token_id"] = uint32(index)
    return values


def _adds_first(path: Path, encoded_bos: bytes) -> bool:
    """Whether the tokenizer puts the begin token before a text, found out by letting it."""
    ids = Tokenizer.from_file(str(path)).encode("a", add_special_tokens=True).ids
    return bool(ids) and uint32(ids[0]) == encoded_bos
