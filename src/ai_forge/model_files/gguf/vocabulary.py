"""The `tokenizer.*` metadata of a GGUF, from a model folder.

Method: where the base came from a GGUF, its header travels in the folder as `tokenizer.gguf` and is carried over byte
for byte. Else it is built from `tokenizer.json`: tokens and types as llama.cpp's converter writes them, and what llama.cpp
cuts by: for byte-level BPE the pre-tokenizer, recognised from its split expressions; for SentencePiece vocabularies the
scores (`model_files/tokenizers/spm_vocabulary`; the official converter, given only `tokenizer.json`, writes −1000 for all, which gives
other ids). The chat template is always the folder's, because that is what the model was trained with, and a begin token is
asked for only where that template begins with it: the trainer adds none.

Source: llama.cpp `conversion/base.py` (get_vocab_base), `gguf-py/gguf/vocab.py` (SpecialVocab).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ai_forge.errors import InputError
from ai_forge.model_files.base import chat_template
from ai_forge.model_files.gguf.importer import TOKENIZER_GGUF
from ai_forge.model_files.gguf.metadata import boolean, float32s, int32s, string, strings, uint32
from ai_forge.model_files.gguf.reader import read_gguf
from ai_forge.model_files.gguf.token_check import require_same_tokens
from ai_forge.model_files.tokenizers.gguf_tokenizer import (
    BYTE,
    BYTE_LEVEL,
    CONTROL,
    NORMAL,
    PHI3_NAME,
    PHI3_UNSTRIPPED,
    SENTENCEPIECE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from ai_forge.model_files.tokenizers.pretokenizers import recognise
from ai_forge.model_files.tokenizers.spm_vocabulary import BYTE_TOKEN, merge_pairs, scores_from_merges, space_prefix
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.tokenizer_settings import read_json_object, tokenizer_settings

TEMPLATE_KEY = "tokenizer.chat_template"
ADD_BOS_KEY = "tokenizer.ggml.add_bos_token"


def tokenizer_metadata(
    folder: Path, config: Mapping[str, Any], tokenizer: ChatTokenizer | None = None
) -> dict[str, bytes]:
    """Key → encoded value for everything under `tokenizer.`; as many tokens as the model has embeddings.

    `tokenizer` is how the model is asked, where the folder's chat template does not say it.

    Raises:
        InputError: no tokenizer.json, one that llama.cpp would follow otherwise, or more tokens than embeddings.
    """
    vocab_size = int(config["vocab_size"])
    values = _carried(folder, vocab_size) or _built(folder, config, vocab_size, tokenizer)
    template = chat_template(folder)
    if template is not None:
        values[TEMPLATE_KEY] = string(template)
        asks_for_bos = values.get(ADD_BOS_KEY) == boolean(True)
        if asks_for_bos and not (tokenizer or ChatTokenizer(folder)).prompts_begin_with_bos():
            values[ADD_BOS_KEY] = boolean(False)  # the trainer adds none, so the server must not
    return values


def require_servable(
    folder: Path, config: Mapping[str, Any], values: Mapping[str, bytes], tokenizer: ChatTokenizer
) -> None:
    """Compare ids and prompts of `tokenizer`, the trainer's, with llama.cpp's by the tokenizer metadata `values`.

    Raises:
        InputError: they differ.
    """
    data = read_json_object(folder / "tokenizer.json")
    starts_apart = bool(data["model"].get("byte_fallback")) and space_prefix(data) == "first"
    written = {
        **values,
        "general.name": string(served_name(folder.name, folder)),
        TEMPLATE_KEY: string(tokenizer.chat_template),
    }
    # where only the start of a text gets a space, every prompt begins with a special token: so must the probe
    before = tokenizer.first_token() if starts_apart else ""
    require_same_tokens(data, written, int(config["vocab_size"]), tokenizer, before=before)


def served_name(name: str, folder: Path) -> str:
    """`name` as `general.name` may say it: llama.cpp reads from it whether special tokens swallow what follows.

    Raises:
        InputError: the tokenizer's special tokens swallow whitespace in a way that llama.cpp knows no name for.
    """
    added = read_json_object(folder / "tokenizer.json").get("added_tokens", [])
    stripping = {row["content"] for row in added if row.get("rstrip")}
    contents = {row["content"] for row in added}
    is_odd = any(row.get("lstrip") or row.get("single_word") for row in added)
    # Phi-3's own: all but three strip, and all four that llama.cpp names are there
    is_phi3 = stripping == contents - PHI3_UNSTRIPPED and contents > {"</s>", *PHI3_UNSTRIPPED}
    if is_odd or (stripping and not is_phi3):
        raise InputError(
            f"The special tokens in {folder / 'tokenizer.json'} swallow whitespace beside them, which llama.cpp does "
            "for Phi-3's only.",
            "choose another base: ai-forge models.",
        )
    if stripping and not PHI3_NAME.search(name):
        return f"{name} (Phi-3)"
    if stripping:
        return name
    return PHI3_NAME.sub("phi 3", name)  # or llama.cpp would strip where the trainer did not


def _carried(folder: Path, vocab_size: int) -> dict[str, bytes] | None:
    path = folder / TOKENIZER_GGUF
    if not path.is_file():
        return None
    header = read_gguf(path)
    if len(header.metadata.get("tokenizer.ggml.tokens", [])) != vocab_size:
        return None  # the vocabulary was changed since
    return {key: raw for key, raw in header.raw_values.items() if key.startswith("tokenizer.")}


def _built(
    folder: Path, config: Mapping[str, Any], vocab_size: int, tokenizer: ChatTokenizer | None
) -> dict[str, bytes]:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{folder} has no tokenizer.json.", "save the tokenizer there with tokenizer.save_pretrained.")
    data = read_json_object(path)
    model = data.get("model", {})
    if model.get("type") != "BPE":
        raise InputError(
            f"{path} is of kind {model.get('type')!r}; only BPE can be exported, byte-level or SentencePiece's.",
            "use a base with a GPT-2, Llama, Mistral, Qwen, Phi-3 or Gemma style tokenizer.",
        )
    tokens, types = _tokens(data, vocab_size, path)
    if model.get("byte_fallback"):
        values = _sentencepiece(folder, data, tokens, types, tokenizer)
    else:
        merges = [
            # older files write "a b"; in a pair, a space inside a token is written as Ġ
            pair if isinstance(pair, str) else " ".join(part.replace(" ", "Ġ") for part in pair)
            for pair in model.get("merges", [])
        ]
        values = {
            "tokenizer.ggml.model": string(BYTE_LEVEL),
            "tokenizer.ggml.pre": string(recognise(data.get("pre_tokenizer"), bool(model.get("ignore_merges")))),
            "tokenizer.ggml.merges": strings(merges),
        }
    values |= {"tokenizer.ggml.tokens": strings(tokens), "tokenizer.ggml.token_type": int32s(types)}
    values |= _special_ids(folder, data, config)
    # whether the tokenizer puts the begin token before a text is found out by letting it
    first = Tokenizer.from_file(str(path)).encode("a", add_special_tokens=True).ids[:1]
    bos = values.get("tokenizer.ggml.bos_token_id")
    values[ADD_BOS_KEY] = boolean(bos is not None and [bos] == [uint32(token) for token in first])
    return values


def _sentencepiece(
    folder: Path, data: Mapping[str, Any], tokens: list[str], types: list[int], tokenizer: ChatTokenizer | None
) -> dict[str, bytes]:
    """What llama.cpp cuts by, and the types of byte tokens and of the unknown one set in `types`."""
    prefix = space_prefix(data)
    if prefix == "first" and not (tokenizer or ChatTokenizer(folder)).prompts_begin_with_special():
        raise InputError(
            f"The tokenizer in {folder} puts a space before the first word of a text only, and its chat template begins "
            "with a word: llama.cpp would put one after every special token.",
            "choose another base: ai-forge models.",
        )
    unknown = data["model"].get("unk_token")
    for index, token in enumerate(tokens):
        if BYTE_TOKEN.fullmatch(token):
            types[index] = BYTE
        elif token == unknown:
            types[index] = UNKNOWN
    merges = merge_pairs(data["model"])
    added = frozenset(row["content"] for row in data.get("added_tokens", []))
    return {
        "tokenizer.ggml.model": string(SENTENCEPIECE),
        "tokenizer.ggml.pre": string("default"),
        "tokenizer.ggml.scores": float32s(scores_from_merges(tokens, merges, added)),
        "tokenizer.ggml.add_space_prefix": boolean(prefix == "always"),
    }


def _tokens(data: Mapping[str, Any], vocab_size: int, path: Path) -> tuple[list[str], list[int]]:
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]  # embeddings without a token, as the converter names them
    types = [UNUSED] * vocab_size
    added = {row["id"]: row for row in data.get("added_tokens", [])}
    named = [(row["content"], index) for index, row in added.items()]
    for token, index in [*data["model"]["vocab"].items(), *named]:
        if not 0 <= index < vocab_size:
            raise InputError(f"{path}: token {token!r} has id {index}, the model has {vocab_size} embeddings.")
        tokens[index], types[index] = token, NORMAL
    if len(set(tokens)) < len(tokens):  # llama.cpp aborts the process on them
        twice = next(token for index, token in enumerate(tokens) if tokens.index(token) < index)
        raise InputError(
            f"{path} writes two tokens as {twice!r}, which a GGUF cannot tell apart.",
            "choose another base: ai-forge models.",
        )
    for index, row in added.items():
        token = row["content"]
        # some models forget to mark these as special; llama.cpp's converter knows them by their looks
        looks_special = token == "<pad>" or (token[:2], token[-2:]) in (("<|", "|>"), ("<｜", "｜>"))
        types[index] = CONTROL if row.get("special") or looks_special else USER_DEFINED
    return tokens, types


def _special_ids(folder: Path, data: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, bytes]:
    ids = {row["content"]: row["id"] for row in data.get("added_tokens", [])}
    settings = tokenizer_settings(folder, ids.__contains__)
    values = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = ids.get(settings.get(f"{role}_token"), config.get(f"{role}_token_id"))
        if isinstance(index, int):
            values[f"tokenizer.ggml.{key}_token_id"] = uint32(index)
    return values
