"""Which units are half: a grammar closes one before a line that it does not understand, or loses the class around it.

Code that does not parse has no tree to ask, so this asks the text as people write it: what belongs to a definition is
indented deeper than its first line. A unit about which the text and the tree disagree is marked as an error, so that it
is out and counted; nothing is guessed. Python's grammar takes lines that are indented too deep without a word, so its
files are asked about even when they have no error.
"""

import itertools
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator

from tree_sitter import Node

from ai_forge.data_pipeline.languages import LanguageSpec
from ai_forge.data_pipeline.languages.draft import Draft
from ai_forge.data_pipeline.languages.preprocessor import without_comments
from ai_forge.data_pipeline.mining.units import Unit

__all__ = ["errors_in", "mark_half_units"]

_NEXT_LINE = re.compile(rb"[^\n]*\n(?:[ \t]*\n)*(?P<indent>[ \t]*)(?P<code>[^\n]*)")
# How lines begin that may be indented at will and belong to no body: comments, closing brackets, labels.
_OUTSIDE = re.compile(rb"[)\]}>]|end\b|#|//|/\*|\*|(?:case\b.*|\w+)[ \t]*:\s*$")
_OPENERS = (b"{", b":", b"(", b"[", b",")


def errors_in(root: Node) -> Iterator[Node]:
    """The outermost errors and missing tokens of a tree, in order."""
    waiting = [root]
    while waiting:  # not recursive: hostile code nests thousands deep
        node = waiting.pop()
        if node.is_error or node.is_missing:
            yield node
        elif node.has_error:
            waiting.extend(reversed(node.children))


def mark_half_units(units: list[Unit], root: Node, text: bytes, spec: LanguageSpec, draft: Draft | None) -> None:
    """Set `has_error` of units that hold something broken, go on after their end, or have lost what is around them."""
    if draft is not None and draft.broken:
        _mark_broken(units, draft)
    if spec.name == "python":
        _mark_before_strays(units, root)
    if root.has_error:
        if any(mark.startswith("/*") for mark in spec.docs):  # `without_comments` knows those of the C family alone
            text = without_comments(text)
        _mark_beside_errors(units, root, text)
    # A half unit is half of all around it; the list is made first, as the loop marks more.
    for unit in [unit for unit in units if unit.has_error]:
        around = unit.parent
        while around is not None and not around.has_error:
            around.has_error = True
            around = around.parent


def _mark_beside_errors(units: list[Unit], root: Node, text: bytes) -> None:
    """Set `has_error` of units that the lines around them contradict."""
    errors = [node.byte_range for node in errors_in(root)]
    starts = [start for start, _ in errors]

    def has_error(start: int, end: int) -> bool:
        index = bisect_right(starts, end) - 1
        return index >= 0 and errors[index][1] >= start

    for unit in units:
        if not unit.has_error:
            indent = _indent_at(text, unit.code_start)
            unit.has_error = _goes_on(unit, indent, text, has_error) or _is_orphan(unit, indent, text)


def _mark_before_strays(units: list[Unit], root: Node) -> None:
    """Python: a statement that is indented deeper than its neighbours belongs to what ends before it."""
    strays: list[Node] = []
    for body in (root, *(unit.body for unit in units if unit.kind == "class")):
        statements = [node for node in (body.named_children if body is not None else []) if node.type != "comment"]
        for before, node in itertools.pairwise(statements):
            is_deeper = node.start_point.column > statements[0].start_point.column
            if is_deeper and node.start_point.row > before.end_point.row:  # several may stand on a line, after `;`
                strays.append(node)
    for stray in strays:
        column = stray.start_point.column
        shallower = [u for u in units if u.end <= stray.start_byte and u.definition.start_point.column < column]
        last = max((unit.end for unit in shallower), default=0)
        for unit in shallower:
            unit.has_error = unit.has_error or unit.end == last
        # What stands below it as deep was a member of the same class.
        for unit in units:
            is_below = unit.start >= stray.start_byte and unit.parent is None
            unit.has_error = unit.has_error or (is_below and unit.definition.start_point.column >= column)


def _mark_broken(units: list[Unit], draft: Draft) -> None:
    """What holds a broken span is broken; so is all that stands in a definition whose head holds one."""
    without_head: set[int] = set()
    for unit in units:  # outer ones come first
        head_end = unit.end
        if unit.body is not None:
            head_end = unit.body.start_byte
        touching = [start for start, end in draft.broken if start < unit.end and end > unit.start]
        lost = unit.parent is not None and id(unit.parent) in without_head
        if lost or any(start < head_end for start in touching):
            without_head.add(id(unit))
        unit.has_error = unit.has_error or lost or bool(touching)


def _goes_on(unit: Unit, indent: int, text: bytes, has_error: Callable[[int, int], bool]) -> bool:
    """Whether the code below a unit is indented as its body is: then its end was found too early."""
    at = unit.end
    while (match := _NEXT_LINE.match(text, at)) is not None:
        at = match.start("code")
        line = match["code"]
        if not line or _OUTSIDE.match(line):
            continue
        if len(match["indent"].expandtabs()) > indent:
            return True
        if not has_error(at, match.end()) or line.rstrip().endswith(_OPENERS):
            return False  # the code that follows belongs to this line
    return False


def _is_orphan(unit: Unit, indent: int, text: bytes) -> bool:
    """Whether nothing in the tree is around a unit that would give it its indentation, or only an error is."""
    row = unit.definition.start_point.row
    has_reason = not indent
    node = unit.definition.parent
    while node is not None and node.parent is not None:
        if node.is_error:
            # An error that swallowed the class around it: a brace of it is still open.
            before = [child.type for child in node.children if child.start_byte < unit.definition.start_byte]
            return bool(indent) or before.count("{") > before.count("}")
        if not has_reason and node.start_point.row < row:
            has_reason = _indent_at(text, node.start_byte) < indent
        if has_reason and not node.parent.has_error:
            return False
        node = node.parent
    return not has_reason


def _indent_at(text: bytes, at: int) -> int:
    """The columns before the first sign of a byte's line; a tab counts as eight."""
    line = text[text.rfind(b"\n", 0, at) + 1 : at + 1].expandtabs()
    return len(line) - len(line.lstrip(b" "))
