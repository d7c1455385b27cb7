"""Expressions of JavaScript and types of TypeScript as chains (see `scopes`)."""

from tree_sitter import Node

from ai_forge.data_pipeline.graph.scopes.python_expressions import MAX_STEPS, text_of
from ai_forge.data_pipeline.graph.scopes.scope import Chain

__all__ = ["base_chains", "types", "values"]

_MANY_TYPES = frozenset(
    {"Array", "AsyncIterable", "Iterable", "Iterator", "Map", "Readonly", "ReadonlyArray", "Record", "Set"}
)
_WRAPPED_TYPES = frozenset(
    {"Promise", "Readonly", "Partial", "Required", "Awaited", "NonNullable", "Ref", "Observable"}
)
_CONSTANTS = frozenset({"string", "template_string", "number", "true", "false", "regex"})
_INNER = frozenset({"parenthesized_expression", "await_expression", "as_expression", "satisfies_expression",
                    "non_null_expression", "type_assertion"})  # fmt: skip


def values(node: Node | None) -> list[Chain]:
    """The chains of an expression, see `python_expressions.values`."""
    found: list[Chain] = []
    opened: list[tuple[Node | None, Chain]] = [(node, ())]
    while opened:
        part, after = opened.pop()
        if part is not None and len(after) <= MAX_STEPS:
            opened.extend(reversed(_inside(part, after, found)))
    return found


def _inside(node: Node, after: Chain, found: list[Chain]) -> list[tuple[Node | None, Chain]]:
    """The expressions whose chains, with what stands `after` them, are those of `node`; an end is put into `found`."""
    kind = node.type
    if kind in ("identifier", "this", "jsx_identifier", "type_identifier"):
        found.append((text_of(node), *after))
    elif kind == "super":
        found.append(("super()", *after))
    elif kind in ("member_expression", "nested_identifier", "jsx_namespace_name"):
        held = node.child_by_field_name("object") or (node.named_children[0] if node.named_children else None)
        name = node.child_by_field_name("property") or node.named_children[-1]
        return [(held, ("." + text_of(name), *after))]
    elif kind == "subscript_expression":
        return [(node.child_by_field_name("object"), ("[]", *after))]
    elif kind == "call_expression":
        return [(node.child_by_field_name("function"), ("()", *after))]
    elif kind == "new_expression":
        return [(node.child_by_field_name("constructor"), ("()", *after))]
    elif kind == "as_expression" and len(node.named_children) == 2:
        declared = types(node.named_children[1])
        found.extend((*chain, *after) for chain in declared)
        return [] if declared else [(node.named_children[0], after)]
    elif kind in _INNER:
        return [(next((c for c in node.named_children if c.type != "comment"), None), after)]
    elif kind == "ternary_expression":
        return [(node.child_by_field_name("consequence"), after), (node.child_by_field_name("alternative"), after)]
    elif kind == "binary_expression":
        operator = text_of(node.child_by_field_name("operator"))
        right = (node.child_by_field_name("right"), after)
        if operator == "&&":
            return [right]
        if operator in ("||", "??"):
            return [(node.child_by_field_name("left"), after), right]
    elif kind == "array":
        return [(part, ("[*]", *after)) for part in node.named_children[:3]]
    elif kind in _CONSTANTS:
        found.append((f"<{kind}>", *after))
    return []


def base_chains(node: Node) -> list[Chain]:
    """The chains of a class that another extends or implements."""
    if node.type in ("type_arguments", "decorator"):
        return []
    return [chain[:-1] for chain in types(node)] if node.type.endswith(("type", "type_identifier")) else values(node)


def types(node: Node | None) -> list[Chain]:
    """The chains of the values that a TypeScript type allows."""
    found: list[Chain] = []
    opened: list[tuple[Node | None, Chain]] = [(node, ())]
    while opened:
        part, after = opened.pop()
        if part is not None and len(after) <= MAX_STEPS:
            opened.extend(reversed(_inside_type(part, after, found)))
    return found


def _inside_type(node: Node, after: Chain, found: list[Chain]) -> list[tuple[Node | None, Chain]]:
    """As `_inside`, of a type."""
    kind = node.type
    if kind == "type_identifier":
        found.append((text_of(node), "()", *after))
    elif kind == "nested_type_identifier":
        head, *rest = text_of(node).split(".")
        found.append((head, *(f".{name}" for name in rest), "()", *after))
    elif kind == "array_type":
        return [(node.named_children[0], ("[*]", *after))]
    elif kind == "generic_type":
        name = text_of(node.child_by_field_name("name"))
        arguments = [c for part in node.named_children if part.type == "type_arguments" for c in part.named_children]
        if name in _WRAPPED_TYPES and arguments:
            return [(arguments[0], after)]
        if name in _MANY_TYPES and arguments:
            return [(arguments[-1], ("[*]", *after))]
        return [(node.child_by_field_name("name"), after)]
    elif kind in ("type_annotation", "union_type", "parenthesized_type", "readonly_type"):
        return [(child, after) for child in node.named_children]
    return []
