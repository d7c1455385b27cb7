"""One block's own syntax tree, for what its metadata does not hold: statements, comments, the place of its docstring."""

import textwrap
from functools import lru_cache

from tree_sitter import Node, Parser

from ai_forge.data_pipeline.languages import load

_COMMENT_MARKS = (b"#", b"//", b"/*", b"=begin", b"<!--")
__all__ = ["body_of", "comments_in", "parses", "tree_of"]


@lru_cache(maxsize=16)  # the families ask for the same block one after the other
def tree_of(source: str, language: str) -> Node | None:
    """The root of `source` without its common indentation; None without a grammar, or where it does not stand alone."""
    loaded = load(language)
    if loaded is None:
        return None
    root = Parser(loaded[0]).parse(textwrap.dedent(source).encode("utf-8", "replace")).root_node
    return None if root.has_error else root


def parses(source: str, language: str) -> bool:
    """Whether `source` is of its language."""
    return tree_of(source, language) is not None


def body_of(root: Node) -> Node | None:
    """The body of the outermost definition."""
    level = [root]
    while level:
        for node in level:
            body = node.child_by_field_name("body")
            if body is not None:
                return body
        level = [child for node in level for child in node.named_children]
    return None


def comments_in(root: Node) -> list[Node]:
    """Comments in order, but those inside of definitions that lie in the outermost one."""
    found: list[Node] = []
    left = [root] if any(mark in (root.text or b"") for mark in _COMMENT_MARKS) else []
    while left:
        node = left.pop()
        if "comment" in node.type:
            found.append(node)
        left.extend(reversed(node.children))
    return found
