"""How text is cut before BPE: llama.cpp's `tokenizer.ggml.pre` names and Hugging Face's JSON, in both directions.

Method: one table. Importing a GGUF turns the name into the pre-tokenizer of a `tokenizer.json`; exporting recognises
the name from the split expressions in `tokenizer.json` itself. The official converter recognises it by hashing the ids
of one text, which fails for any tokenizer that gained a token ("BPE pre-tokenizer was not recognized").

Measured: reading SmolLM2 with GPT-2's splitting (what the usual GGUF loaders do) gives other ids than llama.cpp on 12
of 65 standard-library files; with this table on none.

Unicode normalisation (Qwen2's published tokenizer asks for NFC) is left out on import, because llama.cpp does none:
the trainer must see what the runtime will see. SentencePiece vocabularies are not covered.
Source of the expressions: llama.cpp `src/llama-vocab.cpp` and the families' published `tokenizer.json`.
"""

from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"


def _split(pattern: str) -> JsonObject:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def byte_level(*, use_regex: bool) -> JsonObject:
    """The step by which text becomes GPT-2's letters; `use_regex` splits it as GPT-2 does first."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_DIGITS: JsonObject = {"type": "Digits", "individual_digits": True}

# llama.cpp's name → the steps of the pre-tokenizer
STEPS: dict[str, list[JsonObject]] = {
    "gpt-2": [byte_level(use_regex=True)],
    "smollm": [_DIGITS, byte_level(use_regex=True)],
    "llama-bpe": [_split(_LLAMA3), byte_level(use_regex=False)],
    "qwen2": [_split(_QWEN2), byte_level(use_regex=False)],
    "deepseek-coder": [
        _split("[\r\n]"),
        _split(r"\s?\p{L}+"),
        _split(r"\s?\p{P}+"),
        _split("[一-龥ࠀ-一가-퟿]+"),
        _DIGITS,
        byte_level(use_regex=False),
    ],
    "default": [
        _split(r"[\p{P}\$\+<=>\^~\|]+"),
        _split(_GPT2),
        _split(r"\p{N}+"),
        _split("[0-9][0-9][0-9]"),
        byte_level(use_regex=False),
    ],
}

# names that llama.cpp treats alike
ALIASES = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe",
    "smaug-bpe": "llama-bpe",
    "dbrx": "llama-bpe",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
    "codeshell": "smollm",
    "phi-2": "gpt-2",
    "mpt": "gpt-2",
    "olmo": "gpt-2",
    "deepseek-r1-qwen": "qwen2",
    "megrez": "qwen2",
    "stablelm2": "qwen2",
}

# llama.cpp takes a whole piece that is a token before it tries merges, and adds the begin token unless told otherwise
WHOLE_PIECES = {"llama-bpe", "llama3", "llama-v3", "falcon3"}
# the name under which llama.cpp splits alike, but takes no whole pieces
_BY_MERGES_ONLY = {"llama-bpe": "smaug-bpe"}


def pre_tokenizer_json(name: str) -> JsonObject:
    """The `pre_tokenizer` entry of `tokenizer.json` for llama.cpp's name. Raises `InputError` for an unknown one."""
    steps = STEPS.get(ALIASES.get(name, name))
    if steps is None:
        raise InputError(
            f"The GGUF's tokenizer splits text as {name!r}, which AI Forge does not know "
            f"(known: {', '.join(sorted([*STEPS, *ALIASES]))}).",
            "name the original Hugging Face model instead of the GGUF.",
        )
    if len(steps) == 1:
        return steps[0]
    return {"type": "Sequence", "pretokenizers": steps}


def recognise(pre_tokenizer: JsonObject | None, ignore_merges: bool = False) -> str:
    """llama.cpp's name for the `pre_tokenizer` entry of a `tokenizer.json`, from its split expressions.

    `ignore_merges`: the model takes a whole piece that is a token before it tries merges.

    >>> recognise({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True})
    'gpt-2'
    """
    steps = [_entry(step) for step in _flatten(pre_tokenizer)]
    for name, known in STEPS.items():
        if steps == [_entry(step) for step in known]:
            return name if ignore_merges else _BY_MERGES_ONLY.get(name, name)
    raise InputError(
        f"The tokenizer's way of splitting text is not one llama.cpp knows by name: {steps}.",
        f"use a base of a known family ({', '.join(STEPS)}).",
    )


def _flatten(pre_tokenizer: JsonObject | None) -> list[JsonObject]:
    if not pre_tokenizer:
        return []
    if pre_tokenizer.get("type") == "Sequence":
        return [step for part in pre_tokenizer.get("pretokenizers", []) for step in _flatten(part)]
    return [pre_tokenizer]


def _entry(step: JsonObject) -> tuple[str, str]:
    """What of a step decides the cuts, and nothing else: its kind, and its expression or option."""
    kind = str(step.get("type"))
    if kind == "Split":
        pattern = step.get("pattern", {})
        expression = str(pattern.get("Regex", pattern.get("String", "")))
        if expression in (r"\p{N}", r"\d"):  # one digit at a time, written as an expression
            return ("Digits", "True")
        # Qwen writes the contractions with or without the leading group; the cut is the same
        return ("Split", expression.replace("'(?i:[sdmt]|ll|ve|re)", _CONTRACTIONS))
    if kind == "Digits":
        return ("Digits", str(bool(step.get("individual_digits"))))
    if kind == "ByteLevel":
        # known steps add none, so a tokenizer that does is recognised as none of them
        spaces = "prefix space, " if step.get("add_prefix_space") else ""
        return ("ByteLevel", f"{spaces}regex={bool(step.get('use_regex', True))}")
    return (kind, str({key: value for key, value in step.items() if key != "type"}))
