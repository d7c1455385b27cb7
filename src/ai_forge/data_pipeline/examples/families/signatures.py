"""What a signature and a body say as a whole: which parameters may be left out, whether all calls of a function are known."""

import re
from collections.abc import Collection

from tree_sitter import Node

from ai_forge.data_pipeline.examples.block_tree import node_text, tree_of_block
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.text.words import brackets_only, closed_at, outer_parts, without_brackets

__all__ = ["calls_only", "optional_parameters"]

# Languages in which no parameter has a default; in Rust `=` in a signature binds an associated type.
_NO_DEFAULTS = ("go", "java", "rust", "c", "bash")
_TYPED = ("typescript", "tsx")
_OPTIONAL = re.compile(r"[\w$]\?\s*(?::|$)")
_DEFAULT = re.compile(r"(?<![=!<>])=(?![=>])")
_CALLS = (
    "call", "call_expression", "function_call_expression", "method_invocation", "member_call_expression",
    "nullsafe_member_call_expression", "scoped_call_expression", "invocation_expression",
)  # fmt: skip
# A macro calls what its arguments and its definition hold, unseen; a constructor's head may call another one.
_CALLS_UNSEEN = ("macro_invocation", "constructor_initializer")
_LAST_NAME = re.compile(r"[\w$]+[?!]?$")


def optional_parameters(block: CodeBlock) -> tuple[str, ...]:
    """The parameters that a caller may leave out, by name; none where one that has a default has no name."""
    meta = block.metadata
    if block.language in _NO_DEFAULTS or not ("=" in meta.signature or "?" in meta.signature):
        return ()
    signature = brackets_only(meta.signature)
    named = re.search(rf"(?<![\w$]){re.escape(block.name)}\s*(?:=\s*(?:async\s*)?)?(?=[(<])", signature)
    start = signature.find("(", named.end() if named else 0)
    if named and signature[named.end() : named.end() + 1] == "<":  # the brackets in its type parameters are not meant
        start = signature.find("(", closed_at(signature, named.end()))
    if start < 0:
        return ()
    optional: list[str] = []
    for part in outer_parts(signature[start + 1 : closed_at(signature, start)]):
        head = without_brackets(part)
        has_default = _DEFAULT.search(head) is not None
        if has_default:
            head = head.partition("=")[0]
        if not has_default and not (block.language in _TYPED and _OPTIONAL.search(head)):
            continue
        if block.language != "cpp":  # there the type stands before the name, and `::` in it
            head = head.partition(":")[0]
        words = re.findall(r"[\w$]+", head)
        name = next((word.lstrip("$") for word in reversed(words) if word.lstrip("$") in meta.parameters), None)
        if name is None:
            return ()
        optional.append(name)
    return tuple(optional)


def calls_only(block: CodeBlock, known: Collection[str]) -> bool:
    """Whether a function calls nothing besides `known`: what is called may have no name that could be told (`f(a)(b)`)."""
    tree = tree_of_block(block)
    if tree is None or tree.definition is None:
        return False
    names = {match[0] for name in known if (match := _LAST_NAME.search(name)) is not None}
    if any(child.type in _CALLS_UNSEEN for child in tree.definition.children):
        return False
    # Decorators are no calls of the body; what a function inside calls is listed with the rest.
    left = [tree.body] if tree.body is not None else [tree.definition]
    while left:
        node = left.pop()
        if node.type in _CALLS_UNSEEN or (node.is_named and node.type in _CALLS and _called(node) not in names):
            return False
        left.extend(node.children)
    return True


def _called(node: Node) -> str | None:
    """The last name of what a node calls; None where it has none, or is called on what another call gives."""
    callee = node.child_by_field_name("function") or node.child_by_field_name("name")
    callee = callee or node.child_by_field_name("method") or (node.named_children[0] if node.named_children else None)
    if callee is None or callee.type.startswith("parenthesized"):
        return None
    match = _LAST_NAME.search(re.sub(r"(?:::)?<[^()]*>$|!$", "", node_text(callee)).rstrip())
    return None if match is None else match[0]
