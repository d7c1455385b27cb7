"""Python's expressions and types as chains (see `scopes`)."""

import ast
from functools import lru_cache

from tree_sitter import Node

from ai_forge.data_pipeline.graph.scopes.scope import Chain

__all__ = ["MAX_STEPS", "text_of", "type_chains", "values"]

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
MAX_STEPS = 100
"""Steps of a chain: a longer one is followed by no one (`inference` stops at 40)."""
_Open = tuple[Node | int | None, Chain]
"""An expression, with the steps that follow it; or how many chains there must be more than, else it is a builtin's value."""


def text_of(node: Node | None) -> str:
    """The source of a node."""
    return node.text.decode("utf-8", "replace") if node is not None and node.text is not None else ""


def values(node: Node | None) -> list[Chain]:
    """The chains of an expression: several for `a or b` and `a if c else b`, none where it is nothing to follow.

    Expressions are someone else's and may be nested to any depth: what is open stands on a list, not on Python's stack.
    """
    found: list[Chain] = []
    opened: list[_Open] = [(node, ())]
    while opened:
        part, after = opened.pop()
        if isinstance(part, int):
            if len(found) == part:
                found.append(("<builtin>", *after))
        elif part is not None and len(after) <= MAX_STEPS:
            opened.extend(reversed(_inside(part, after, found)))
    return found


def _inside(node: Node, after: Chain, found: list[Chain]) -> list[_Open]:
    """The expressions whose chains, with what stands `after` them, are those of `node`; an end is put into `found`."""
    kind = node.type
    if kind == "identifier":
        found.append((text_of(node), *after))
    elif kind == "attribute":
        name = "." + text_of(node.child_by_field_name("attribute"))
        return [(node.child_by_field_name("object"), (name, *after))]
    elif kind == "call":
        return _inside_call(node, after, found)
    elif kind == "subscript":
        is_slice = any(c.type == "slice" for c in node.named_children[1:])
        return [(node.child_by_field_name("value"), after if is_slice else ("[]", *after))]
    elif kind in ("parenthesized_expression", "await"):
        return [(next((c for c in node.named_children if c.type != "comment"), None), after)]
    elif kind == "conditional_expression" and len(node.named_children) == 3:
        return [(node.named_children[0], after), (node.named_children[2], after)]
    elif kind == "boolean_operator":
        right = (node.child_by_field_name("right"), after)
        is_or = text_of(node.child_by_field_name("operator")) == "or"
        return [(node.child_by_field_name("left"), after), right] if is_or else [right]
    elif kind in ("list", "set", "tuple"):
        return [(part, ("[*]", *after)) for part in node.named_children[:3]]
    elif kind in ("list_comprehension", "set_comprehension", "generator_expression"):
        return [(node.child_by_field_name("body"), ("[*]", *after))]
    elif kind == "dictionary":
        pairs = [part for part in node.named_children[:3] if part.type == "pair"]
        return [(pair.child_by_field_name("value"), ("[*]", *after)) for pair in pairs]
    elif kind == "named_expression":
        return [(node.child_by_field_name("value"), after)]
    elif kind in ("string", "integer", "float", "true", "false", "concatenated_string"):
        found.append((f"<{kind}>", *after))
    return []


def _inside_call(node: Node, after: Chain, found: list[Chain]) -> list[_Open]:
    """As `_inside`, of a call; some builtins give back what they were given."""
    function = node.child_by_field_name("function")
    if function is None:
        return []
    arguments = getattr(node.child_by_field_name("arguments"), "named_children", [])
    is_name = function.type == "identifier"
    name = text_of(function if is_name else function.child_by_field_name("attribute"))
    if name == "super" and is_name:
        found.append(("super()", *after))
        return []
    if name == "cast" and len(arguments) == 2:
        found.extend((*chain, *after) for chain in type_chains(text_of(arguments[0])))
        return []
    if is_name and len(arguments) >= 1:
        if name in _SAME_ELEMENTS:
            return [(arguments[0], after), (len(found), after)]
        if name in _FIRST_OF:
            return [(arguments[0], ("[]", *after)), (len(found), after)]
        if name == "type" and len(arguments) == 1:
            return [(arguments[0], (".__class__", *after))]
    return [(function, ("()", *after))]


@lru_cache(maxsize=4096)
def _parsed_type(text: str) -> tuple[Chain, ...]:
    try:
        return tuple(_types(ast.parse(text.strip(), mode="eval").body))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # of `ast.parse`, for types nested very deep
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
