"""The tokens of a C or C++ text, and the head of a declaration as words, signs and bracketed groups."""

import re
from dataclasses import dataclass, field

from ai_forge.data_pipeline.languages.draft import Span

_TOKEN = re.compile(rb"[A-Za-z_]\w*|::|->|&&|\d[\w.]*|[^\s\w]")
# Words of the languages that look like macros and take brackets: they are never blanked for it.
WITH_ARGUMENTS = frozenset(
    b"__attribute__ __attribute __declspec alignas _Alignas decltype typeof __typeof__ noexcept explicit throw asm "
    b"__asm__ requires _Static_assert static_assert".split()
)
# Capitals, or the reserved names with an underscore in which headers write theirs.
MACRO_LIKE = re.compile(rb"[A-Z][A-Z0-9_]+|_\w*[a-z]\w*|[A-Z]")

# `operator""_km` reads `operator00_km` where strings are zeros.
_OPERATOR = re.compile(rb"(?:.*::)?operator(?:0+\w*)?")


@dataclass
class Item:
    """A piece of a declaration's head: a word with what belongs to it (`A::B<C>`), a sign, or a bracketed `group`."""

    text: bytes
    start: int
    end: int
    is_word: bool = False
    is_group: bool = False

    @property
    def span(self) -> Span:
        """Its bytes."""
        return self.start, self.end

    @property
    def is_macro_like(self) -> bool:
        """Whether a type would not be written so."""
        return self.text not in WITH_ARGUMENTS and MACRO_LIKE.fullmatch(self.text) is not None

    @property
    def is_operator(self) -> bool:
        """Whether it is the word `operator`, with what stands before it."""
        return self.is_word and _OPERATOR.fullmatch(self.text) is not None


@dataclass
class Walk:
    """The tokens of a text, with what their brackets say."""

    view: bytes
    tokens: list[Span] = field(default_factory=list)
    # Where a statement begins because what stood before it went: the token before it, still in `view`, does not say so.
    fresh: int = -1

    def __post_init__(self) -> None:
        self.tokens = [match.span() for match in _TOKEN.finditer(self.view)]

    def text(self, index: int) -> bytes:
        """A token; empty beyond the last, so that looking ahead needs no check."""
        if index >= len(self.tokens):
            return b""
        start, end = self.tokens[index]
        return self.view[start:end]

    def close_of(self, index: int) -> int:
        """The index of the bracket that closes the one at `index`; of the last token where none does."""
        depth = 0
        for at in range(index, len(self.tokens)):
            sign = self.text(at)
            depth += (sign in (b"(", b"[", b"{")) - (sign in (b")", b"]", b"}"))
            if depth == 0:
                return at
        return len(self.tokens) - 1

    def open_of(self, index: int) -> int:
        """The index of the round bracket around the token at `index`."""
        depth = 1
        while index > 0 and depth:
            index -= 1
            depth += (self.text(index) == b")") - (self.text(index) == b"(")
        return index

    def begins_line(self, index: int) -> bool:
        """Whether a line end stands before a token."""
        _, before = self.tokens[index - 1] if index else (0, 0)
        return b"\n" in self.view[before : self.tokens[index][0]]


def items_of(walk: Walk, first: int, last: int) -> list[Item]:
    """The tokens from `first` to before `last` as items; templates' heads, attributes in `[[]]` and literals are left out."""
    items: list[Item] = []
    at = first
    while at < last:
        token, (start, end) = walk.text(at), walk.tokens[at]
        if token == b"template" and walk.text(at + 1) == b"<":
            at = _close_of_angle(walk, at + 1, last) + 1
            continue
        if token in (b"(", b"["):
            close = min(walk.close_of(at), last - 1)  # a bracket that is never closed ends with the head
            if token == b"(":
                items.append(Item(b"(", start, walk.tokens[close][1], is_group=True))
            at = close + 1
            continue
        is_word = token[:1].isalpha() or token[:1] == b"_"
        # `<` behind a word opens its arguments: no comparison stands in a declaration's head before its `=`.
        if token == b"<" and items and items[-1].is_word and not items[-1].is_operator:
            close = _close_of_angle(walk, at, last)
            items[-1].end = walk.tokens[close][1]
            items[-1].text += b"<>"
            at = close + 1
            continue
        joins = (
            items
            and (items[-1].text.endswith((b"::", b"~")) or token == b"::")
            and (is_word or token == b"~" or token == b"::")
        )
        if joins and (items[-1].is_word or items[-1].text in (b"::", b"~")):
            items[-1].text += token
            items[-1].end, items[-1].is_word = end, True
        elif token == b"~":
            items.append(Item(token, start, end, is_word=True))
        elif not token[:1].isdigit():
            items.append(Item(token, start, end, is_word=is_word))
        at += 1
    return items


def _close_of_angle(walk: Walk, index: int, last: int) -> int:
    """The index of the `>` that closes the `<` at `index`, or of the last token before `last`."""
    depth = 0
    at = index
    while at < last:
        sign = walk.text(at)
        if sign in (b"(", b"[", b"{"):
            at = walk.close_of(at)
        depth += (sign == b"<") - (sign == b">")
        if depth == 0:
            return at
        at += 1
    return last - 1


def with_group(items: list[Item], index: int) -> Span:
    """An item's span with the brackets behind it."""
    followed = index + 1 < len(items) and items[index + 1].is_group
    return items[index].start, items[index + followed].end
