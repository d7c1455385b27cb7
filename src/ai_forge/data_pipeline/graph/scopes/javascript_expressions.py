"""Expressions of JavaScript and types of TypeScript as chains (see `scopes`)."""

from tree_sitter import Node

from ai_forge.data_pipeline.graph.scopes.python_expressions import text_of
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
    """The chains of an expression, see `scopes_python.values`."""
    if node is None:
        return []
    kind = node.type
    if kind in ("identifier", "this", "jsx_identifier", "type_identifier"):
        return [(text_of(node),)]
    if kind == "super":
        return [("super()",)]
    if kind in ("member_expression", "nested_identifier", "jsx_namespace_name"):
        held = node.child_by_field_name("object") or (node.named_children[0] if node.named_children else None)
        name = node.child_by_field_name("property") or node.named_children[-1]
        return [(*chain, "." + text_of(name)) for chain in values(held)]
    if kind == "subscript_expression":
        return [(*chain, "[]") for chain in values(node.child_by_field_name("object"))]
    if kind == "call_expression":
        return [(*chain, "()") for chain in values(node.child_by_field_name("function"))]
    if kind == "new_expression":
        return [(*chain, "()") for chain in values(node.child_by_field_name("constructor"))]
    if kind == "as_expression" and len(node.named_children) == 2:
        return types(node.named_children[1]) or values(node.named_children[0])
    if kind in _INNER:
        return values(next((c for c in node.named_children if c.type != "comment"), None))
    if kind == "ternary_expression":
        return values(node.child_by_field_name("consequence")) + values(node.child_by_field_name("alternative"))
    if kind == "binary_expression" and text_of(node.child_by_field_name("operator")) in ("||", "??", "&&"):
        left = [] if text_of(node.child_by_field_name("operator")) == "&&" else values(node.child_by_field_name("left"))
        return left + values(node.child_by_field_name("right"))
    if kind == "array":
        return [(*chain, "[*]") for part in node.named_children[:3] for chain in values(part)]
    return [(f"<{kind}>",)] if kind in _CONSTANTS else []


def base_chains(node: Node) -> list[Chain]:
    """The chains of a class that another extends or implements."""
    if node.type in ("type_arguments", "decorator"):
        return []
    return [chain[:-1] for chain in types(node)] if node.type.endswith(("type", "type_identifier")) else values(node)


def types(node: Node | None) -> list[Chain]:
    """The chains of the values that a TypeScript type allows."""
    if node is None:
        return []
    kind = node.type
    if kind == "type_identifier":
        return [(text_of(node), "()")]
    if kind == "nested_type_identifier":
        head, *rest = text_of(node).split(".")
        return [(head, *(f".{name}" for name in rest), "()")]
    if kind == "array_type":
        return [(*chain, "[*]") for chain in types(node.named_children[0])]
    if kind == "generic_type":
        name = text_of(node.child_by_field_name("name"))
        arguments = [c for part in node.named_children if part.type == "type_arguments" for c in part.named_children]
        if name in _WRAPPED_TYPES and arguments:
            return types(arguments[0])
        if name in _MANY_TYPES and arguments:
            return [(*chain, "[*]") for chain in types(arguments[-1])]
        return types(node.child_by_field_name("name"))
    if kind in ("type_annotation", "union_type", "parenthesized_type", "readonly_type"):
        return [chain for child in node.named_children for chain in types(child)]
    return []
