"""What a block declares with a type or a value: fields, parameters with types and defaults, the type that an alias stands for."""

from collections.abc import Iterator
from typing import NamedTuple

from tree_sitter import Node

from ai_forge.data_pipeline.examples.block_tree import BlockTree, node_text, own_nodes, tree_of_block
from ai_forge.data_pipeline.examples.families.base import (
    MAX_LISTED,
    MAX_QUOTED,
    Draft,
    Subject,
    draft_of,
    facts_as,
    listed,
)
from ai_forge.data_pipeline.text.words import one_line

__all__ = ["alias", "fields", "typed_parameters"]

_FIELDS = ("field_declaration", "property_signature", "public_field_definition", "property_declaration")
_FIELD_LANGUAGES = ("go", "rust", "java", "csharp", "typescript", "tsx", "python")
_FIELD_BODIES = ("struct_type", "field_declaration_list", "class_body", "interface_body", "declaration_list", "block")
_PARAMETERS = ("typed_parameter", "typed_default_parameter", "default_parameter", "required_parameter", "optional_parameter",
               "parameter", "formal_parameter", "simple_parameter", "parameter_declaration", "assignment_pattern")  # fmt: skip
_ALIASES = ("type_spec", "type_alias", "type_alias_declaration", "type_item")
_NO_ALIAS = ("struct_type", "interface_type", "object_type")


class _Declared(NamedTuple):
    names: tuple[str, ...]
    type: str
    value: str


def fields(subject: Subject) -> list[Draft]:
    """The fields of a class or struct, and the type of one of them; nothing where it embeds what is not shown."""
    block = subject.block
    tree = tree_of_block(block) if block.language in _FIELD_LANGUAGES else None
    if tree is None:
        return []
    declared = list(_fields(tree))
    names = [name for field in declared for name in field.names]
    if not names or any(not field.names for field in declared) or len(set(names)) < len(names):
        return []
    drafts: list[Draft] = []
    if len(names) <= MAX_LISTED + 2:
        answer = f"`{block.name}` declares the {'fields' if len(names) > 1 else 'field'} {listed(names)}."
        drafts.append(draft_of("members", subject, answer, facts_as("name", names), wording="fields"))
    typed = [(name, field.type) for field in declared for name in field.names if _is_quotable(field.type)]
    if typed:
        name, its_type = typed[int(block.id, 16) % len(typed)]
        answer = f"`{name}` of `{block.name}` has the type `{its_type}`."
        facts = facts_as("type", [its_type])
        drafts.append(draft_of("members", subject, answer, facts, wording="field_type", name=f"`{name}`"))
    return drafts


def _fields(tree: BlockTree) -> Iterator[_Declared]:
    """The fields in the body; in Python the annotated names, and nothing where others are assigned beside them."""
    body = tree.body
    if body is None and tree.definition is not None:  # Go's struct has no field for its body
        body = next((node for node in own_nodes(tree.definition) if node.type == "struct_type"), None)
    items = list(body.named_children) if body is not None else []
    if len(items) == 1 and items[0].type in _FIELD_BODIES:
        items = list(items[0].named_children)
    if tree.language == "python":
        assigned = [n.named_children[0] for n in items if n.type == "expression_statement" and n.named_children]
        assigned = [node for node in assigned if node.type == "assignment"]
        is_whole = all(node.child_by_field_name("type") is not None for node in assigned)
        yield from (_declared(node) for node in assigned if is_whole)
        return
    yield from (_declared(node) for node in items if node.type in _FIELDS)


def _declared(node: Node) -> _Declared:
    """The names, the type and the value of a declaration."""
    found = [child for name in ("name", "pattern", "left") for child in node.children_by_field_name(name)]
    for declarator in node.children_by_field_name("declarator"):
        inside = declarator.child_by_field_name("name")
        found += [inside] if inside is not None else []
    if not found and node.type in _PARAMETERS and node.named_children:
        found = [node.named_children[0]]
    for child in node.named_children if not found else ():
        if child.type == "variable_declaration":  # C# has one node more
            found += [n for d in child.named_children for n in d.children_by_field_name("name")]
            node = child
    its_type, value = (
        node.child_by_field_name("type"),
        node.child_by_field_name("value") or node.child_by_field_name("right"),
    )
    return _Declared(
        tuple(node_text(name) for name in found if name.type.endswith("identifier") or name.type == "variable_name"),
        one_line(node_text(its_type)).removeprefix(":").strip() if its_type is not None else "",
        one_line(node_text(value)) if value is not None else "",
    )


def typed_parameters(subject: Subject) -> list[Draft]:
    """The declared type of one parameter, and the default value of one."""
    block = subject.block
    tree = tree_of_block(block)
    if tree is None or tree.definition is None:
        return []
    end = tree.body.start_byte if tree.body is not None else tree.definition.end_byte
    known = set(block.metadata.parameters)
    nodes = (node for node in own_nodes(tree.definition) if node.type in _PARAMETERS and node.end_byte <= end)
    declared = [(name.lstrip("$"), one) for one in map(_declared, nodes) for name in one.names]
    declared = [(name, one) for name, one in declared if name in known and name.strip("_")]
    typed = [(name, one.type) for name, one in declared if _is_quotable(one.type)]
    preset = [(name, one.value) for name, one in declared if _is_quotable(one.value)]
    drafts: list[Draft] = []
    if typed:
        name, its_type = typed[int(block.id, 16) % len(typed)]
        answer = f"The parameter `{name}` of `{block.name}` is declared as `{its_type}`."
        facts = facts_as("type", [its_type])
        drafts.append(draft_of("parameters", subject, answer, facts, wording="parameter_type", name=f"`{name}`"))
    if preset:
        name, value = preset[int(block.id, 16) % len(preset)]
        answer = f"`{name}` of `{block.name}` is `{value}` by default."
        drafts.append(draft_of("parameters", subject, answer, wording="default", name=f"`{name}`"))
    return drafts


def alias(subject: Subject) -> list[Draft]:
    """What a name for another type stands for."""
    block = subject.block
    tree = tree_of_block(block) if block.block_type == "type" else None
    if tree is None or tree.definition is None:
        return []
    nodes = [tree.definition, *tree.definition.named_children]
    node = next((one for one in nodes if one.type in _ALIASES), None)
    target = (node.child_by_field_name("type") or node.child_by_field_name("value")) if node is not None else None
    if target is None or target.type in _NO_ALIAS or not _is_quotable(text := one_line(node_text(target))):
        return []
    answer = f"`{block.name}` is defined as `{text}`."
    return [draft_of("pattern", subject, answer, facts_as("type", [text]), wording="alias")]


def _is_quotable(text: str) -> bool:
    return 0 < len(text) <= MAX_QUOTED and "`" not in text
