"""Pieces of code that can be taken away and written again: a line, a block, a call's arguments, a function's body.

They are cut at nodes of the syntax tree, so what is left parses around the gap and what is missing is whole. A piece is 10 to
1,000 bytes long and lies in lines that a commit wrote; comments and imports alone are no task.
"""

import random
from collections.abc import Iterator, Sequence

from rapidfuzz.distance import Opcodes
from rapidfuzz.distance.Indel import opcodes
from tree_sitter import Node, Parser

from ai_forge.data_pipeline.languages import load
from ai_forge.data_pipeline.schemas.completions import Gap, GapKind

__all__ = ["MAX_BYTES", "MIN_BYTES", "Gap", "changed_lines", "chosen", "gaps_in"]

MIN_BYTES, MAX_BYTES = 10, 1000
_ARGUMENTS = ("argument_list", "arguments")
_DEFINITIONS = ("function", "method", "constructor")
_BLOCKS = ("statement", "clause", "if", "for", "while", "with", "try", "switch", "case", "loop", "match")
_NO_TASK = ("comment", "import", "package", "use_declaration")


def changed_lines(before: str, after: str) -> frozenset[int]:
    """Lines of `after`, from 0, that `before` does not have in their place.

    >>> sorted(changed_lines("a\\nb\\nc", "a\\nx\\ny\\nc"))
    [1, 2]
    """
    old, new = before.split("\n"), after.split("\n")
    edits: Opcodes = opcodes(old, new)
    return frozenset(line for edit in edits if edit.tag == "insert" for line in range(edit.dest_start, edit.dest_end))


def gaps_in(
    path: str,
    language: str,
    text: str,
    lines: frozenset[int] | None = None,
    commit: str | None = None,
    *,
    min_bytes: int = MIN_BYTES,
) -> list[Gap]:
    """All pieces of a file that may be taken away, of `lines` only where they are given."""
    loaded = load(language)
    if loaded is None:
        return []
    content = text.encode()
    root = Parser(loaded[0]).parse(content).root_node
    found: dict[tuple[int, int], GapKind] = {}
    for node, kind, start, end in _pieces(root, content):
        size = len(content[start:end].strip())
        rows = range(content.count(b"\n", 0, start), content.count(b"\n", 0, end) + 1)
        written = lines is None or all(row in lines for row in rows)
        if written and min_bytes <= size <= MAX_BYTES and not node.has_error:
            found.setdefault((start, end), kind)
    return [
        Gap(
            path=path,
            language=language,
            kind=kind,
            prefix=content[:start].decode("utf-8", "replace"),
            text=content[start:end].decode("utf-8", "replace"),
            suffix=content[end:].decode("utf-8", "replace"),
            commit=commit,
        )
        for (start, end), kind in sorted(found.items())
    ]


def chosen(gaps: Sequence[Gap], n: int, *, per_file: int = 4, seed: int = 0) -> list[Gap]:
    """At most `n` gaps and `per_file` of a file, the kinds in turn; none overlaps another of its file and commit."""
    generator = random.Random(seed)
    queues: dict[str, list[Gap]] = {}
    for gap in generator.sample(list(gaps), len(gaps)):
        queues.setdefault(gap.kind, []).append(gap)
    taken: dict[str, list[tuple[int, int]]] = {}
    picked: list[Gap] = []
    while len(picked) < n and any(queues.values()):
        for kind in sorted(queues):
            while queues[kind] and len(picked) < n:
                gap = queues[kind].pop()
                start = len(gap.prefix)
                spans = taken.setdefault(gap.path, [])
                free = all(start + len(gap.text) <= a or b <= start for a, b in spans)
                if len(spans) < per_file and free:
                    spans.append((start, start + len(gap.text)))
                    picked.append(gap)
                    break
    return picked


def _pieces(root: Node, content: bytes) -> Iterator[tuple[Node, GapKind, int, int]]:
    """Every candidate as (node, kind, first byte, byte behind it)."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if any(word in node.type for word in _NO_TASK):
            continue
        waiting += node.named_children
        if node.type in _ARGUMENTS and node.end_byte - node.start_byte > 2:
            yield node, "arguments", node.start_byte + 1, node.end_byte - 1
            continue
        body = node.child_by_field_name("body") or node.child_by_field_name("consequence")
        if body is not None and body.named_child_count:
            is_definition = any(word in node.type for word in _DEFINITIONS)
            if is_definition or any(word in node.type for word in _BLOCKS):
                first, last = body.named_children[0], body.named_children[-1]
                end = first.start_byte + len(
                    content[first.start_byte : last.end_byte].rstrip()
                )  # Go's hold the line end
                yield body, "body" if is_definition else "block", first.start_byte, end
        if node.parent is not None and (
            "statement" in node.type or "declaration" in node.type or "expression" in node.type
        ):
            line_start = content.rfind(b"\n", 0, node.start_byte) + 1
            line_end = content.find(b"\n", node.end_byte)
            line_end = len(content) if line_end < 0 else line_end
            alone = not content[line_start : node.start_byte].strip() and content[node.end_byte : line_end].strip() in (
                b"",
                b";",
                b",",
            )
            if alone and node.start_point[0] == node.end_point[0]:
                yield node, "line", node.start_byte, node.end_byte
