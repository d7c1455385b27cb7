"""A text under repair: what a grammar gets to read in place of a file that it refuses.

A repair keeps every byte offset, so what is found in the repaired text stands at the same place in the file. Line ends
may be joined, so whoever uses a repair takes lines from offsets.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["Draft", "Repair", "Span"]

Span = tuple[int, int]  # in bytes, as tree-sitter counts
_NOT_A_LINE_END = re.compile(rb"[^\n]")


@dataclass
class Draft:
    """`text` is what is parsed, of the file's length.

    `hidden` are spans that a signature does not show: preprocessor lines, branches not taken. `whole` are spans of which
    a unit takes all or nothing. What a unit with a `broken` span says is not of its language: it is no unit.
    """

    text: bytearray
    hidden: list[Span] = field(default_factory=list)
    whole: list[Span] = field(default_factory=list)
    broken: list[Span] = field(default_factory=list)

    def copy(self) -> "Draft":
        """Another draft, to try a repair on."""
        return Draft(bytearray(self.text), [*self.hidden], [*self.whole], [*self.broken])

    def blank(self, start: int, end: int) -> None:
        """Blanks in the place of all but line ends, so that lines stay where they are."""
        self.text[start:end] = _NOT_A_LINE_END.sub(b" ", bytes(self.text[start:end]))

    def hide(self, start: int, end: int) -> None:
        """Blanks, in signatures too."""
        self.blank(start, end)
        self.hidden.append((start, end))

    def put(self, start: int, text: bytes) -> None:
        """`text` in the place of as many bytes."""
        self.text[start : start + len(text)] = text

    def blank_all(self, matches: Iterable[re.Match[bytes]], group: int = 0) -> None:
        """Blanks in the place of a group of each match."""
        for match in matches:
            self.blank(*match.span(group))

    def shown(self, original: bytes) -> bytes:
        """The file's text as signatures quote it."""
        shown = Draft(bytearray(original))
        for start, end in self.hidden:
            shown.blank(start, end)
        return bytes(shown.text)


Repair = Callable[[Draft], None]
"""Changes a draft where it meets what the grammar of one language does not know."""
