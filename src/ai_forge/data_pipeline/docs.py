"""Documentation of a unit: Python docstrings, `/**` comments, runs of `//` lines, without their marks."""

import inspect
import re

from tree_sitter import Node

_STRING_START = re.compile(r"^[rRuUbBfF]*(\"\"\"|'''|\"|')")
COMMENT_TYPES = frozenset({"comment", "line_comment", "block_comment"})


def docstring_of(body: Node | None) -> str | None:
    """The string that opens a Python body, dedented; escape sequences stay as written."""
    if body is None:
        return None
    for child in body.named_children:
        if child.type == "comment":
            continue
        first = next(iter(child.named_children), None) if child.type == "expression_statement" else child
        if first is None or first.type != "string" or (first is not child and child.named_child_count != 1):
            return None
        raw = (first.text or b"").decode("utf-8", "replace")
        start = _STRING_START.match(raw)
        if start is None or "f" in start.group(0).lower() or "b" in start.group(0).lower():
            return None
        return inspect.cleandoc(raw[start.end() : -len(start.group(1))]).strip() or None
    return None


def comments_above(node: Node, *, block: bool) -> list[Node]:
    """The comments that document `node`, top first.

    With `block` that is one `/**` comment above it, with at most one blank line between (a common JavaScript style);
    otherwise a run of `//` lines directly above.
    """
    found: list[Node] = []
    line = node.start_point[0]
    previous = node.prev_sibling
    gap = 2 if block else 1
    while previous is not None and previous.type in COMMENT_TYPES and line - previous.end_point[0] <= gap:
        before = previous.prev_sibling
        if before is not None and before.end_point[0] == previous.start_point[0] and before.type not in COMMENT_TYPES:
            break  # the comment trails the statement before
        text = previous.text or b""
        if block:
            return [previous] if text.startswith(b"/**") else []
        if text.startswith(b"//"):
            found.append(previous)
        line = previous.start_point[0]
        previous = before
    return found[::-1]


def clean_comment(text: str) -> str | None:
    """A comment's words: no `/**`, `*` or `//` marks; Go directives and tool lines are left out."""
    lines: list[str] = []
    for raw in text.splitlines():
        line = re.sub(r"^\s*(/\*\*?|//+|\*(?!/))?\s?", "", raw)
        line = re.sub(r"\s*\*/\s*$", "", line)
        if re.match(r"^(go:|nolint|eslint|@ts-|\+build|prettier-ignore|istanbul)", line):
            continue
        lines.append(line.rstrip())
    return inspect.cleandoc("\n".join(lines)).strip() or None
