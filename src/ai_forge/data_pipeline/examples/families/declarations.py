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
    plural,
)
from ai_forge.data_pipeline.text.words import one_line

__all__ = ["alias", "fields", "typed_parameters"]

_FIELDS = ("field_declaration", "property_signature", "public_field_definition", "property_declaration")
_PROPERTIES = ("property_signature", "property_declaration")
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
    kind: str = "field"


def fields(subject: Subject) -> list[Draft]:
    """The fields of a class or struct, and the type of one of them; nothing where it embeds what is not shown."""
    block = subject.block
    tree = tree_of_block(block)
    if tree is None or block.language not in _FIELD_LANGUAGES:
        return []
    declared = list(_fields(tree))
    kinds = {field.kind for field in declared}
    noun = "property" if kinds == {"property"} else "field"
    names = [name for field in declared for name in field.names]
    if not names or any(not field.names for field in declared) or len(set(names)) < len(names):
        return []
    drafts: list[Draft] = []
    if len(names) <= MAX_LISTED + 2 and len(kinds) == 1:
        answer = f"`{block.name}` declares the {plural(noun, names)} {listed(names)}."
        of_these = plural(noun, names + names)
        drafts.append(draft_of("members", subject, answer, facts_as("name", names), wording="fields", noun=of_these))
    typed = [(name, field.type, field.kind) for field in declared for name in field.names if _is_quotable(field.type)]
    if typed:
        name, its_type, noun = typed[int(block.id, 16) % len(typed)]
        answer = f"`{name}` of `{block.name}` has the type `{its_type}`."
        facts = facts_as("type", [its_type])
        drafts.append(draft_of("members", subject, answer, facts, wording="field_type", name=f"`{name}`", noun=noun))
    return drafts


def _fields(tree: BlockTree) -> Iterator[_Declared]:
    """The fields in the body; in Python the annotated names, and nothing where others are assigned beside them."""
    body = tree.body
    if body is None and tree.definition is not None:  # Go's struct has no field for its body
        body = next((node for node in own_nodes(tree.definition) if node.type == "struct_type"), None)
    if body is None and (alias_of := _aliased(tree)) is not None and alias_of.type == "object_type":
        body = alias_of  # `type A = {…}` of TypeScript, whole: what it is united or joined with would not be listed
    if body is None:
        return
    items = list(body.named_children)
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
        found += declarator.children_by_field_name("name")[:1]
    if not found and node.type in _PARAMETERS and node.named_children:
        found = [node.named_children[0]]
    if not found:
        for child in node.named_children:
            if child.type == "variable_declaration":  # C# has one node more
                for declarator in child.named_children:
                    found += declarator.children_by_field_name("name")
                node = child
    kind = "property" if node.type in _PROPERTIES else "field"
    names = [name for name in found if name.type.endswith("identifier") or name.type == "variable_name"]
    declared = _Declared(tuple(map(node_text, names)), "", "", kind)
    its_type = node.child_by_field_name("type")
    if its_type is not None:  # the grammars of TypeScript count the colon to the type
        declared = declared._replace(type=one_line(node_text(its_type)).removeprefix(":").strip())
    value = node.child_by_field_name("value") or node.child_by_field_name("right")
    return declared if value is None else declared._replace(value=one_line(node_text(value)))


def typed_parameters(subject: Subject) -> list[Draft]:
    """The declared type of one parameter, and the default value of one."""
    block = subject.block
    tree = tree_of_block(block)
    if tree is None or tree.definition is None:
        return []
    end = tree.definition.end_byte
    if tree.body is not None:
        end = tree.body.start_byte
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
    tree = tree_of_block(block)
    if tree is None or block.block_type != "type":
        return []
    target = _aliased(tree)
    if target is None or target.type in _NO_ALIAS:
        return []
    text = one_line(node_text(target))
    if not _is_quotable(text):
        return []
    answer = f"`{block.name}` is defined as `{text}`."
    return [draft_of("pattern", subject, answer, facts_as("type", [text]), wording="alias")]


def _aliased(tree: BlockTree) -> Node | None:
    """The type that the definition of another one gives a name to."""
    if tree.definition is None:
        return None
    nodes = [tree.definition, *tree.definition.named_children]  # in Go, and behind `export`, it stands one level deeper
    node = next((one for one in nodes if one.type in _ALIASES), None)
    return None if node is None else node.child_by_field_name("type") or node.child_by_field_name("value")


def _is_quotable(text: str) -> bool:
    return 0 < len(text) <= MAX_QUOTED and "`" not in text
