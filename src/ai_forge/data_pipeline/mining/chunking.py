"""A unit that is too long becomes parts: statements of its own body, each part under the unit's signature and docstring.

A cut falls only between two statements of the body itself, never inside one, and never between a statement and the
comment or decorator above it. The lines before the first statement and after the last one (a closing brace) are repeated
in each part, so that a part is a whole definition with fewer statements. What is cited are the part's own lines.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tree_sitter import Node

from ai_forge.data_pipeline.languages import LanguageSpec
from ai_forge.data_pipeline.mining.docstrings import COMMENT_TYPES, docstring_of
from ai_forge.data_pipeline.mining.units import Unit
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.text.words import LineTokens

Span = tuple[int, int]
"""First and last line, from 1; empty where the last is before the first."""

_NAMES = ("calls", "raises", "imports", "method_names", "return_values")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Part:
    """Own lines of a part, the number of repeated lines above and below them, and the whole text."""

    first_line: int
    last_line: int
    head_lines: int
    tail_lines: int
    text: str
    n_tokens: int


def cut(unit: Unit, tokens: LineTokens, spec: LanguageSpec, max_tokens: int) -> tuple[list[Part], int]:
    """(parts of at most `max_tokens`, filled in order; how many statements are longer and in none of them).

    One statement that is too long where the body cannot be cut: it has one statement, or none on lines of its own.
    """
    groups = _groups(_statements(unit), tokens, spec)
    if len(groups) < 2:
        return [], 1
    head, tail = (unit.first_line, groups[0][0] - 1), (groups[-1][1] + 1, unit.last_line)
    is_module = unit.kind == "module" and unit.body is None
    # A one-line body or a brace on the last statement's line cannot be repeated apart from the statements.
    if not is_module and (head[1] < unit.code_line or not _ends_apart(unit, groups[-1][1], tokens)):
        return [], 1
    fixed = _tokens(tokens, head) + _tokens(tokens, tail)
    spans: list[Span] = []
    used = 0
    for first, last in groups:
        cost = _tokens(tokens, (first, last))
        if spans and fixed + used + cost <= max_tokens:
            spans[-1] = (spans[-1][0], last)
            used += cost
        else:
            spans.append((first, last))
            used = cost
    parts = [_part(span, head, tail, unit, tokens) for span in spans]
    fitting = [part for part in parts if part.n_tokens <= max_tokens]
    return fitting, len(parts) - len(fitting)


def _part(span: Span, head: Span, tail: Span, unit: Unit, tokens: LineTokens) -> Part:
    """The first part's own lines begin with the unit, the last one's end with it."""
    first, last = span
    if first == head[1] + 1:
        first = unit.first_line
    if last == tail[0] - 1:
        last = unit.last_line
    spans: list[Span] = []
    n_above = n_below = 0
    if first == span[0] and head[0] <= head[1]:
        n_above = head[1] - head[0] + 1
        spans.append(head)
    spans.append((first, last))
    if last == span[1] and tail[0] <= tail[1]:
        n_below = tail[1] - tail[0] + 1
        spans.append(tail)
    text = "\n".join(tokens.text(*lines) for lines in spans)
    return Part(first, last, n_above, n_below, text, tokens.of(*spans))


def as_part(block: CodeBlock, part: Part, number: int, n_parts: int) -> CodeBlock:
    """`block`, made with the part's text, as the part: its place, and of what the syntax says what stands in it."""
    meta = block.metadata
    words = set(_WORD.findall(part.text))

    # By words, not by positions: what the syntax says of the whole unit is kept without them.
    def here(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in words or words.issuperset(_WORD.findall(name)))

    places = {name: getattr(part, name) for name in ("first_line", "last_line", "head_lines", "tail_lines")}
    named = {name: here(getattr(meta, name)) for name in _NAMES}
    guards = tuple(guard for guard in meta.guards if part.first_line <= guard.line <= part.last_line)
    changed = meta.model_copy(update={**places, **named, "part": number, "n_parts": n_parts, "guards": guards})
    return block.model_copy(update={"metadata": changed, "dependencies": here(block.dependencies)})


def _statements(unit: Unit) -> list[Node]:
    """The statements of a body with the comments between them, without a docstring."""
    if unit.body is None:
        return unit.statements
    body = unit.body
    # Some grammars wrap the statements of a body once more.
    while body.named_child_count == 1 and body.named_children[0].type in ("statement_list", "block", "body_statement"):
        body = body.named_children[0]
    children = body.named_children
    first = next((index for index, child in enumerate(children) if child.type not in COMMENT_TYPES), 0)
    if docstring_of(body) is not None:  # it stands in the head, which every part repeats
        return children[first + 1 :]
    return children


def _groups(nodes: Sequence[Node], lines: LineTokens, spec: LanguageSpec) -> list[Span]:
    """Lines that stay together: a statement with what stands above it or on one of its lines."""
    groups: list[Span] = []
    is_tied = False
    for node in nodes:
        first = lines.line_of(node.start_byte)
        last = lines.line_of(max(node.start_byte, node.end_byte - 1))
        if groups and (is_tied or first <= groups[-1][1]):
            groups[-1] = (groups[-1][0], max(last, groups[-1][1]))
        else:
            groups.append((first, last))
        is_tied = node.type in COMMENT_TYPES or node.type in spec.prefixes
    return groups


def _ends_apart(unit: Unit, last_line: int, lines: LineTokens) -> bool:
    """Whether what closes the body, if anything does, stands below its last statement."""
    assert unit.body is not None
    closing = (unit.body.children or [unit.body])[-1]
    closes = not closing.is_named and closing.type not in (";", ",")
    return not closes or lines.line_of(closing.start_byte) > last_line


def _tokens(tokens: LineTokens, span: Span) -> int:
    if span[0] > span[1]:
        return 0
    return tokens.of(span) + 1  # the line end that joins it to the others
