"""SentencePiece vocabularies (Llama 2, Mistral, Phi-3, Gemma): the ranked merges of `tokenizer.json` and llama.cpp's scores.

Two rules make the same tokens of a text. Hugging Face joins the neighbours whose pair ranks first among the listed
`merges`; llama.cpp ("llama" in GGUF's words) joins any two neighbours that together are a token, that of the highest score
first. They agree where the merges are *all* ways of splitting a token into two tokens, and those of one token stand
together: the token's score then is minus the place of its merges. What is listed otherwise is refused, in either direction:
no scores would give its ids.

What is left out: two ways to make the *same* token that overlap (runs of one character), where Hugging Face takes the
better ranked and llama.cpp the left one. Measured on the tests' files: no difference.
Sources: llama.cpp `src/llama-vocab.cpp` (llm_tokenizer_spm_session), transformers `convert_slow_tokenizer.generate_merges`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from ai_forge.errors import InputError

SPACE = "▁"
"""What stands for a space inside tokens."""
UNREACHED = -1e6
"""The score of a token that no merge makes; the rank of a merge stays above it."""
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")

JSON = dict[str, Any]
Prefix = Literal["always", "first", "never"]
"""Where a space is put in: before every text between special tokens, before the first one only, nowhere."""

_PREPEND: JSON = {"type": "Prepend", "prepend": SPACE}
_REPLACE: JSON = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def normalizer_json(*, add_space_prefix: bool) -> JSON:
    """The `normalizer` of `tokenizer.json`."""
    return {"type": "Sequence", "normalizers": [_PREPEND, _REPLACE]} if add_space_prefix else _REPLACE


def decoder_json(*, add_space_prefix: bool) -> JSON:
    """The `decoder` of `tokenizer.json`: spaces, bytes, and the space that was put in taken off."""
    steps: list[JSON] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {"type": "Sequence", "decoders": [*steps, strip] if add_space_prefix else steps}


def space_prefix(data: Mapping[str, Any]) -> Prefix:
    """Where the tokenizer of a `tokenizer.json` puts a space in.

    Raises:
        InputError: it changes or cuts text in another way than llama.cpp does.
    """
    normal = _flat(data.get("normalizer"), "normalizers")
    cuts = [step for step in _flat(data.get("pre_tokenizer"), "pretokenizers") if not _cuts_at_spaces(step)]
    if not cuts and normal in ([_PREPEND, _REPLACE], [_REPLACE]):
        return "always" if normal[0] == _PREPEND else "never"
    if not normal and len(cuts) == 1 and cuts[0].get("type") == "Metaspace":
        step = cuts[0]
        scheme = step.get("prepend_scheme", "always")
        if step.get("replacement") == SPACE and step.get("split") is False and scheme in ("first", "never"):
            return "first" if scheme == "first" else "never"
    raise InputError(
        f"The tokenizer's way of treating spaces is not llama.cpp's: normalizer {data.get('normalizer')}, "
        f"pre-tokenizer {data.get('pre_tokenizer')}.",
        "use a base of a known family (Llama 2, Mistral, Phi-3, Gemma).",
    )


def _flat(step: JSON | None, parts: str) -> list[JSON]:
    if not step:
        return []
    return [part for inner in step[parts] for part in _flat(inner, parts)] if step.get("type") == "Sequence" else [step]


def _cuts_at_spaces(step: JSON) -> bool:
    """Gemma's `tokenizer.json` cuts at spaces, of which its normalizer has left none."""
    return step.get("type") == "Split" and step.get("pattern") == {"String": " "}


def splits(token: str, vocab: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Every way of writing `token` as two tokens, the longest left one first.

    >>> list(splits("abc", {"a": 0, "ab": 1, "bc": 2, "c": 3}))
    [('ab', 'c'), ('a', 'bc')]
    """
    for at in range(len(token) - 1, 0, -1):
        if token[:at] in vocab and token[at:] in vocab:
            yield token[:at], token[at:]


def merges_from_scores(tokens: Sequence[str], scores: Sequence[float], reached: Sequence[bool]) -> list[list[str]]:
    """The ranked merges that make llama.cpp's tokens. `reached` tells the tokens that merging can end at.

    Raises:
        InputError: two tokens that merging can end at have one score; llama.cpp then takes the left one, which no ranks say.
    """
    vocab = {token: index for index, token in enumerate(tokens)}
    made = [(index, pairs) for index, token in enumerate(tokens) if (pairs := list(splits(token, vocab)))]
    seen: dict[float, str] = {}
    for index, _ in made:
        if reached[index] and (other := seen.setdefault(scores[index], tokens[index])) != tokens[index]:
            raise InputError(
                f"The GGUF gives the tokens {other!r} and {tokens[index]!r} one score ({scores[index]:g}): "
                "their order cannot be carried over exactly.",
                "name the original Hugging Face model instead of the GGUF.",
            )
    made.sort(key=lambda entry: (-scores[entry[0]], entry[0]))
    return [list(pair) for _, pairs in made for pair in pairs]


def scores_from_merges(tokens: Sequence[str], merges: Sequence[Sequence[str]], added: frozenset[str]) -> list[float]:
    """llama.cpp's score of each token. `added` are matched before anything is merged.

    Raises:
        InputError: llama.cpp would merge otherwise than the listed merges.
    """
    vocab = {token: index for index, token in enumerate(tokens)}
    scores = [UNREACHED] * len(tokens)
    listed = {(left, right) for left, right in merges}
    last = ""
    for rank, (left, right) in enumerate(merges):
        token = left + right
        index = vocab.get(token)
        if index is None or left not in vocab or right not in vocab:
            raise InputError(f"The tokenizer is damaged: the merge {left!r} {right!r} leads outside its vocabulary.")
        if token != last and scores[index] != UNREACHED:
            raise _unequal(f"the merges that make {token!r} do not rank next to each other")
        if token != last:
            scores[index] = -float(rank)
        last = token
    for token in tokens:
        if BYTE_TOKEN.fullmatch(token) or (token in added and SPACE not in token):
            continue
        for left, right in splits(token, vocab):
            if (left, right) not in listed and not {left, right} & added:
                raise _unequal(f"{left!r} and {right!r} are not merged though {token!r} is a token")
    return scores


def _unequal(what: str) -> InputError:
    return InputError(
        f"llama.cpp would cut text otherwise than this tokenizer: {what}.",
        "use a base whose tokenizer.json was made from a SentencePiece model.",
    )
