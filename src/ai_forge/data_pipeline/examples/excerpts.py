"""A block without its documentation, or so much of a long one as an answer needs.

A block over the context's limit can still be asked about: its documentation is folded after the first paragraph, and where
that is not enough only its head and the lines that hold the answer are shown, with a mark where lines were left out.
"""

import re
import textwrap

from tree_sitter import Node

from ai_forge.data_pipeline.examples.block_tree import BlockTree, last_row, tree_of_block
from ai_forge.data_pipeline.examples.verification import code_spans
from ai_forge.data_pipeline.schemas import CodeBlock, Document, content_id
from ai_forge.data_pipeline.text.words import approximate_tokens, one_line

__all__ = ["altered", "documentation_rows", "excerpt"]

_LEFT_OUT = "…"
# Rows shown above and below one that holds a part of the answer
_CONTEXT_ROWS = 2
_MIN_FOLDED_ROWS = 4
_EMPTY_COMMENT = re.compile(r"^\s*(?://+!?|#|\*)?\s*$")
_COMMENT = re.compile(r"\s*(?://|#|\*|/\*|--)")
_COMMENT_MARK = re.compile(r"\s*(?://+!?|#|\*)?\s?")


def altered(block: CodeBlock, text: str, how: str) -> Document:
    """The block's document with another text, and so with an id of its own."""
    return Document.from_block(block).model_copy(update={"text": text, "block_id": content_id(block.id, how, text)})


def documentation_rows(tree: BlockTree) -> tuple[int, int] | tuple[()] | None:
    """First and last row of the documentation; nothing where there is none, None where other code stands on its lines.

    Of a comment in several lines each line may be a node of its own.
    """
    nodes: list[Node] = []
    if tree.language == "python":
        for first in tree.body.named_children[:1] if tree.body is not None else ():
            if first.named_children and first.named_children[0].type == "string":
                nodes = [first]
    elif tree.definition is not None:
        above = tree.definition.start_byte
        nodes = [node for node in tree.tops if "comment" in node.type and node.end_byte <= above]
    if not nodes:
        return ()
    (first_row, first_column), last = nodes[0].start_point, nodes[-1]
    before, after = tree.lines[first_row].encode()[:first_column], b""  # columns count bytes
    if last.end_point[1]:  # else it ends with its line
        after = tree.lines[last_row(last)].encode()[last.end_point[1] :]
    if before.strip() or after.strip():
        return None
    return first_row, last_row(last)


def excerpt(block: CodeBlock, answer: str, max_tokens: int) -> Document | None:
    """The block in at most `max_tokens`, with all that the answer names; None where that is not possible."""
    tree = tree_of_block(block)
    if tree is None:
        return None
    rows = documentation_rows(tree)
    if rows is None:
        return None
    lines = textwrap.dedent(block.source_code).split("\n")
    n_head = 1
    if rows:
        first, last = (row - tree.n_before for row in rows)
        folded = _folded(lines[first : last + 1])
        lines[first : last + 1] = folded
        n_head = first + len(folded)
    if tree.body is not None and tree.language != "python":  # there the documentation stands below the signature
        first_of_signature = rows[1] + 1 if rows else tree.n_before
        n_head += max(0, tree.body.start_point[0] - first_of_signature)
    if approximate_tokens("\n".join(lines)) > max_tokens:
        wanted = _rows_of(answer, lines, is_class=block.block_type in ("class", "interface", "type"))
        if wanted is None:
            return None
        lines = _with_marks(lines, {*range(min(n_head, len(lines))), *wanted})
    text = "\n".join(lines)
    return altered(block, text, "excerpt") if approximate_tokens(text) <= max_tokens else None


def _folded(lines: list[str]) -> list[str]:
    """The lines of a documentation up to the end of its first paragraph, and what closes it."""
    n_kept = next((n for n, line in enumerate(lines) if n and _EMPTY_COMMENT.match(line)), len(lines))
    if len(lines) - n_kept < _MIN_FOLDED_ROWS:
        return lines
    mark = _COMMENT_MARK.match(lines[n_kept - 1])
    folded = [*lines[:n_kept], f"{mark[0] if mark else ''}{_LEFT_OUT}"]
    if re.search(r'\*/|"""|\'\'\'', lines[-1]):  # the comment stays closed, so that what is shown still parses
        folded.append(lines[-1])
    return folded


def _margin(line: str) -> int:
    return len(line) - len(line.lstrip())


def _rows_of(answer: str, lines: list[str], *, is_class: bool) -> set[int] | None:
    """The rows that hold what stands in backticks in the answer, with those around them."""
    found: set[int] = set()
    for span in code_spans(answer):
        rows = [n for n, line in enumerate(lines) if span in one_line(line) and not _COMMENT.match(line)]
        if is_class:  # its members stand at the left; further in they are only used
            whole = re.compile(rf"(?<![\w$.>:]){re.escape(span)}(?![\w$])")
            rows = sorted((n for n in rows if whole.search(lines[n])), key=lambda n: _margin(lines[n]))
        row = next(iter(rows), None)
        if row is None:  # spread over several lines, or in none: no excerpt can be known to hold it
            return None
        found |= set(range(max(0, row - _CONTEXT_ROWS), min(len(lines), row + _CONTEXT_ROWS + 1)))
    return found


def _with_marks(lines: list[str], wanted: set[int]) -> list[str]:
    kept: list[str] = []
    for row, line in enumerate(lines):
        if row in wanted:
            kept.append(line)
        elif row - 1 in wanted:
            kept.append(f"{line[: len(line) - len(line.lstrip())]}{_LEFT_OUT}")
    return kept
