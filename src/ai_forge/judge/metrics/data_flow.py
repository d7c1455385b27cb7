"""Where the values of a text's variables come from, for CodeBLEU (Ren et al. 2020, arXiv 2009.10297, section 3.3).

One walk over a syntax tree for all languages; what a grammar calls an assignment, a branch or a loop stands in `RULES`.
Each token that is a value gives a `Flow`: it comes from where its name was last written, or is computed from the tokens on
the other side of an assignment. Branches are walked from the same state and joined, loop bodies twice.

The rules are those of the `codebleu` package, because figures are compared with other people's: what looks like an
omission (Go's `:=`, C++'s `int a = b` are no assignments there) is one of theirs. We differ where theirs depends on the
order of a hash set: sources stand in the order in which they were found. TypeScript, which they lack, follows JavaScript.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tree_sitter import Node

_WHOLE = frozenset({"string_literal", "string", "character_literal"})
"""Node types that are one token, whatever stands in them."""


class Flow(NamedTuple):
    """A value at a token: its name, the token's number, and the names and numbers of the tokens that it stems from."""

    name: str
    token: int
    relation: str
    sources: tuple[str, ...] = ()
    source_tokens: tuple[int, ...] = ()


Normal = tuple[str, str, tuple[str, ...]]
"""A flow with its variables numbered by first appearance, so that renaming them changes nothing."""


@dataclass(frozen=True)
class Rules:
    """What the walk needs to know of a grammar: node types by what they do to variables."""

    assignments: frozenset[str]
    definitions: frozenset[str]
    branches: frozenset[str] = frozenset({"if_statement", "else"})
    alternatives: frozenset[str] = frozenset({"if_statement", "else"})
    """Children of a branch that begin another way through it."""
    updates: frozenset[str] = frozenset({"update_expression"})
    loops: frozenset[str] = frozenset({"for_statement"})
    repeats_after: str = "local_variable_declaration"
    """The child of a `for` behind which its children are walked again."""
    iterations: frozenset[str] = frozenset()
    """Loops over a collection, with the fields `name`, `value`, `body`."""
    whiles: frozenset[str] = frozenset({"while_statement"})
    pairwise: bool = False
    """Whether `a, b = c, d` are two assignments (Python)."""
    keeps_before: bool = False
    """Whether what held before a branch may hold after it even where there is an `else`."""
    definition_places: tuple[int, int] | None = None
    """Where a grammar has no fields `name` and `value` on a definition: the places of its children."""
    n_of_definition: tuple[int, int] = (0, 1_000)
    """How many children such a definition with a value has, at least and at most."""


def _of(*names: str) -> frozenset[str]:
    return frozenset(names)


_JAVASCRIPT = Rules(
    assignments=_of("assignment_pattern", "augmented_assignment_expression"),
    definitions=_of("variable_declarator"),
    repeats_after="variable_declaration",
    keeps_before=True,
)
_C_SHARP = Rules(
    assignments=_of("assignment_expression"),
    definitions=_of("variable_declarator"),
    updates=_of("postfix_unary_expression"),
    definition_places=(0, 1),
    n_of_definition=(2, 2),
)
RULES: Mapping[str, Rules] = {
    "python": Rules(
        assignments=_of("assignment", "augmented_assignment", "for_in_clause"),
        definitions=_of("default_parameter"),
        branches=_of("if_statement"),
        alternatives=_of("elif_clause", "else_clause"),
        updates=_of(),
        pairwise=True,
    ),
    "java": Rules(
        assignments=_of("assignment_expression"),
        definitions=_of("variable_declarator"),
        iterations=_of("enhanced_for_statement"),
    ),
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "tsx": _JAVASCRIPT,
    "go": Rules(
        assignments=_of("assignment_statement"),
        definitions=_of("var_spec"),
        updates=_of("inc_statement"),
        repeats_after="for_clause",
        whiles=_of(),
        keeps_before=True,
    ),
    "csharp": _C_SHARP,
    "c": _C_SHARP,
    "cpp": _C_SHARP,
    "rust": Rules(
        assignments=_of("assignment_expression", "compound_assignment_expr", "let_expression"),
        definitions=_of("function_item"),
        branches=_of("if_expression", "if_let_expression", "match_expression", "else"),
        alternatives=_of("if_expression", "if_let_expression", "match_expression", "else"),
        updates=_of(),
        loops=_of("for_expression"),
        whiles=_of("while_expression", "while_let_expression", "loop_expression"),
        definition_places=(1, 2),
        n_of_definition=(3, 1_000),
    ),
}

_States = dict[str, tuple[int, ...]]


class _UnreadableError(Exception):
    """A text whose tree lacks what the rules look for. Theirs has no data flow then either."""


def data_flow(root: Node, text: bytes, language: str) -> list[Normal]:
    """The flows of a tree, in the order of their tokens; none of a text that the rules cannot follow.

    Raises KeyError for a language without `RULES`.
    """
    walk = _Walk(RULES[language], text)
    walk.number(root)
    try:
        flows, _ = walk.flows(root, {})
    except (_UnreadableError, RecursionError):  # half a statement, or one nested a thousand deep
        flows = []
    flows = _by_token(flows)
    used = {flow.token for flow in flows if flow.source_tokens}
    used |= {token for flow in flows for token in flow.source_tokens}
    joined: dict[int, Flow] = {}
    for flow in flows:
        if flow.token in used:
            joined[flow.token] = _joined(joined[flow.token], flow) if flow.token in joined else flow
    return _normalised(joined.values())


@dataclass
class _Walk:
    rules: Rules
    text: bytes
    tokens: dict[tuple[int, int], int] = field(default_factory=dict)

    def number(self, root: Node) -> None:
        """Number the tokens in reading order."""
        left = [root]
        n = 0
        while left:
            node = left.pop()
            if _is_token(node):
                self.tokens[node.byte_range] = n
                n += 1
            else:
                left += reversed(node.children)

    def flows(self, node: Node, states: _States) -> tuple[list[Flow], _States]:
        """The flows below a node and where each name was last written after it; `states` is what held before."""
        rules, kind = self.rules, node.type
        if _is_token(node):
            return self._token(node, states)
        if kind in rules.definitions:
            return self._definition(node, states)
        if kind in rules.assignments:
            return self._assignment(node, states)
        if kind in rules.updates:
            names = self._variables(node)
            return self._written(names, names, "computedFrom", states)
        if kind in rules.branches:
            return self._branch(node, states)
        if kind in rules.loops:
            return self._for(node, states)
        if kind in rules.iterations:
            return self._iteration(node, states)
        if kind in rules.whiles:
            return _as_loop(*self._through([*node.children, *node.children], states))
        children = node.children
        if rules.pairwise:  # a comprehension's loops are written behind what they feed
            children = sorted(children, key=lambda child: child.type != "for_in_clause")
        found, states = self._through(children, states)
        return _by_token(found), states

    def _through(self, nodes: Iterable[Node], states: _States) -> tuple[list[Flow], _States]:
        found: list[Flow] = []
        for node in nodes:
            more, states = self.flows(node, states)
            found += more
        return found, states

    def _token(self, node: Node, states: _States) -> tuple[list[Flow], _States]:
        token, name = self._read(node)
        if node.type == name:  # a word or sign of the language
            return [], states
        if name in states:
            return [Flow(name, token, "comesFrom", (name,), states[name])], states
        if node.type == "identifier":
            states = states | {name: (token,)}
        return [Flow(name, token, "comesFrom")], states

    def _read(self, node: Node) -> tuple[int, str]:
        start, end = node.byte_range
        if (start, end) not in self.tokens:  # a piece of a string, met where `a.b = "c"` is taken for three assignments
            raise _UnreadableError
        return self.tokens[start, end], self.text[start:end].decode("utf-8", "replace")

    def _variables(self, node: Node) -> list[tuple[int, str]]:
        """The tokens below a node that are no words or signs of the language."""
        found = []
        left = [node]
        while left:
            node = left.pop()
            if not _is_token(node):
                left += reversed(node.children)
            elif (read := self._read(node))[1] != node.type:
                found.append(read)
        return found

    def _written(
        self,
        targets: Sequence[tuple[int, str]],
        sources: Sequence[tuple[int, str]],
        relation: str,
        states: _States,
    ) -> tuple[list[Flow], _States]:
        states = dict(states)
        found = []
        for token, name in targets:
            found += [Flow(name, token, relation, (source,), (place,)) for place, source in sources]
            states[name] = (token,)
        return _by_token(found), states

    def _definition(self, node: Node, states: _States) -> tuple[list[Flow], _States]:
        places = self.rules.definition_places
        if places is None:
            name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        else:
            least, most = self.rules.n_of_definition
            name = node.children[places[0]] if node.child_count > places[0] else None
            value = node.children[places[1]] if least <= node.child_count <= most else None
        if name is None:
            raise _UnreadableError
        targets = self._variables(name)
        if value is None:
            found = [Flow(word, token, "comesFrom") for token, word in targets]
            return _by_token(found), states | {word: (token,) for token, word in targets}
        found, states = self.flows(value, states)
        more, states = self._written(targets, self._variables(value), "comesFrom", states)
        return _by_token(found + more), states

    def _assignment(self, node: Node, states: _States) -> tuple[list[Flow], _States]:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        if node.type == "for_in_clause":
            right = node.children[-1]
        elif right is None and self.rules.pairwise:  # `a: int`
            return [], states
        if left is None or right is None:
            raise _UnreadableError
        if not self.rules.pairwise:
            found, states = self.flows(right, states)
            more, states = self._written(self._variables(left), self._variables(right), "computedFrom", states)
            return _by_token(found + more), states
        pairs = [(left, right)] if node.type == "for_in_clause" else _pairs(left, right)
        found, states = self._pairwise(pairs, states)
        return _by_token(found), states

    def _pairwise(self, pairs: Sequence[tuple[Node, Node]], states: _States) -> tuple[list[Flow], _States]:
        found, states = self._through([right for _, right in pairs], states)
        states = dict(states)
        for left, right in pairs:
            sources = self._variables(right)
            names, places = tuple(name for _, name in sources), tuple(token for token, _ in sources)
            for token, name in self._variables(left):
                found.append(Flow(name, token, "computedFrom", names, places))
                states[name] = (token,)
        return found, states

    def _branch(self, node: Node, states: _States) -> tuple[list[Flow], _States]:
        found: list[Flow] = []
        first, ends = states, []
        is_whole, is_first = "else" in node.type, True
        for child in node.children:
            is_whole = is_whole or "else" in child.type
            if is_first and child.type not in self.rules.alternatives:
                more, first = self.flows(child, first)
            else:
                is_first = self.rules.pairwise  # Python's alternatives are told by their own nodes
                more, end = self.flows(child, states)
                ends.append(end)
            found += more
        ends.append(first)
        if self.rules.keeps_before or not is_whole:
            ends.append(states)
        joined: dict[str, set[int]] = {}
        for end in ends:
            for name, tokens in end.items():
                joined.setdefault(name, set()).update(tokens)
        return _by_token(found), {name: tuple(sorted(tokens)) for name, tokens in joined.items()}

    def _for(self, node: Node, states: _States) -> tuple[list[Flow], _States]:
        found: list[Flow] = []
        if self.rules.pairwise:
            left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
            if left is None or right is None:
                raise _UnreadableError
            for _ in range(2):
                more, states = self._pairwise(_pairs(left, right), states)
                found += more
                if node.children[-1].type == "block":
                    more, states = self.flows(node.children[-1], states)
                    found += more
            return _as_loop(found, states)
        found, states = self._through(node.children, states)
        kinds = [child.type for child in node.children]
        if self.rules.repeats_after in kinds:
            at = kinds.index(self.rules.repeats_after)
            update = node.children[at].child_by_field_name("update")
            again = node.children[at + 1 :]
            if update is not None and self.rules.repeats_after == "for_clause":
                again = [update, *again]
            more, states = self._through(again, states)
            found += more
        return _as_loop(found, states)

    def _iteration(self, node: Node, states: _States) -> tuple[list[Flow], _States]:
        name, value, body = (node.child_by_field_name(part) for part in ("name", "value", "body"))
        if name is None or value is None or body is None:
            raise _UnreadableError
        found: list[Flow] = []
        for _ in range(2):
            before, states = self.flows(value, states)
            written, states = self._written(self._variables(name), self._variables(value), "computedFrom", states)
            inside, states = self.flows(body, states)
            found += before + written + inside
        return _as_loop(found, states)


def _is_token(node: Node) -> bool:
    return (node.child_count == 0 or node.type in _WHOLE) and node.type != "comment"


def _pairs(left: Node, right: Node) -> list[tuple[Node, Node]]:
    """`a, b = c, d` pair by pair; else the two sides as they are."""
    lefts = [child for child in left.children if child.type != ","]
    rights = [child for child in right.children if child.type != ","]
    if len(lefts) != len(rights):
        return [(left, right)]
    return list(zip(lefts or [left], rights or [right], strict=True))


def _by_token(flows: Iterable[Flow]) -> list[Flow]:
    return sorted(flows, key=lambda flow: flow.token)


def _joined(first: Flow, second: Flow) -> Flow:
    sources = tuple(dict.fromkeys(first.sources + second.sources))
    places = tuple(sorted({*first.source_tokens, *second.source_tokens}))
    return first._replace(sources=sources, source_tokens=places)


def _as_loop(flows: Iterable[Flow], states: _States) -> tuple[list[Flow], _States]:
    """What two rounds found, each flow once."""
    joined: dict[tuple[str, int, str], Flow] = {}
    for flow in flows:
        known = joined.get(flow[:3])
        joined[flow[:3]] = flow if known is None else _joined(known, flow)
    return _by_token(joined.values()), states


def _normalised(flows: Iterable[Flow]) -> list[Normal]:
    numbers: dict[str, str] = {}
    found = []
    for flow in flows:
        for name in (*flow.sources, flow.name):
            numbers.setdefault(name, f"var_{len(numbers)}")
        found.append((numbers[flow.name], flow.relation, tuple(numbers[name] for name in flow.sources)))
    return found
