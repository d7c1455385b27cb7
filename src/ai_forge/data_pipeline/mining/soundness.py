"""Which units of a file with errors are half: a grammar closes one before a line that it does not understand, or loses a class.

Code that does not parse has no tree to ask, so this asks the text as people write it: what belongs to a definition is
indented deeper than its first line, and stands between its brackets. A unit about which the text and the tree disagree
is marked as an error, so that it is out and counted; nothing is guessed.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator

from tree_sitter import Node

from ai_forge.data_pipeline.languages.draft import Draft, Span
from ai_forge.data_pipeline.mining.docstrings import COMMENT_TYPES
from ai_forge.data_pipeline.mining.units import Unit

__all__ = ["errors_in", "mark_half_units"]

_CLOSERS = re.compile(
    rb"[ \t]*(?:[)\]}>]|end\b|#|//|/\*|\*|@end\b|(?:public|private|protected|case\b.*|default|\w+)[ \t]*:(?!:))"
)
_OPENERS = (b"{", b":", b"(", b"[", b",")


def errors_in(root: Node) -> Iterator[Node]:
    """The outermost errors and missing tokens of a tree, in order."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.is_error or node.is_missing:
            yield node
        elif node.has_error:
            waiting.extend(reversed(node.children))


def mark_half_units(units: list[Unit], root: Node, text: bytes, draft: Draft | None) -> None:
    """Set `has_error` of units that hold something broken, that go on after their end, or that have lost what is around them."""
    broken = sorted(draft.broken) if draft is not None else []
    for unit in units:
        if any(start < unit.end and end > unit.start for start, end in broken):
            unit.has_error = True
    if not root.has_error:
        return
    errors = [node.byte_range for node in errors_in(root)]
    lines = _Lines(text, errors)
    for unit in units:
        if not unit.has_error:
            unit.has_error = lines.goes_on(unit) or lines.is_orphan(unit)


class _Lines:
    """The lines of a text by number, from 0, and which of them hold errors."""

    def __init__(self, text: bytes, errors: list[Span]) -> None:
        self.lines = text.split(b"\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.errors = errors
        self.error_starts = [start for start, _ in errors]

    def goes_on(self, unit: Unit) -> bool:
        """Whether the code below a unit is indented as its body is: then its end was found too early."""
        indent = _indent(self.lines[self.line_of(unit.code_start)])
        last = self.line_of(unit.end - 1)
        for number in range(last + 1, len(self.lines)):
            line = self.lines[number]
            if not line.strip() or _CLOSERS.match(line):
                continue
            if _indent(line) > indent:
                return True
            if not self.has_error(number) or line.rstrip().endswith(_OPENERS):
                return False  # the code that follows belongs to this line
        return False

    def is_orphan(self, unit: Unit) -> bool:
        """Whether a unit is indented, and nothing in the tree that begins less indented on an earlier line is around it."""
        row = unit.definition.start_point.row
        indent = _indent(self.lines[self.line_of(unit.code_start)])
        if not indent:
            return _in_open_error(unit.definition)
        node = unit.definition.parent
        while node is not None and node.parent is not None:
            if not node.is_error and node.start_point.row < row and _indent(self.lines[node.start_point.row]) < indent:
                return False
            node = node.parent
        return True

    def line_of(self, at: int) -> int:
        """The line of a byte."""
        return bisect_right(self.starts, at) - 1

    def has_error(self, number: int) -> bool:
        """Whether an error touches a line."""
        index = bisect_right(self.error_starts, self.starts[number + 1] - 1) - 1
        return index >= 0 and self.errors[index][1] >= self.starts[number]


def _indent(line: bytes) -> int:
    """The columns before a line's first sign; a tab counts as eight."""
    expanded = line.expandtabs(8)
    return len(expanded) - len(expanded.lstrip(b" "))


def _in_open_error(definition: Node) -> bool:
    """Whether a bracket that an error left open stands before a definition in the same error."""
    node = definition
    while node.parent is not None and not node.parent.is_error:
        node = node.parent
    error = node.parent
    if error is None:
        return False
    depth = 0
    for child in error.children:
        if child.start_byte >= node.start_byte:
            break
        depth += (child.type == "{") - (child.type == "}")
    return depth > 0
