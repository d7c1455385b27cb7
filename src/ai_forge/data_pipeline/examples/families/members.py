"""What the body of a class or an interface holds: which methods may be overridden, and what an implementation has to have."""

import re
from dataclasses import dataclass

from tree_sitter import Node

from ai_forge.data_pipeline.examples.block_tree import BlockTree, node_text, own_nodes, tree_of_block, words_before
from ai_forge.data_pipeline.mining.filters import is_private
from ai_forge.data_pipeline.schemas import CodeBlock

__all__ = ["overridable", "own_methods", "required_members"]

_FIXED = frozenset({"static", "private", "final", "sealed"})
_CONSTRUCTORS = frozenset({"constructor", "__construct", "__destruct", "initialize", "__init__", "__new__", "finalize"})
# Languages whose constructors bear the name of their class
_CLASS_NAMED = ("java", "csharp", "cpp")
# Languages whose methods nobody overrides unless they say so
_MUST_BE_OPEN: dict[str, frozenset[str]] = {
    "kotlin": frozenset({"open", "abstract", "override"}),
    "csharp": frozenset({"virtual", "abstract", "override"}),
    "cpp": frozenset({"virtual", "override"}),
}
_SEALED = frozenset({"final", "sealed", "enum", "record", "static", "struct", "object", "union", "case"})
# An enum that has members cannot be subclassed, and the others only hold fields
_NO_BASE = re.compile(r"^(?:enum\.)?(?:Int|Str)?(?:Enum|Flag)$|^(?:typing\.)?(?:NamedTuple|TypedDict)$")
_FIELD_TYPES = ("property_signature",)
_METHOD = re.compile(r"method|function|constructor")
_ANNOTATION = re.compile(r"@[\w.]+(\([^()]*\))?|//.*|/\*.*?\*/")
_IGNORED = re.compile(
    r"comment|constant_declaration|field_declaration|enum|class|interface_declaration|annotation|decorator"
)


@dataclass(frozen=True)
class _Member:
    node: Node
    name: str
    modifiers: frozenset[str]
    has_body: bool


def overridable(block: CodeBlock) -> tuple[str, ...]:
    """Public methods that a subclass may override; empty where the class cannot be subclassed or its tree tells nothing."""
    tree = tree_of_block(block)
    if tree is None or tree.body is None or tree.definition is None:
        return ()
    words = words_before(tree.definition, tree.body.start_byte)
    at = words.index(block.name) if block.name in words else len(words)
    head = set(words[:at])
    if block.language == "cpp":  # a struct is a class there
        head.discard("struct")
    opens = _MUST_BE_OPEN.get(block.language)
    is_closed = _SEALED & head or "final" in words[at + 1 : at + 2]
    if block.language == "kotlin" and not {"open", "abstract"} & head:
        is_closed = True
    if is_closed or any(_NO_BASE.match(base) for base in block.metadata.bases):
        return ()
    if any(decorator.rpartition(".")[2] == "final" for decorator in block.metadata.decorators):
        return ()
    members = _members(block, tree.body)
    constructors = [member for member in members if member.name == block.name]
    # A class that only makes itself (a singleton, a factory) cannot be built by a subclass.
    if constructors and all("private" in member.modifiers for member in constructors):
        return ()
    found: dict[str, None] = {}
    closed = _accessors(tree.body)
    if block.language == "ruby":
        closed |= _hidden_in_ruby(tree.body)
    for member in members:
        is_open = (opens is None or opens & member.modifiers) and not _FIXED & member.modifiers
        is_hidden = member.name in closed or is_private(member.name) or member.name.startswith(("__", "#"))
        if is_open and not is_hidden and member.name not in (*_CONSTRUCTORS, block.name):
            found[member.name] = None
    return tuple(found)


def own_methods(block: CodeBlock) -> tuple[str, ...]:
    """The names of the methods that a class defines, without its constructors."""
    tree = tree_of_block(block)
    accessors = _accessors(tree.body) if tree is not None and tree.body is not None else set()
    names = tuple(name for name in block.metadata.method_names if name not in accessors)
    if block.language in _CLASS_NAMED:
        return tuple(name for name in names if name != block.name and not name.startswith("~"))
    if block.language == "python":
        return names
    return tuple(name for name in names if name not in _CONSTRUCTORS)


def _accessors(body: Node) -> set[str]:
    """Names of the properties that a body gives by accessors, which the miner keeps as methods."""
    found: set[str] = set()
    for node in _items(body):
        is_read = node.type == "method_definition" and any(child.type in ("get", "set") for child in node.children)
        if is_read or node.type in ("property_declaration", "event_declaration"):
            name = node.child_by_field_name("name")
            found |= {node_text(name)} if name is not None else set()
    return found


def _hidden_in_ruby(body: Node) -> set[str]:
    """Names of the methods that a class of Ruby keeps to itself: below `private`, behind it, or named to it."""
    hidden: set[str] = set()
    below = False
    for node in _items(body):
        words = node_text(node).split(maxsplit=1)
        if node.type == "identifier":
            below = words[0] in ("private", "protected") if words[0] in ("private", "protected", "public") else below
        elif node.type in ("call", "command_call") and words[0].startswith(("private", "protected")):
            hidden |= set(re.findall(r"(?::|\bdef\s+)(\w+[?!=]?)", node_text(node)))
        elif below and (name := node.child_by_field_name("name")) is not None:
            hidden.add(node_text(name))
    return hidden


def required_members(block: CodeBlock) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
    """(methods, properties) that an implementation of an interface has to have; None where the body does not hold them all."""
    tree = tree_of_block(block)
    if tree is None or tree.definition is None or "annotation" in tree.definition.type:
        return None
    body = _body(tree)
    if body is None or block.metadata.bases:  # what the bases ask for is not shown
        return None
    methods: dict[str, None] = {}
    properties: dict[str, None] = {}
    known = {member.node.id: member for member in _members(block, body)}
    for node in _items(body):
        member = known.get(node.id)
        if member is not None:
            if not member.has_body and not {"default", "static", "private"} & member.modifiers:
                methods[member.name] = None
        elif node.type in _FIELD_TYPES:
            name = node.child_by_field_name("name")
            if name is None:
                return None
            if "?" not in [child.type for child in node.children]:
                properties[node_text(name)] = None
        elif not _IGNORED.search(node.type):
            return None  # an embedded interface, an index or call signature, an associated type
    return tuple(methods), tuple(properties)


def _body(tree: BlockTree) -> Node | None:
    """The body of an interface: Go's has no field for it."""
    if tree.language != "go" or tree.definition is None:
        return tree.body
    return next((node for node in own_nodes(tree.definition) if node.type == "interface_type"), None)


def _items(body: Node) -> list[Node]:
    """The members of a body, without comments; Python and Scala wrap decorated or indented ones."""
    items = [node for node in body.named_children if "comment" not in node.type]
    if len(items) == 1 and items[0].type in ("template_body", "declaration_list", "body_statement"):
        items = [node for node in items[0].named_children if "comment" not in node.type]
    return items


def _members(block: CodeBlock, body: Node) -> list[_Member]:
    """The methods of a body. A name is one that the miner found, where it stands before parameters."""
    names = set(block.metadata.method_names)
    found: list[_Member] = []
    for node in _items(body):
        inside = node.child_by_field_name("body")
        if inside is None:  # Kotlin's has no field
            inside = next((child for child in node.named_children if child.type == "function_body"), None)
        end = None if inside is None else inside.start_byte - node.start_byte
        head = _ANNOTATION.sub(" ", (node.text or b"")[:end].decode("utf-8", "replace"))
        words = re.finditer(r"[\w$#]+[?!]?", head)
        match = next((word for word in words if word[0] in names or word[0].rstrip("?") in names), None)
        if match is None or not (_METHOD.search(node.type) or "(" in head[match.end() : match.end() + 3]):
            continue
        modifiers = set(re.findall(r"[\w$]+", head[: match.start()]))
        if "staticmethod" in node_text(node)[: match.start() + 40] or node.type == "singleton_method":
            modifiers.add("static")
        if block.language == "cpp" and re.search(r"\boverride\b", head[match.end() :]):
            modifiers.add("override")
        name = match[0]
        if name not in names:  # TypeScript's `close?()` may be left out, as what has a default body
            modifiers.add("default")
            name = name.rstrip("?")
        found.append(_Member(node, name, frozenset(modifiers), inside is not None))
    return found
