"""The units of a parsed file: every definition with its name, span, signature and documentation.

A unit comes from one match of the language's query. Scopes (a namespace, a Rust `impl`) are matched too: they give
names to what stands in them and are no units.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tree_sitter import Node

from ai_forge.data_pipeline.languages import LanguageSpec
from ai_forge.data_pipeline.languages.draft import Draft, Span
from ai_forge.data_pipeline.mining.docstrings import COMMENT_TYPES, comments_above, docstring_of, documentation
from ai_forge.data_pipeline.schemas import Guard
from ai_forge.data_pipeline.schemas.code_blocks import BlockType
from ai_forge.data_pipeline.text.words import one_line

UnitKind = BlockType | Literal["scope", "impl"]
Captures = dict[str, list[Node]]
Captured = Mapping[str, list[tuple[int, Captures]]]
"""The matches of a file's query by the names that they capture, each with the number of its pattern."""

# By capture.
_KINDS: dict[str, UnitKind] = {
    "function": "function", "method": "method", "class": "class", "interface": "interface", "type": "type",
    "mixin": "module", "scope": "scope", "impl": "impl",
}  # fmt: skip
# Kinds whose functions are methods.
CONTAINERS = frozenset({"class", "interface", "type", "module", "impl"})
SCOPES = frozenset({"scope", "impl"})
_PLAIN_NAME = re.compile(r"^[\w.$]+$")
_COMMENT_AFTER_COMMA = re.compile(r",\s+(#|//).*$")
_COMMENT_LINE = re.compile(r"\s*(# |#$|//)")
# `TEST_F(Suite, Name)` and the like of GoogleTest, Boost and others: a test with a name of its own.
_MACRO_TEST = re.compile(
    r"(?:\w+_)?(?:TEST|BENCHMARK)(?:_[A-Z]+)*\(\s*(?:(?P<suite>\w+)\s*,\s*)?(?P<name>\w+)\s*(?:,[^()]*)?\)"
)
# C++: the grammar takes the brackets of `operator int() const` for a part of its name.
_CONVERSION = re.compile(r"(?P<name>.*\boperator\s+\w.*?)\s*\(\s*\)[^()]*", re.DOTALL)
# What C writes as a type, without macros, comments and attributes between.
_C_TYPE = re.compile(
    r"(?:const |struct |union |enum |unsigned |signed |long |short )*[A-Za-z_][\w:]*(?:<[\w:<>,*& ]*>)?(?: const)?(?: ?[*&]+)*"
)
_CONST = re.compile(rb"const\b")
_NOT_NAMES = frozenset({"if", "for", "while", "switch", "return", "else"})
_OPENERS = ("=>", "->", ":", "=", "{", ";")


@dataclass
class Unit:
    """A definition as parsed. Bytes are offsets in the parsed text; lines count from 1, both ends included.

    `first_line` is that of the documentation above, `code_line` that of the definition with its decorators. Names are
    dicts without values: each once, in order of appearance.
    """

    kind: UnitKind
    name: str
    start: int
    end: int
    first_line: int
    code_line: int
    last_line: int
    code_start: int
    definition: Node
    body: Node | None
    signature: str
    docstring: str | None
    has_error: bool
    returns: str | None = None
    parameters_start: int = -1
    receiver: str | None = None
    parent: "Unit | None" = None
    parameters: dict[str, None] = field(default_factory=dict)
    calls: dict[str, None] = field(default_factory=dict)
    raises: dict[str, None] = field(default_factory=dict)
    bases: dict[str, None] = field(default_factory=dict)
    decorators: dict[str, None] = field(default_factory=dict)
    members: dict[str, None] = field(default_factory=dict)
    guards: list[Guard] = field(default_factory=list)
    statements: list[Node] = field(default_factory=list)
    guard_starts: list[int] = field(default_factory=list)
    return_values: dict[str, None] = field(default_factory=dict)
    is_generator: bool = False
    complexity: int = 1

    @property
    def qualified_name(self) -> str:
        """Names of the enclosing units and scopes and its own, joined by dots."""
        parts: list[str] = []
        unit: Unit | None = self
        while unit is not None:  # not recursive: hostile code nests thousands deep
            parts += (unit.name, unit.receiver or "")
            unit = unit.parent
        return ".".join(part for part in reversed(parts) if part)


def node_text(node: Node, text: bytes) -> str:
    """The source of a node."""
    start, end = node.byte_range
    return text[start:end].decode("utf-8", "replace")


def units_of(captured: Captured, spec: LanguageSpec, text: bytes, draft: Draft | None = None) -> list[Unit]:
    """Units (without scopes) by position, nested; of two patterns for one definition the first in the query wins.

    `draft` is what was parsed in the place of `text`.
    """
    source = _Source(text, text, [])
    if draft is not None:
        source = _Source(text, draft.shown(text), sorted(draft.whole))
    found: dict[tuple[int, int, str], Unit] = {}
    heads = [(index, captures, key) for key in _KINDS for index, captures in captured.get(key, ())]
    # By the pattern's place in the query, so that special patterns stand there above general ones.
    for _, captures, key in sorted(heads, key=lambda head: head[0]):
        unit = _unit(_KINDS[key], captures[key][0], captures, spec, source)
        if unit.name in _NOT_NAMES and unit.definition.type == "function_definition":
            continue  # C: what a macro stands before is no definition
        # Of one statement there may be several definitions, told apart by name; of scopes the first pattern says it.
        name = unit.name if unit.kind not in SCOPES else ""
        found.setdefault((unit.start, unit.end, name), unit)
    units = sorted(found.values(), key=lambda unit: (unit.start, -unit.end))
    _nest(units)
    return [unit for unit in units if unit.kind not in SCOPES]


def _is_call_of_macro(head: Node, name: str, spec: LanguageSpec) -> bool:
    """Whether what looks like a function without a type (`DEFINE_X(a) { … }`) is what a macro makes of its arguments."""
    if head.type != "function_definition" or spec.macros is None or spec.macros.fullmatch(name) is None:
        return False
    around = head.parent
    in_class = around is not None and around.type == "field_declaration_list"  # a constructor has no type either
    return not in_class and head.child_by_field_name("type") is None


@dataclass(frozen=True)
class _Source:
    """A file's text, as signatures show it, and the spans of which a unit takes all or nothing."""

    text: bytes
    shown: bytes
    whole: list[Span]

    def widened(self, start: int, end: int) -> Span:
        """A unit's span with all of each of those spans that it begins or ends in."""
        for first, last in self.whole:
            if first < start < last < end:
                start = first
            elif start < first < end < last:
                end = last
        return start, end


def _unit(kind: UnitKind, head: Node, captures: Captures, spec: LanguageSpec, source: _Source) -> Unit:
    text = source.text
    outer = head
    (value,) = captures.get("value", [head])[:1]
    name, receiver = _names(kind, captures, value, text, spec)
    is_macro = _is_call_of_macro(head, name, spec)
    if is_macro and (test := _MACRO_TEST.match(node_text(head, text))):
        name, receiver, is_macro = test["name"], test["suite"], False
    while spec.wrappers and (around := outer.parent) is not None and around.type in spec.wrappers:
        outer = around
    code, comments = _with_comments(outer, spec, source)
    written = "\n".join(node_text(comment, text).rstrip() for comment in comments)
    docstring = documentation(written, spec.docs)
    first = code
    if docstring is not None and comments[0].start_byte < code.start_byte:  # one that says nothing is no part of it
        first = comments[0]
    body = value.child_by_field_name("body")
    if body is None:
        body = next((child for child in value.named_children if child.type in spec.bodies), None)
    if not spec.docs:
        docstring = docstring_of(body)
    last = _end_of(outer)
    last_byte = _last_byte(text, last.end_byte)
    start, end = source.widened(code.start_byte, last_byte)
    # Each grammar has its own word for the same thing.
    parameters = _first_field(value, "parameters", "parameter")
    if "own_parameters" in captures:
        parameters = captures["own_parameters"][0]
    returns = _first_field(value, "return_type", "result", "returns")
    if returns is None and value.type == "method_declaration":
        returns = value.child_by_field_name("type")
    return Unit(
        kind=kind,
        name=name,
        start=min(start, first.start_byte),
        end=end,
        first_line=first.start_point[0] + 1,
        code_line=code.start_point[0] + 1,
        last_line=last.end_point.row + 1 - text.count(b"\n", last_byte, last.end_byte),
        code_start=start,
        definition=value,
        body=body,
        signature=_signature(_start_of_signature(head, source), value, body, source.shown, kind),
        docstring=docstring,
        has_error=outer.has_error or is_macro,
        returns=_returned_type(returns, value, text),
        parameters_start=parameters.start_byte if parameters is not None else -1,
        receiver=receiver,
    )


def _with_comments(outer: Node, spec: LanguageSpec, source: _Source) -> tuple[Node, list[Node]]:
    """The first node of a definition (an attribute that stands before it as a sibling) and its doc comments."""
    code = outer
    comments: list[Node] = []
    while True:
        above: list[Node] = []
        if spec.docs:
            row = code.start_point.row
            start, _ = source.widened(code.start_byte, code.end_byte)
            if start < code.start_byte:  # a macro that was blanked stands between it and its comments
                row = source.text.count(b"\n", 0, start)
            above = [] if _opens_a_list(code) else comments_above(code, spec.docs, row)
        comments = above + comments
        if not spec.prefixes:
            return code, comments
        (top,) = above[:1] or [code]
        before = top.prev_sibling
        while before is not None and before.type in COMMENT_TYPES:
            before = before.prev_sibling
        if before is None or before.type not in spec.prefixes:
            return code, comments
        code = before  # documentation may stand above an attribute and below it


def _opens_a_list(code: Node) -> bool:
    """Whether a C macro of one line has the next one right below it: the comment above them is about all of them."""
    if code.type != "preproc_function_def" or code.end_point.row - code.start_point.row > 1:
        return False
    below = code.next_sibling
    return below is not None and below.type == code.type and below.start_point.row == code.start_point.row + 1


def _returned_type(declared: Node | None, value: Node, text: bytes) -> str | None:
    """The type that a function is declared to return. In C and C++ it stands before the name, with its stars around it."""
    if declared is not None:
        return one_line(node_text(declared, text)).lstrip(": ")
    its_type = value.child_by_field_name("type")
    if value.type != "function_definition" or its_type is None:
        return None
    start, declarator = its_type.start_byte, value.child_by_field_name("declarator")
    qualifiers = [child for child in value.children if child.type == "type_qualifier"]
    if qualifiers and qualifiers[0].end_byte <= start and _CONST.search(text, qualifiers[0].start_byte, start):
        start = qualifiers[0].start_byte
    while declarator is not None and declarator.type in ("pointer_declarator", "reference_declarator"):
        declarator = declarator.child_by_field_name("declarator") or declarator.named_child(0)
    if declarator is None or declarator.type != "function_declarator":
        return None
    written = one_line(text[start : declarator.start_byte].decode("utf-8", "replace"))
    return written if _C_TYPE.fullmatch(written) and not written.startswith("auto") else None


def _first_field(node: Node, *names: str) -> Node | None:
    return next((child for name in names if (child := node.child_by_field_name(name)) is not None), None)


def _start_of_signature(head: Node, source: _Source) -> int:
    """Where a head begins: before the macros that the repair took from it, after C#'s and PHP's attributes."""
    first = head.child(0)
    while first is not None and first.type in ("attribute_list", *COMMENT_TYPES) and first.next_sibling is not None:
        first = first.next_sibling
    start, _ = source.widened((first or head).start_byte, head.end_byte)
    return start


def _signature(start: int, value: Node, body: Node | None, text: bytes, kind: UnitKind) -> str:
    """A definition's text up to its body, on one line, without comments and the sign that opens the body."""
    end = value.end_byte
    if body is not None:
        before = body.prev_sibling
        while before is not None and before.type in COMMENT_TYPES:
            before = before.prev_sibling
        end = body.start_byte
        if before is not None and before.end_byte > start:  # a comment before the body is none of the signature
            end = before.end_byte
    written = text[start:end].decode("utf-8", "replace")
    head = written.partition("{")[0]
    # In `f(a: { b: C }): D;` the brace opens the type of a parameter.
    if kind in CONTAINERS or (body is None and head.count("(") == head.count(")")):
        written = head
    if "#" in written or "//" in written:
        lines = (_COMMENT_AFTER_COMMA.sub(",", line) for line in written.splitlines() if not _COMMENT_LINE.match(line))
        written = " ".join(lines)
    signature = one_line(written)
    opener = next((mark for mark in _OPENERS if signature.endswith(mark)), "")
    return signature.removesuffix(opener).rstrip()


def _names(kind: UnitKind, captures: Captures, value: Node, text: bytes, spec: LanguageSpec) -> tuple[str, str | None]:
    """A unit's name as callers know it, and the type or namespace that the definition itself names before it."""
    if "name" not in captures:
        return "", None
    node = captures["name"][0]
    if node.id == value.id:  # `export default function () {}`: importers call it so
        return "default", None
    receiver = None
    if "receiver" in captures:
        receiver = node_text(captures["receiver"][0], text)
    name = node_text(node, text).strip("\"'")  # a member's name may stand in quotes
    if name in ("module.exports", "exports"):
        own = value.child_by_field_name("name")
        if own is None:
            return "exports", None
        return node_text(own, text), None
    if (conversion := _CONVERSION.fullmatch(name)) is not None:
        name = conversion["name"]
    if spec.sigil:
        name = name.replace(spec.sigil, "").replace("->", ".").replace("::", ".")
    if "::" in name:
        path, name = _split_scope(name)
        receiver = re.sub(r"<[^<>]*>|\s", "", re.sub(r"<[^<>]*>", "", path)).replace("::", ".") or None
    name = one_line(name.removeprefix("module.exports.").removeprefix("exports.").replace(".prototype.", "."))
    if kind in SCOPES and not _PLAIN_NAME.match(name):
        return "", None
    if node.type == "simple_symbol":  # Ruby: define_method(:name)
        name = name.removeprefix(":")
    return name, receiver


def _split_scope(name: str) -> tuple[str, str]:
    """What stands before the last `::` that is in no angle brackets, and what stands after it.

    >>> _split_scope("a::b<c::d>::e"), _split_scope("hash<std::pair<a, b>>"), _split_scope("A::operator<")
    (('a::b<c::d>', 'e'), ('', 'hash<std::pair<a, b>>'), ('A', 'operator<'))
    """
    depth, cut = 0, 0
    for at, sign in enumerate(name):
        if name.startswith("operator", at) and not depth:
            break  # what follows are signs of its name
        depth += (sign == "<") - (sign == ">")
        if depth == 0 and name.startswith("::", at):
            cut = at + 2
    return name[: max(cut - 2, 0)], name[cut:]


def _last_byte(text: bytes, end: int) -> int:
    """Where a definition's own last line ends, of a node that ends at `end`.

    A body that is told by its indentation ends, for some grammars, where the next line begins; and who writes JavaScript without
    semicolons puts one before a bracket: `;(a).b = c` ends the statement above it.

    >>> _last_byte(b"f = () => {}\\n\\n;(a).b = c", 15), _last_byte(b"f = 1;", 6)
    (12, 6)
    """
    while end:
        before = text[text.rfind(b"\n", 0, end - 1) + 1 : end - 1]
        is_of_next = text[end - 1] == ord(";") and not before.strip() and text[end : end + 1] in (b"(", b"[", b"`")
        if not (text[end - 1 : end].isspace() or is_of_next):
            break
        end -= 1
    return end


def _end_of(node: Node) -> Node:
    """A node that ends where a definition's last token does: Python's grammar lets comments after it belong to the body."""
    leaf = node.descendant_for_byte_range(max(node.start_byte, node.end_byte - 1), node.end_byte)
    if leaf is not None and "comment" not in leaf.type and "doc" not in leaf.type:
        return node  # it ends with a token
    while True:
        child = next(
            (c for c in reversed(node.children) if c.type not in COMMENT_TYPES and c.end_byte > c.start_byte), None
        )
        if child is None:
            return node
        node = child


def _nest(units: list[Unit]) -> None:
    """Set each unit's parent and make a function whose parent is a class a method."""
    # Sorted as they are, every unit around another is still open when that one begins.
    open_units: list[Unit] = []
    for unit in units:
        while open_units and open_units[-1].end <= unit.start:
            open_units.pop()
        for around in reversed(open_units):
            # Of `const f = () => 1, g = () => 2` both have all of the statement, and neither holds the other.
            is_other = around.end > unit.end or around.start < unit.start
            own, outer = unit.definition, around.definition
            if around.end >= unit.end and (
                is_other or outer.start_byte <= own.start_byte <= own.end_byte <= outer.end_byte
            ):
                unit.parent = around
                break
        if unit.parent is not None and unit.parent.kind in CONTAINERS and unit.kind in ("function", "method"):
            unit.kind = "method"
            if not any(child.type == "delete_method_clause" for child in unit.definition.children):
                unit.parent.members[unit.name] = None
        elif unit.receiver and unit.kind == "function":  # Go, C++: it stands outside of its type
            unit.kind = "method"
        open_units.append(unit)


def module_unit(root: Node, units: list[Unit], docstring: str | None) -> Unit | None:
    """The head of a file as a unit without a name: what stands before the first statement that holds a definition.

    That is the file's documentation, its imports and its first constants. None where a definition comes first.
    """
    first_unit = min((unit.start for unit in units), default=root.end_byte)
    first_line = min((unit.first_line for unit in units), default=root.end_point.row + 2)
    head: list[Node] = []
    for child in root.named_children:
        if child.end_byte > first_unit or child.end_point.row + (child.end_point.column > 0) >= first_line:
            break
        head.append(child)
    if not head:
        return None
    last = head[-1].end_point
    line = head[0].start_point.row + 1
    return Unit(
        kind="module",
        name="",
        start=head[0].start_byte,
        end=head[-1].end_byte,
        first_line=line,
        code_line=line,
        last_line=last.row + (last.column > 0),
        code_start=head[0].start_byte,
        definition=root,
        body=None,
        signature="",
        docstring=docstring,
        has_error=any(child.has_error for child in head),
        statements=head,
    )
