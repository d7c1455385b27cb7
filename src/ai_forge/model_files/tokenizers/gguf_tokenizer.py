"""From a GGUF's tokenizer metadata to `tokenizer.json` and `tokenizer_config.json`, with the ids of llama.cpp.

Method: the JSON is built from tokens, merges, token types and the pre-tokenizer's name; no tokenizer is
"converted" by a library that guesses. The class name written is `PreTrainedTokenizerFast`, because the
model-specific classes of transformers 5 rebuild the pre-tokenizer and lose the digits rule. (For model_type qwen2 its
AutoTokenizer takes its own class whatever the file says; that one splits alike but normalises to NFC.)

Measured: 0.3 s for SmolLM2's 49k tokens (transformers' GGUF loader: about 25 s). Ids equal llama.cpp's on 70 of 70
standard-library files. Byte-level BPE ("gpt2" in GGUF's words) and SentencePiece's BPE ("llama", see `spm_vocabulary`);
unigram, WordPiece and others are refused.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject
from ai_forge.model_files.tokenizers.pretokenizers import WHOLE_PIECES, byte_level, pre_tokenizer_json
from ai_forge.model_files.tokenizers.spm_vocabulary import SPACE, decoder_json, merges_from_scores, normalizer_json
from ai_forge.prompting.chat_templates import END_TOKENS

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's numbers
BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"  # the kinds of vocabulary that are carried over, in GGUF's words

PHI3_NAME = re.compile(r"phi-?3", re.IGNORECASE)
# llama.cpp drops the whitespace after every special token but these where `general.name` says Phi-3, and nowhere else
PHI3_UNSTRIPPED = frozenset({"<unk>", "<s>", "<|endoftext|>"})


def tokenizer_files(metadata: Mapping[str, Any]) -> dict[str, JsonObject]:
    """`tokenizer.json`, `tokenizer_config.json` and `generation_config.json` for a GGUF's metadata.

    Raises:
        InputError: the vocabulary is missing, inconsistent, or of a kind that is not byte-level BPE.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind not in (BYTE_LEVEL, SENTENCEPIECE):
        raise InputError(
            f"The GGUF's vocabulary is of kind {kind!r}; only byte-level BPE ('{BYTE_LEVEL}') and SentencePiece "
            f"('{SENTENCEPIECE}') can be carried over exactly.",
            "name the original Hugging Face model instead of the GGUF.",
        )
    tokens: list[str] = metadata.get("tokenizer.ggml.tokens", [])
    types: list[int] = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    vocab = {token: i for i, token in enumerate(tokens)}
    if not tokens or len(vocab) != len(tokens) or len(types) != len(tokens):
        raise InputError(
            f"The GGUF's vocabulary is damaged: {len(tokens)} tokens, {len(vocab)} distinct, {len(types)} types."
        )
    bos = token_at(metadata, tokens, "bos")
    adds_by_default = kind == SENTENCEPIECE or metadata.get("tokenizer.ggml.pre") in WHOLE_PIECES
    add_bos = bos is not None and bool(metadata.get("tokenizer.ggml.add_bos_token", adds_by_default))
    apart: tuple[int, ...] = (CONTROL, USER_DEFINED)  # looked for in the text before anything is split
    if kind == BYTE_LEVEL:
        parts = _byte_level_parts(metadata, vocab)
    else:
        parts = _sentencepiece_parts(metadata, tokens, types)
        apart = (*apart, UNKNOWN)
    if add_bos:
        parts["post_processor"] = _with_begin_token(str(bos), vocab, parts["post_processor"])
    strips = bool(PHI3_NAME.search(str(metadata.get("general.name", ""))))
    added = []
    for index, (token, type_) in enumerate(zip(tokens, types, strict=True)):
        if type_ in apart:
            rstrip = strips and token not in PHI3_UNSTRIPPED
            flags = {"single_word": False, "lstrip": False, "rstrip": rstrip, "normalized": False}
            added.append({"id": index, "content": token, **flags, "special": type_ != USER_DEFINED})
    # the order of the keys is that of published files
    first = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return {
        "tokenizer.json": first | parts,
        "tokenizer_config.json": _config(metadata, tokens, add_bos=add_bos),
        "generation_config.json": _generation_config(metadata, vocab),
    }


_BPE: JsonObject = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


def _byte_level_parts(metadata: Mapping[str, Any], vocab: Mapping[str, int]) -> JsonObject:
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    merges = _merges(metadata.get("tokenizer.ggml.merges", []), vocab)
    return {
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer_json(pre),
        "post_processor": byte_level(use_regex=True),
        "decoder": byte_level(use_regex=True),
        "model": _BPE | {"ignore_merges": pre in WHOLE_PIECES, "vocab": vocab, "merges": merges},
    }


def _sentencepiece_parts(metadata: Mapping[str, Any], tokens: list[str], types: list[int]) -> JsonObject:
    scores: list[float] = metadata.get("tokenizer.ggml.scores", [])
    if len(scores) != len(tokens):
        raise InputError(f"The GGUF's vocabulary is damaged: {len(tokens)} tokens, {len(scores)} scores.")
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    # others are taken out of the text before anything is merged
    reached = [
        kind == NORMAL or (kind == USER_DEFINED and SPACE in token) for token, kind in zip(tokens, types, strict=True)
    ]
    model = {
        "unk_token": token_at(metadata, tokens, "unknown"),
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges_from_scores(tokens, scores, reached),
    }
    return {
        "normalizer": normalizer_json(add_space_prefix=prefix),
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": decoder_json(add_space_prefix=prefix),
        "model": _BPE | model,
    }


def token_at(metadata: Mapping[str, Any], tokens: list[str], role: str) -> str | None:
    """The token of a role ("bos", "eos", "padding", "unknown"), or None where the file names none."""
    index = metadata.get(f"tokenizer.ggml.{role}_token_id")
    if index is None:
        return None
    if not isinstance(index, int) or not 0 <= index < len(tokens):
        raise InputError(f"The GGUF's {role} token {index!r} is outside its vocabulary of {len(tokens)}.")
    return tokens[index]


def _merges(lines: list[str], vocab: Mapping[str, int]) -> list[list[str]]:
    pairs = []
    for line in lines:
        rest, space, right = line[1:].partition(" ")  # from the second character on: the first may be a space itself
        left = line[:1] + rest
        if not space or left not in vocab or right not in vocab or left + right not in vocab:
            raise InputError(f"The GGUF's vocabulary is damaged: the merge {line!r} leads outside it.")
        pairs.append([left, right])
    return pairs


def _with_begin_token(bos: str, vocab: Mapping[str, int], before: JsonObject | None) -> JsonObject:
    template: JsonObject = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"SpecialToken": {"id": bos, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": bos, "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {bos: {"id": bos, "ids": [vocab[bos]], "tokens": [bos]}},
    }
    return {"type": "Sequence", "processors": [before, template]} if before else template


def _config(metadata: Mapping[str, Any], tokens: list[str], *, add_bos: bool) -> JsonObject:
    arch = metadata.get("general.architecture")
    config: JsonObject = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": int(metadata.get(f"{arch}.context_length", 0)) or int(1e30),
        "clean_up_tokenization_spaces": False,
        "add_prefix_space": False,
        "add_bos_token": add_bos,
        "add_eos_token": bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
    }
    for key, role in (("bos_token", "bos"), ("eos_token", "eos"), ("unk_token", "unknown"), ("pad_token", "padding")):
        if (token := token_at(metadata, tokens, role)) is not None:
            config[key] = token
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


def _generation_config(metadata: Mapping[str, Any], vocab: Mapping[str, int]) -> JsonObject:
    eos = metadata.get("tokenizer.ggml.eos_token_id")
    # llama.cpp ends generation at these whatever the file's eos is (llama-vocab.cpp, special_eog_ids)
    ends = [vocab[token] for token in END_TOKENS if token in vocab and vocab[token] != eos]
    if eos is not None:
        ends.insert(0, eos)
    config: JsonObject = {"eos_token_id": ends}
    for key, role in (("bos_token_id", "bos"), ("pad_token_id", "padding")):
        if (index := metadata.get(f"tokenizer.ggml.{role}_token_id")) is not None:
            config[key] = index
    return config


def write_tokenizer(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the three files into `folder`."""
    for name, content in tokenizer_files(metadata).items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=None), encoding="utf-8")
