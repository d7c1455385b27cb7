"""Python's expressions and types as chains (see `scopes`)."""

import ast
from functools import lru_cache

from tree_sitter import Node

from ai_forge.data_pipeline.graph.scopes.scope import Chain

__all__ = ["text_of", "type_chains", "values"]

_TRANSPARENT = frozenset(
    {"Annotated", "Awaitable", "ClassVar", "Final", "NotRequired", "Optional", "ReadOnly", "Required"}
)
_CONTAINERS = frozenset({
    "AbstractSet", "AsyncGenerator", "AsyncIterable", "AsyncIterator", "Collection", "Container", "Deque", "FrozenSet",
    "Generator", "Iterable", "Iterator", "List", "MutableSequence", "MutableSet", "Reversible", "Sequence", "Set",
    "ValuesView", "deque", "frozenset", "list", "set",
})  # fmt: skip
"""Types of many: their first argument is what an element is."""
_MAPPINGS = frozenset({"ChainMap", "DefaultDict", "Dict", "Mapping", "MutableMapping", "OrderedDict", "WeakValueDictionary",
                       "defaultdict", "dict"})  # fmt: skip
_SAME_ELEMENTS = frozenset({"deque", "frozenset", "iter", "list", "reversed", "set", "sorted", "tuple", "aiter"})
_FIRST_OF = frozenset({"anext", "max", "min", "next"})


def text_of(node: Node | None) -> str:
    """The source of a node."""
    return node.text.decode("utf-8", "replace") if node is not None and node.text is not None else ""


def values(node: Node | None) -> list[Chain]:
    """The chains of an expression: several for `a or b` and `a if c else b`, none where it is nothing to follow."""
    if node is None:
        return []
    kind = node.type
    if kind == "identifier":
        return [(text_of(node),)]
    if kind == "attribute":
        name = "." + text_of(node.child_by_field_name("attribute"))
        return [(*chain, name) for chain in values(node.child_by_field_name("object"))]
    if kind == "call":
        return _call_values(node)
    if kind == "subscript":
        if any(c.type == "slice" for c in node.named_children[1:]):
            return values(node.child_by_field_name("value"))
        return [(*chain, "[]") for chain in values(node.child_by_field_name("value"))]
    if kind in ("parenthesized_expression", "await"):
        return values(next((c for c in node.named_children if c.type != "comment"), None))
    if kind == "conditional_expression" and len(node.named_children) == 3:
        return values(node.named_children[0]) + values(node.named_children[2])
    if kind == "boolean_operator":
        left = values(node.child_by_field_name("left")) if text_of(node.child_by_field_name("operator")) == "or" else []
        return left + values(node.child_by_field_name("right"))
    if kind in ("list", "set", "tuple"):
        return [(*chain, "[*]") for part in node.named_children[:3] for chain in values(part)]
    if kind in ("list_comprehension", "set_comprehension", "generator_expression"):
        return [(*chain, "[*]") for chain in values(node.child_by_field_name("body"))]
    if kind == "dictionary":
        pairs = [part for part in node.named_children[:3] if part.type == "pair"]
        return [(*chain, "[*]") for pair in pairs for chain in values(pair.child_by_field_name("value"))]
    if kind == "named_expression":
        return values(node.child_by_field_name("value"))
    return [(f"<{kind}>",)] if kind in ("string", "integer", "float", "true", "false", "concatenated_string") else []


def _call_values(node: Node) -> list[Chain]:
    """A call's chains; some builtins give back what they were given."""
    function = node.child_by_field_name("function")
    name = text_of(function).rpartition(".")[2] if function is not None else ""
    arguments = getattr(node.child_by_field_name("arguments"), "named_children", [])
    if name == "super" and function is not None and function.type == "identifier":
        return [("super()",)]
    if name == "cast" and len(arguments) == 2:
        return type_chains(text_of(arguments[0]))
    if function is not None and function.type == "identifier" and len(arguments) >= 1:
        if name in _SAME_ELEMENTS:
            return values(arguments[0]) or [("<builtin>",)]
        if name in _FIRST_OF:
            return [(*chain, "[]") for chain in values(arguments[0])] or [("<builtin>",)]
        if name == "type" and len(arguments) == 1:
            return [(*chain, ".__class__") for chain in values(arguments[0])]
    return [(*chain, "()") for chain in values(function)]


@lru_cache(maxsize=4096)
def _parsed_type(text: str) -> tuple[Chain, ...]:
    try:
        return tuple(_types(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError, RecursionError):
        return ()


def type_chains(text: str) -> list[Chain]:
    """The chains of the values that a type allows.

    >>> type_chains("Optional[dict[str, 'Store']]")
    [('Store', '()', '[*]')]
    """
    return list(_parsed_type(text))


def _types(node: ast.expr) -> list[Chain]:
    if isinstance(node, ast.Constant):
        return list(_parsed_type(node.value)) if isinstance(node.value, str) else []
    if isinstance(node, ast.BinOp):
        return _types(node.left) + _types(node.right)
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value).rpartition(".")[2]
        inner = list(node.slice.elts) if isinstance(node.slice, ast.Tuple) else [node.slice]
        if not inner:  # tuple[()]
            return []
        if name == "Union":
            return [chain for part in inner for chain in _types(part)]
        if name in _TRANSPARENT:
            return _types(inner[0])
        if name in ("type", "Type"):
            return [chain[:-1] for chain in _types(inner[0])]
        if name == "Coroutine":
            return _types(inner[-1])
        if name in _CONTAINERS or (name in ("tuple", "Tuple") and len(set(map(ast.dump, inner))) == 1) or (
            name in ("tuple", "Tuple") and isinstance(inner[-1], ast.Constant) and inner[-1].value is ...
        ):  # fmt: skip
            return [(*chain, "[*]") for chain in _types(inner[0])]
        if name in _MAPPINGS:
            return [(*chain, "[*]") for chain in _types(inner[-1])]
        return [] if name in ("Callable", "Literal", "tuple", "Tuple") else _types(node.value)
    if isinstance(node, ast.Name):
        return [] if node.id in ("None", "Any", "object") else [(node.id, "()")]
    if isinstance(node, ast.Attribute):
        held = _types(node.value)
        return [(*chain[:-1], f".{node.attr}", "()") for chain in held]
    return []
