"""One block's own syntax tree, for what its metadata does not hold: statements, comments, modifiers, ways out.

A block is parsed alone. A method of JavaScript or PHP is no program by itself, so it is put into a class (or behind `<?php`)
on lines of their own; rows of nodes count in `BlockTree.lines`, which holds those lines too.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from tree_sitter import Node, Parser

from ai_forge.data_pipeline.languages import LANGUAGES, load
from ai_forge.data_pipeline.schemas import CodeBlock

__all__ = [
    "BlockTree",
    "comments_in",
    "last_row",
    "node_text",
    "own_nodes",
    "parses",
    "tree_of",
    "tree_of_block",
    "words_before",
]

_COMMENT_MARKS = (b"#", b"//", b"/*", b"=begin", b"<!--")
_IN_CLASS = ("class C {", "}")
# What a block may need around it, tried in this order after nothing at all (and before, for the methods of JavaScript:
# `put(name) {…}` alone may be read as a call and a block)
_AROUND: dict[str, tuple[tuple[str, str], ...]] = {
    "javascript": (_IN_CLASS, ("({", "})")),
    "typescript": (_IN_CLASS, ("({", "})"), ("interface I {", "}")),
    "tsx": (_IN_CLASS, ("({", "})"), ("interface I {", "}")),
    "php": (("<?php", ""), ("<?php class C {", "}"), ("<?php interface C {", "}")),
    "csharp": (_IN_CLASS, ("interface I {", "}"), ("enum E {", "}")),
    "java": (_IN_CLASS, ("enum E { A;", "}"), ("interface I {", "}"), ("@interface I {", "}")),
    "kotlin": (_IN_CLASS,),
    "scala": (_IN_CLASS,),
    "cpp": (("class C {", "};"),),
    "rust": (("impl C {", "}"), ("trait T {", "}")),
}
_METHODS_FIRST = ("javascript", "typescript", "tsx")
# What is defined (or run) apart from the code around it: its returns and raises are its own
_DEFINED_INSIDE = frozenset(
    {
        "function_definition", "function_declaration", "function_item", "function_expression", "function",
        "generator_function", "generator_function_declaration", "method_definition", "method_declaration", "method",
        "singleton_method", "local_function_statement", "func_literal", "arrow_function", "lambda", "lambda_expression",
        "lambda_literal", "anonymous_function", "anonymous_method_expression", "closure_expression", "async_block",
        "class_definition", "class_declaration", "class_specifier", "class_body", "class", "object_literal",
    }
)  # fmt: skip
_INNER_BODIES = ("statement_list", "block", "body_statement", "statements")


@dataclass(frozen=True)
class BlockTree:
    """A block parsed: `tops` are what stands outermost (comments, attributes, the definition), `lines` what was parsed."""

    language: str
    lines: tuple[str, ...]
    n_before: int
    n_after: int
    tops: tuple[Node, ...]

    @property
    def definition(self) -> Node | None:
        """The outermost definition (or statement), without the comments above it."""
        found = (node for node in reversed(self.tops) if "comment" not in node.type and "attribute" not in node.type)
        return next(found, None)

    @cached_property
    def body(self) -> Node | None:
        """The body of the outermost definition."""
        types = LANGUAGES[self.language].bodies
        level = [node for node in (self.definition,) if node is not None]
        # Level by level, so that the body found is the outermost one: a decorated or exported definition lies deeper.
        while level:
            for node in level:
                body = node.child_by_field_name("body")
                body = body or next((child for child in node.named_children if child.type in types), None)
                if body is not None:
                    return body
            level = [child for node in level for child in node.named_children]
        return None

    @property
    def statements(self) -> list[Node]:
        """What the body is made of, without comments. Go and Kotlin wrap the statements once more."""
        body = self.body
        while body is not None and body.named_child_count == 1 and body.named_children[0].type in _INNER_BODIES:
            body = body.named_children[0]
        if body is None:
            return []
        return [node for node in body.named_children if "comment" not in node.type]

    def text_without(self, first: int, last: int, instead: Sequence[str] = ()) -> str:
        """The block's source with the rows `first` to `last` replaced."""
        whole = [*self.lines[:first], *instead, *self.lines[last + 1 :]]
        return "\n".join(whole[self.n_before : len(whole) - self.n_after])


@lru_cache(maxsize=16)  # the families ask for the same block one after the other
def tree_of(source: str, language: str, *, is_method: bool = False) -> BlockTree | None:
    """The tree of `source` without its common indentation; None without a grammar, or where it does not stand alone."""
    loaded = load(language)
    if loaded is None:
        return None
    parser = Parser(loaded[0])
    text = textwrap.dedent(source)
    around = _AROUND.get(language, ())
    tries = [("", ""), *around]
    if language == "php":  # without its mark all of it is text, which parses
        tries = [*around[1:], around[0]] if is_method else list(around)
    elif is_method and language in _METHODS_FIRST:
        tries = [*around, ("", "")]
    for before, after in tries:
        lines = [*filter(None, [before]), *text.split("\n"), *filter(None, [after])]
        root = parser.parse("".join(f"{line}\n" for line in lines).encode("utf-8", "replace")).root_node
        if root.has_error:
            continue
        outermost = root
        if after:  # the bracket that ends the first line opens the body that the block stands in
            bracket = root.descendant_for_point_range((0, len(before) - 1), (0, len(before)))
            if bracket is not None and bracket.parent is not None:
                outermost = bracket.parent
        tops = [node for node in outermost.named_children if node.start_point[0] >= bool(before)]
        return BlockTree(language, tuple(lines), int(bool(before)), int(bool(after)), tuple(tops))
    return None


def tree_of_block(block: CodeBlock) -> BlockTree | None:
    """A block's own tree."""
    return tree_of(block.source_code, block.language, is_method=block.block_type == "method")


def parses(source: str, language: str) -> bool:
    """Whether `source` is of its language."""
    return tree_of(source, language) is not None


def node_text(node: Node) -> str:
    """The source of a node."""
    return (node.text or b"").decode("utf-8", "replace")


def own_nodes(root: Node) -> Iterator[Node]:
    """The nodes below one that run as part of it, in order: not those of functions and classes defined inside."""
    left = list(reversed(root.children))  # no function here recurses: code nests as deep as it likes
    while left:
        node = left.pop()
        if node.type not in _DEFINED_INSIDE or not node.is_named:  # `function` is the keyword, too
            yield node
            left.extend(reversed(node.children))


def comments_in(tree: BlockTree) -> list[Node]:
    """Comments in order."""
    # Most blocks have none: to look for the marks in the bytes is much less than to walk the tree.
    left = [node for node in reversed(tree.tops) if any(mark in (node.text or b"") for mark in _COMMENT_MARKS)]
    found: list[Node] = []
    while left:
        node = left.pop()
        if "comment" in node.type:
            found.append(node)
        left.extend(reversed(node.children))
    return found


def last_row(node: Node) -> int:
    """The row of a node's last character: some grammars count a comment's line end to it."""
    row, column = node.end_point
    return row if column else row - 1


def words_before(node: Node, end: int) -> list[str]:
    """The words of a node's source up to a byte, without annotations: its modifiers, type and the like."""
    head = (node.text or b"")[: max(0, end - node.start_byte)].decode("utf-8", "replace")
    return re.findall(r"(?<!@)#?\b[\w$]+", re.sub(r"@[\w.]+(\([^()]*\))?|//.*|/\*.*?\*/", " ", head))
