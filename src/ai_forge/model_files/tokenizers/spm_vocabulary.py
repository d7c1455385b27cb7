"""SentencePiece vocabularies (Llama 2, Mistral, Phi-3, Gemma): the ranked merges of `tokenizer.json` and llama.cpp's scores.

Two rules make the same tokens of a text. Hugging Face joins the neighbours whose pair ranks first among the listed
`merges`; llama.cpp ("llama" in GGUF's words) joins any two neighbours that together are a token, that of the highest score
first, the left one of equals. They agree where the merges are *all* ways of splitting a token into two tokens, and those of
one token stand together: its score then is minus their place. Runs of one character may share a score (Mistral's spaces do)
where growing from the left gives what the ranks give, which is tried. What is listed otherwise is refused, in either
direction: no scores would give its ids.

What is left out: two ways to make the *same* token that overlap, where Hugging Face takes the better ranked and llama.cpp
the left one. Measured on 70 files of the standard library and some odd texts: none of 78 differs with Gemma 3's vocabulary
(504,348 tokens) and with Mistral's; with the score −1000 for all, which the official converter gives a bare
`tokenizer.json`, 74 of 78 do (Mistral).
Sources: llama.cpp `src/llama-vocab.cpp` (llm_tokenizer_spm_session), transformers `convert_slow_tokenizer.generate_merges`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, cast

from ai_forge.errors import InputError
from ai_forge.json_lines import JsonObject

SPACE = "▁"  # stands for a space inside tokens
UNREACHED = -1e6  # the score of a token that no merge makes; the rank of a merge stays above it
BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")

# where a space is put in: before every text between special tokens, before the first one only, nowhere
Prefix = Literal["always", "first", "never"]

_PREPEND: JsonObject = {"type": "Prepend", "prepend": SPACE}
_REPLACE: JsonObject = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def normalizer_json(*, add_space_prefix: bool) -> JsonObject:
    """The `normalizer` of `tokenizer.json`."""
    if add_space_prefix:
        return {"type": "Sequence", "normalizers": [_PREPEND, _REPLACE]}
    return _REPLACE


def decoder_json(*, add_space_prefix: bool) -> JsonObject:
    """The `decoder` of `tokenizer.json`: spaces, bytes, and the space that was put in taken off."""
    steps: list[JsonObject] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if add_space_prefix:
        steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": steps}


def space_prefix(data: Mapping[str, Any]) -> Prefix:
    """Where the tokenizer of a `tokenizer.json` puts a space in.

    Raises:
        InputError: it changes or cuts text in another way than llama.cpp does.
    """
    normal = _flat(data.get("normalizer"), "normalizers")
    # Gemma's `tokenizer.json` cuts at spaces, of which its normalizer has left none
    at_spaces = {"String": " "}
    steps = _flat(data.get("pre_tokenizer"), "pretokenizers")
    cuts = [step for step in steps if step.get("type") != "Split" or step.get("pattern") != at_spaces]
    if not cuts and normal in ([_PREPEND, _REPLACE], [_REPLACE]):
        return "always" if normal[0] == _PREPEND else "never"
    if not normal and len(cuts) == 1 and cuts[0].get("type") == "Metaspace":
        step = cuts[0]
        scheme = step.get("prepend_scheme", "always")
        if step.get("replacement") == SPACE and step.get("split") is False and scheme in ("first", "never"):
            return cast(Prefix, scheme)
    raise InputError(
        f"The tokenizer's way of treating spaces is not llama.cpp's: normalizer {data.get('normalizer')}, "
        f"pre-tokenizer {data.get('pre_tokenizer')}.",
        "use a base of a known family (Llama 2, Mistral, Phi-3, Gemma).",
    )


def _flat(step: JsonObject | None, parts: str) -> list[JsonObject]:
    if not step:
        return []
    if step.get("type") != "Sequence":
        return [step]
    return [part for inner in step[parts] for part in _flat(inner, parts)]


def splits(token: str, vocab: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Every way of writing `token` as two tokens, the longest left one first.

    >>> list(splits("abc", {"a": 0, "ab": 1, "bc": 2, "c": 3}))
    [('ab', 'c'), ('a', 'bc')]
    """
    for at in range(len(token) - 1, 0, -1):
        if token[:at] in vocab and token[at:] in vocab:
            yield token[:at], token[at:]


def merge_pairs(model: Mapping[str, Any]) -> list[list[str]]:
    """The merges of a `tokenizer.json`'s model, as pairs; older files write a pair as one string."""
    return [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model.get("merges", [])]


def merges_from_scores(tokens: Sequence[str], scores: Sequence[float], reached: Sequence[bool]) -> list[list[str]]:
    """The ranked merges that make llama.cpp's tokens. `reached` tells the tokens that merging can end at.

    Raises:
        InputError: tokens that merging can end at share a score; llama.cpp then takes the left one, which no ranks say.
    """
    vocab = {token: index for index, token in enumerate(tokens)}
    entries = []
    equals: dict[float, list[str]] = {}
    for index, token in enumerate(tokens):
        pairs = list(splits(token, vocab))
        if pairs and reached[index]:
            equals.setdefault(scores[index], []).append(token)
        # runs of one character stand together whatever their ids: among equals, growing from the left has to rank first
        of_token = (token[:1], 0) if _is_run([token]) else ("", index)
        entries += [(-scores[index], *of_token, -len(left), -len(right), left, right) for left, right in pairs]
    entries.sort()
    merges = [[left, right] for *_, left, right in entries]
    for score, same in equals.items():
        if len(same) > 1 and not _runs_end_alike(same, merges, lambda token: scores[vocab[token]]):
            raise InputError(
                f"The GGUF gives {len(same)} tokens one score ({score:g}), among them {same[0]!r} and {same[1]!r}: "
                "their order cannot be carried over exactly.",
                "name the original Hugging Face model instead of the GGUF.",
            )
    return merges


def scores_from_merges(tokens: Sequence[str], merges: Sequence[Sequence[str]], added: frozenset[str]) -> list[float]:
    """llama.cpp's score of each token. `added` are matched before anything is merged.

    Raises:
        InputError: llama.cpp would merge otherwise than the listed merges.
    """
    vocab = {token: index for index, token in enumerate(tokens)}
    last_rank: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        if left + right not in vocab or left not in vocab or right not in vocab:
            raise InputError(f"The tokenizer is damaged: the merge {left!r} {right!r} leads outside its vocabulary.")
        last_rank[left + right] = rank
    scores = [UNREACHED] * len(tokens)
    tied: list[list[str]] = []
    # Merges stand together from the first of a token to its last, with all that lies between: llama.cpp ranks tokens, not
    # pairs, so what stands together gets one score.
    first, end = 0, -1
    for rank, (left, right) in enumerate(merges):
        if rank > end:
            first = rank
        end = max(end, last_rank[left + right])
        scores[vocab[left + right]] = -float(first)
        if rank == end:
            together = merges[first : end + 1]
            made = list(dict.fromkeys(a + b for a, b in together))
            if len(made) > 1:
                tied.append(made)
    for made in tied:
        if not _runs_end_alike(made, merges, lambda token: scores[vocab[token]]):
            raise _unequal(f"the merges that make {made[0]!r} do not rank next to each other")
    listed = {(left, right) for left, right in merges}
    # llama.cpp joins any two neighbours that make a token, listed or not
    for token in tokens:
        if BYTE_TOKEN.fullmatch(token) or (token in added and SPACE not in token):
            continue
        for left, right in splits(token, vocab):
            if (left, right) not in listed and not {left, right} & added:
                raise _unequal(f"{left!r} and {right!r} are not merged though {token!r} is a token")
    return scores


def _is_run(tokens: Sequence[str]) -> bool:
    return len(set("".join(tokens))) == 1


def _runs_end_alike(tokens: Sequence[str], merges: Sequence[Sequence[str]], score: Callable[[str], float]) -> bool:
    """Whether `tokens` are runs of one character, and ranks and scores make the same of every run of it.

    Tried up to three times the length of its longest token.
    """
    if not _is_run(tokens):
        return False
    character = tokens[0][0]
    ranks: dict[tuple[int, int], float] = {}
    levels: dict[tuple[int, int], float] = {}
    for rank, (left, right) in enumerate(merges):
        if _is_run([left, right, character]):
            pair = len(left), len(right)
            ranks[pair], levels[pair] = rank, -score(left + right)
    longest = max(map(sum, ranks))
    return all(_merged(n, ranks) == _merged(n, levels) for n in range(2, 3 * longest))


def _merged(n: int, ranks: Mapping[tuple[int, int], float]) -> list[int]:
    """Lengths of the pieces that a run of `n` characters ends in, the best rank first, the left one of equals."""
    pieces = [1] * n
    while found := [(ranks[pair], at) for at, pair in enumerate(pairwise(pieces)) if pair in ranks]:
        at = min(found)[1]
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def _unequal(what: str) -> InputError:
    return InputError(
        f"llama.cpp would cut text otherwise than this tokenizer: {what}.",
        "use a base whose tokenizer.json was made from a SentencePiece model.",
    )
