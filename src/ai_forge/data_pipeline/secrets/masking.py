"""Secrets in any text, found and masked: the one gate between what is read and what is trained on.

`scrub` takes bytes of code, notes, notebooks or commit messages and gives them back with every secret's value replaced by
a placeholder. Lines stay lines, so citations still hold. Four searches, each cheap until it meets a suspect:

* known forms (`patterns.py` and `detect-secrets`) around long runs of letters and digits and around a few literals;
* key blocks (`-----BEGIN … PRIVATE KEY-----`), whole, and passwords in URLs;
* values given to names such as `password`, `api_key`, `token`, unless they are placeholders or plain words;
* runs that look random (`values.py`), unless the line says that they are hashes; runs that decode to text (base64)
  are searched in turn, as deep as they are wrapped.

CPU time on CPython's library: 0.9 s for 31 MB. Not found: a password that is a plain word, a value put
together from pieces, anything encrypted.
"""

import base64
import binascii
import re
import string
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pydantic import BaseModel

from ai_forge.data_pipeline.secrets.passwords import chosen_passwords
from ai_forge.data_pipeline.secrets.patterns import (
    ANCHORED,
    LITERALS,
    detect_secrets_patterns,
    form_of,
    known_forms,
    value_span,
)
from ai_forge.data_pipeline.secrets.values import is_hex, looks_random, may_be_chance, may_be_secret, names_a_hash

__all__ = [
    "PLACEHOLDER",
    "Scrubbed",
    "Secret",
    "find_secrets",
    "is_name_clean",
    "mask",
    "scrub",
    "scrub_text",
    "without_secrets",
]

Value = TypeVar("Value", bound=BaseModel)

PLACEHOLDER = "<masked>"
# Fields of a document that hold git's ids: 40 hexadecimal digits look like a key, and none is ever shown.
_OBJECT_IDS = ("commit", "blob")
_RUN = 20
# What runs are made of becomes `x`, all else a blank: a run is then found by `find`, without a pattern.
_RUN_TABLE = bytearray(b" " * 256)
for _sign in string.ascii_letters + string.digits + "+/_-":
    _RUN_TABLE[ord(_sign)] = ord("x")
_PRINTABLE = bytes((*b"\n\r\t", *range(32, 127)))
_MAX_DEPTH = 3
_NAME_STEMS = ("passw", "passphrase", "pwd", "secret", "token", "credential", "authorization", "key")
# Which keys are secrets: not those of a dictionary.
_KEY_OF = re.compile(
    r"(?:api|access|private|secret|sign|signing|encrypt|encryption|client|account|auth|storage|master)[_-]?key"
)
# After the stem: the rest of the name, closing quotes, a type, a sign of assignment or of a call, the value. Every repetition
# is bounded, so hostile text costs what its length does.
_ASSIGNED = re.compile(
    r"""(?P<rest>[\w-]{0,40})(?:\\?["'\])`]){0,3}\s{0,8}(?::\s{0,4}[A-Za-z][\w.\[\]| ]{0,40}?\s{0,4}(?==))?"""
    r"""(?::=|=>|->|[!=]==?|=|:|,|\()\s{0,8}(?:@|[rbufRBUF]{1,2})?"""
    r"""(?:\\?(?P<quote>["'`])(?P<quoted>[^"'`\s\\]{6,256})\\?(?P=quote)|(?P<bare>[^\s"'`;,<>(){}\[\]\\]{8,256}))"""
)
# `token_type` and `password_field` name no secret, whatever is given to them.
_ARGUMENT_NOT = re.compile(
    r"(?:name|type|file|path|url|uri|field|header|prefix|len|length|size|count|env|var|label|hint|prompt|pattern|regex|"
    r"error|message|msg|class|handler|column|format|method|mode|scheme|algorithm|kind|list|endpoint)s?$",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(?:bearer|basic|token)\s+(?P<v>[A-Za-z0-9._~+/=-]{16,})", re.IGNORECASE)
_URL = re.compile(r"://[^\s/:@\"'`<>{}]{0,80}:(?P<v>[^\s/@\"'`<>{}]{3,200})@(?=[\w\[.%{$-])")
_KEY_HEAD = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_MARK = re.compile(r"-----(?:END|BEGIN)")
_MAX_BLOCK = 20_000  # characters; a head that is never closed must not reach through a file
_KEY_TEXT = re.compile(r"-----(?:BEGIN|END) [A-Z0-9 ]+-----|[A-Za-z0-9+/=]{8,}")
_PUBLIC_HEAD = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}(?:CERTIFICATE|PUBLIC KEY|REQUEST|CRL|PARAMETERS)(?: BLOCK)?-----"
)
_TABLE_LINE = re.compile(r"[ \t]*[bru]{0,2}[\"']?[A-Za-z0-9+/=]{60,}(?:\\n)?[\"']?[ \t]*\\?")
# Between two lines of one wrapped text.
_GOES_ON = re.compile(r"(?:\\n)?[\"']?[ \t+\\]*\n[ \t]*[bru]{0,2}[\"']?")
_TAIL = re.compile(_GOES_ON.pattern + r"([A-Za-z0-9+/]{2,19})(?![\w+/-])")


class Secret(NamedTuple):
    """Where a secret's value lies, in bytes, and what kind it is."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Scrubbed:
    """Text without its secrets; `lines` are the line numbers (from 1) on which something was masked, `spans` the bytes."""

    content: bytes
    kinds: Counter[str]
    lines: frozenset[int]
    spans: tuple[tuple[int, int], ...] = ()


def scrub(content: bytes, placeholder: str = PLACEHOLDER) -> Scrubbed:
    """Mask every secret of `content` (UTF-8 or any other superset of ASCII).

    >>> scrub(b"URL = 'https://me:s3cr3t-w0rd@db.local/'").content
    b"URL = 'https://me:<masked>@db.local/'"
    """
    found = find_secrets(content)
    if not found:
        return Scrubbed(content, Counter(), frozenset())
    starts = [0] + [match.end() for match in re.finditer(rb"\n", content)]
    lines: set[int] = set()
    for secret in found:
        lines.update(range(bisect_right(starts, secret.start), bisect_right(starts, secret.end - 1) + 1))
    spans = tuple((secret.start, secret.end) for secret in found)
    kinds = Counter(secret.kind for secret in found)
    return Scrubbed(mask(content, spans, placeholder), kinds, frozenset(lines), spans)


def mask(content: bytes, spans: Sequence[tuple[int, int]], placeholder: str = PLACEHOLDER) -> bytes:
    """`content` with the placeholder in the place of each span, of which none overlap."""
    pieces: list[bytes] = []
    position = 0
    for start, end in spans:
        pieces += (content[position:start], _instead(content, start, end, placeholder.encode()))
        position = end
    return b"".join((*pieces, content[position:]))


def _instead(content: bytes, start: int, end: int, placeholder: bytes) -> bytes:
    """What stands in the place of a secret: where no quotes are around it a plain word, so that code still parses."""
    # In a shell `KEY=<masked>` would read from a file, in Python `f(key=<masked>)` is no expression.
    before = content[content.rfind(b"\n", 0, start) + 1 : start]
    in_quotes = any(before.count(quote) % 2 for quote in (b'"', b"'", b"`"))
    is_comment = before.lstrip().startswith((b"#", b"//", b"*", b"/*"))
    is_word = not is_comment and content[end : end + 1] in (b"", b"\n", b" ", b"\t", b",", b")", b";", b"]", b"}")
    if not is_word or in_quotes:
        return placeholder
    return re.sub(rb"\W", b"", placeholder) or b"masked"


def scrub_text(text: str, placeholder: str = PLACEHOLDER) -> str:
    """`scrub` for text: a document's section, a commit message, a note.

    >>> scrub_text("export API_KEY=k3J9xQ2vTz81")
    'export API_KEY=masked'
    """
    scrubbed = scrub(text.encode("utf-8", "surrogatepass"), placeholder)
    return scrubbed.content.decode("utf-8", "surrogatepass")


def is_name_clean(path: str) -> bool:
    """Whether the name of a file holds no secret of a known form. What looks random in one is a hash.

    >>> is_name_clean("tests/data/9c3dacf8086f8d47efd12faf5d7b1a66c6979931.json"), is_name_clean("keys/npm_" + "a1B2c3D4e5F6" * 3)
    (True, False)
    """
    # a part a line: a slash may be a letter of base64, and would make one run of all of them
    found = find_secrets(path.replace("/", "\n").encode("utf-8", "surrogatepass"))
    return all(secret.kind in ("random", "base64", "chosen_password") for secret in found)


def find_secrets(content: bytes) -> list[Secret]:
    """The secrets of `content`, in order, none overlapping."""
    return _merged(_search(content, _MAX_DEPTH))


def _merged(found: Iterator[Secret]) -> list[Secret]:
    """In order; where two overlap, their union under the name of the first."""
    merged: list[Secret] = []
    for secret in sorted(set(found), key=lambda s: (s.start, -s.end, s.kind == "random", s.kind)):
        if merged and secret.start < merged[-1].end:
            merged[-1] = merged[-1]._replace(end=max(merged[-1].end, secret.end))
        else:
            merged.append(secret)
    return merged


def _search(content: bytes, depth: int) -> Iterator[Secret]:
    text = content.decode("latin-1")  # one character a byte: offsets stay those of `content`
    lower = content.lower().decode("latin-1")
    if "-----BEGIN " in text:
        yield from _key_blocks(text)
    if "://" in text:
        for match in _URL.finditer(text):
            if may_be_secret(match["v"]):
                yield Secret(*match.span("v"), "url_password")
    for literal, kind in LITERALS.items():
        if literal in text:
            yield from (Secret(*value_span(m), kind) for m in form_of(kind).finditer(text))
    yield from _named(text, lower)
    yield from (Secret(start, end, "chosen_password") for start, end in chosen_passwords(text, lower))
    yield from _runs(content, text, depth)


def _key_blocks(text: str) -> Iterator[Secret]:
    """Each stretch of a key block that holds the key, so that quotes and line ends around it stay."""
    for head in _KEY_HEAD.finditer(text):
        stop, is_closed = _end_of_block(text, head.end())
        if not is_closed and (gap := re.compile(r"\n[ \t]*\n[ \t]*\S").search(text, head.end() + 200, stop)):
            stop = gap.start()
        if sum(map(len, re.findall(r"[A-Za-z0-9+/=]{16,}", text[head.end() : stop]))) < 40:
            continue  # only spoken of
        last = stop
        if is_closed:
            last = max(stop, text.find("-----", stop + 8) + 5)
        for match in _KEY_TEXT.finditer(text, head.start(), last):
            yield Secret(*match.span(), "private_key")


def _end_of_block(text: str, start: int) -> tuple[int, bool]:
    """Where the next `-----END` or `-----BEGIN` stands, or a block can be no longer; and whether it was `-----END`."""
    limit = min(start + _MAX_BLOCK, len(text))
    mark = _BLOCK_MARK.search(text, start, limit)
    if mark is None:
        return limit, False
    return mark.start(), mark.group().endswith("END")


def _named(text: str, lower: str) -> Iterator[Secret]:
    """Values given to a name that promises a secret."""
    for stem in _NAME_STEMS:
        position = lower.find(stem)
        while position >= 0:
            end = position + len(stem)
            match = None
            if stem != "key" or _KEY_OF.search(lower, max(position - 11, 0), end):
                match = _ASSIGNED.match(text, end)
            if match is not None and not _ARGUMENT_NOT.search(match["rest"]):
                is_bare = match["quoted"] is None
                group = "bare" if is_bare else "quoted"
                if may_be_secret(match[group], bare=is_bare):
                    yield Secret(*match.span(group), f"named_{stem}")
            if stem == "authorization":  # the scheme stands between the name and the value
                scheme = _SCHEME.search(text, end, end + 60)
                if scheme is not None and looks_random(scheme["v"]):
                    yield Secret(*scheme.span("v"), "authorization")
            position = lower.find(stem, end)


def _runs(content: bytes, text: str, depth: int) -> Iterator[Secret]:
    """Long runs of letters and digits: known forms around them, wrapped text in them, and what looks random."""
    marks = content.translate(_RUN_TABLE) + b" "  # so that the last run ends too
    needle = b"x" * _RUN
    start = marks.find(needle)
    public: list[tuple[int, int]] | None = None
    chain: list[tuple[int, int]] = []
    while start >= 0:
        end = marks.index(b" ", start)
        start += start > 0 and text[start - 1] == "\\"  # a line end as `\n`, whose letter is no part of the run
        run = text[start:end]
        chance = may_be_chance(run)
        if (chance and not is_hex(run)) or ANCHORED.search(run):
            yield from _known(text, start, end, chance)
        if depth and not run.islower() and not run.isupper():
            if len(run) >= 24 and _holds_secret(run, depth):
                yield Secret(start, end + _padding(text, end), "base64")
            if chain and not (start - chain[-1][1] < 100 and _GOES_ON.fullmatch(text, chain[-1][1], start)):
                yield from _wrapped_lines(text, chain, depth)
                chain = []
            chain.append((start, end))
        if chance and looks_random(run):
            if public is None:  # only now: few files have a run that looks random
                heads = _PUBLIC_HEAD.finditer(text)
                public = [(head.start(), _end_of_block(text, head.end())[0]) for head in heads]
            inside = any(a <= start < b for a, b in public) or _is_called(text, run)
            if not inside and not names_a_hash(text, start, end) and not _is_table(text, start, end):
                yield Secret(start, end + _padding(text, end), "random")
        start = marks.find(needle, end)
    yield from _wrapped_lines(text, chain, depth)


def _wrapped_lines(text: str, chain: list[tuple[int, int]], depth: int) -> Iterator[Secret]:
    """Base64 that goes over several lines, in one literal or in several: `chain` holds its runs of 20 or more."""
    if not chain:
        return
    pieces = [*chain]
    if tail := _TAIL.match(text, chain[-1][1]):  # the last line is shorter than a run
        pieces.append(tail.span(1))
    if len(pieces) > 1 and _holds_secret("".join(text[a:b] for a, b in pieces), depth):
        yield from (Secret(a, b + _padding(text, b), "base64") for a, b in pieces)


def _known(text: str, start: int, end: int, chance: bool) -> Iterator[Secret]:
    """Known forms that touch the run from `start` to `end`, looked for on its line."""
    first = max(start - 60, text.rfind("\n", 0, start) + 1)
    last = min(end + 100, len(text))
    found = [(*value_span(m), m.lastgroup or "") for m in known_forms().finditer(text, first, last)]
    if chance and not found:
        for kind, pattern in detect_secrets_patterns():
            for match in pattern.finditer(text[first:last]):
                group = match[match.lastindex or 0]  # the value, or a prefix such as `ghp`
                if len(group) < 16:
                    group = match[0]
                value = group.strip(" \t\n\"'=:")
                at = first + match.start() + match[0].index(value)
                found.append((at, at + len(value), kind))
    yield from (Secret(a, b, kind) for a, b, kind in found if a < end and b > start)


def _holds_secret(run: str, depth: int) -> bool:
    """Whether `run` is base64 of text with a secret in it."""
    plain = run.translate({ord("-"): "+", ord("_"): "/"})
    try:
        # One character more than whole groups says nothing; two or three want their padding.
        decoded = base64.b64decode(plain[: len(plain) - (len(plain) % 4 == 1)] + "=" * (-len(plain) % 4 % 3))
    except (binascii.Error, ValueError):
        return False
    if not decoded or len(decoded) - len(decoded.translate(None, _PRINTABLE)) < 0.95 * len(decoded):
        return False
    return next(_search(decoded, depth - 1), None) is not None


def _padding(text: str, end: int) -> int:
    """How many `=` behind a run are its base64 padding, and not an assignment's sign."""
    if text.startswith("==", end):
        return 2
    return int(text.startswith("=", end) and not text.startswith("= ", end))


def _is_called(text: str, run: str) -> bool:
    """Whether a run is the name of a function: `convertIPv4MappedIPv6ToIPv4(address)`."""
    return run.isidentifier() and re.search(rf"(?<![\w\"'`]){run}\(", text) is not None


def _is_table(text: str, start: int, end: int) -> bool:
    """Whether the run's line and the ones beside it are nothing but base64: a picture or another data table."""
    if end - start >= 200:
        return True
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", end)
    above = text[text.rfind("\n", 0, max(first - 1, 0)) + 1 : max(first - 1, 0)]
    below = ""
    if last < 0:
        last = len(text)
    else:
        below = text[last + 1 : text.find("\n", last + 1)]
    own = text[first:last]
    return bool(_TABLE_LINE.fullmatch(own) and (_TABLE_LINE.fullmatch(above) or _TABLE_LINE.fullmatch(below)))


def without_secrets(examples: Sequence[Value]) -> tuple[list[Value], Counter[str]]:
    """The examples none of whose texts holds a secret; the others are counted as `secret`.

    The last look at what is about to be written. Texts are masked where they are read, so it should find nothing.
    """
    seen: dict[str, bool] = {}

    def is_clean(node: object) -> bool:
        if isinstance(node, str):
            if node not in seen:
                seen[node] = not find_secrets(node.encode("utf-8", "surrogatepass"))
            return seen[node]
        if isinstance(node, dict):
            return all(is_clean(value) for name, value in node.items() if name not in _OBJECT_IDS)
        return not isinstance(node, (list, tuple)) or all(map(is_clean, node))

    kept = [example for example in examples if is_clean(example.model_dump())]
    return kept, +Counter({"secret": len(examples) - len(kept)})
