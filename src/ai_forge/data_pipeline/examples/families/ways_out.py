"""How a function ends: what it raises, what it returns, and under which conditions. Read off its own tree.

The miner lists what stands in a function; whether that is the whole truth depends on what stands around it. A raise inside a
`try` may be caught, a guard inside another `if` needs both conditions, a function that can run off its end returns nothing as
well. What cannot be told for certain is None, and no question is asked about it.
"""

import re
from collections.abc import Iterator

from tree_sitter import Node

from ai_forge.data_pipeline.examples.block_tree import node_text, own_nodes, tree_of_block
from ai_forge.data_pipeline.schemas import CodeBlock, Guard
from ai_forge.data_pipeline.text.words import one_line

__all__ = ["conditions_around", "falls_through", "leaves_early_once", "raised_by", "returned_by"]

_RAISES = ("raise_statement", "throw_statement", "throw_expression")
_RAISED = re.compile(r"^(?:raise|throw|fail)\b\s*(?:new\b)?[\s(\\]*([\w$.:\\]+)?")
_TRY = re.compile(r"^(?:try|begin)(?:_|$)")
_HANDLER = re.compile(r"^(?:except|catch|rescue|finally|ensure|seh_except)")
_SUPPRESSES = re.compile(r"\b(?:suppress|raises|assertRaises\w*)\(")
_IF = re.compile(r"^if(?:_|$)")
_LOOP = re.compile(r"^(?:for|while|foreach|enhanced_for|do|until|for_in|for_range|async_for)(?:_|$)")
# A preprocessor's condition is none of the code's
_OTHER_BRANCH = re.compile(
    r"^preproc_|elif|else|case|switch|match|when|unless|conditional|ternary|_arm|rescue|comprehension"
)
_ENDLESS = re.compile(r"while\s*\(?\s*(?:True|true|1)\b")
_PLAIN_STATEMENT = re.compile(r"expression_statement|assignment|declaration|delete|assert|import|pass|print")
_LEAVES = ("return_statement", *_RAISES)
_LEAVING = re.compile(r"(?:return|raise|throw|jump)_(?:statement|expression)$")
_ASSIGNS = re.compile(r"assignment|update_expression|inc_statement|dec_statement|short_var_declaration")
_BLOCKS = ("block", "statement_block", "compound_statement", "else_clause", "finally_clause", "statement_list")


def _around(node: Node, body: Node) -> Iterator[tuple[Node, Node]]:
    """(a node, the one around it) from `node` outwards up to the body."""
    while node.parent is not None and node.id != body.id:
        yield node, node.parent
        node = node.parent


def _is_caught(node: Node, body: Node) -> bool:
    """Whether what is raised at `node` may be caught, replaced or passed over before it leaves the body."""
    for inner, outer in _around(node, body):
        is_try = _TRY.match(outer.type) is not None
        if is_try and not _HANDLER.match(inner.type) and any(_HANDLER.match(c.type) for c in outer.named_children):
            return True
        if outer.type == "with_statement" and _SUPPRESSES.search(node_text(outer).partition("\n")[0]):
            return True
    return False


def raised_by(block: CodeBlock) -> tuple[str, ...] | None:
    """The exceptions that leave a function because it raises them itself; None where that cannot be told."""
    tree = tree_of_block(block)
    if tree is None or tree.body is None:
        return None
    found: dict[str, None] = {}
    for node in own_nodes(tree.body):
        is_call = node.type == "call" and re.match(r"(?:raise|fail)\b", node_text(node)) and block.language == "ruby"
        if not (node.is_named and (node.type in _RAISES or is_call)):
            continue
        if _is_caught(node, tree.body):
            return None
        match = _RAISED.match(node_text(node))
        name = match and match[1]
        handled = _handled(node, tree.body)
        if handled is not None and name in (None, handled[1]):
            found |= dict.fromkeys(handled[0])
        elif name in block.metadata.raises and name is not None:
            found[name] = None
        else:
            return None  # a variable, or what a call gives
    return tuple(found)


def _handled(node: Node, body: Node) -> tuple[list[str], str | None] | None:
    """(types, name) of the Python handler around a raise: `raise` and `raise name` raise these again."""
    for _, outer in _around(node, body):
        if outer.type == "except_clause":
            head = one_line(node_text(outer).partition(":")[0]).removeprefix("except").strip()
            types, _, name = head.partition(" as ")
            names = [part.strip() for part in types.strip("() ").split(",") if part.strip()]
            if not names or not all(re.fullmatch(r"[\w.]+", part) for part in names):
                return None  # bare, or types that are computed
            return names, name or None
    return None


def conditions_around(block: CodeBlock, guard: Guard) -> tuple[list[str], str] | None:
    """(conditions of the `if`s around a guard from the outside in and its own, head of the loop around it or nothing).

    None where the guard stands in a branch whose condition is no `if`'s, in a handler, or where a raise may be caught.
    """
    tree = tree_of_block(block)
    if tree is None or tree.body is None:
        return None
    row = guard.line - block.metadata.first_line + block.metadata.head_lines + tree.n_before
    on_row = (node for node in own_nodes(tree.body) if node.start_point[0] == row)
    at = next((node for node in on_row if one_line(node_text(node)) == guard.condition), None)
    if at is None or (guard.action == "raise" and _is_caught(at, tree.body)):
        return None
    conditions = [guard.condition]
    loop = ""
    own_if = True
    for inner, outer in _around(at, tree.body):
        if _IF.match(outer.type):
            if own_if:
                own_if = False
                conditions = [_with_start(outer, guard.condition)]
                continue
            condition, then = outer.child_by_field_name("condition"), outer.child_by_field_name("consequence")
            if condition is None or then is None or then.id != inner.id:
                return None
            if _is_changed(node_text(condition), then, at.start_byte):
                return None  # the same name is another value by then
            conditions.insert(0, _with_start(outer, _without_parentheses(one_line(node_text(condition)))))
        elif _LOOP.match(outer.type):
            if loop:
                return None
            inside = outer.child_by_field_name("body")
            end = None if inside is None else inside.start_byte - outer.start_byte
            head = (outer.text or b"")[:end].decode("utf-8", "replace")
            loop = one_line(head).rstrip(" {:")
        elif outer.id != tree.body.id and (_OTHER_BRANCH.search(outer.type) or _HANDLER.match(outer.type)):
            return None
    return (conditions, loop) if not own_if else None


def _is_changed(condition: str, body: Node, end: int) -> bool:
    """Whether a body assigns to a name of a condition before byte `end`."""
    names = set(re.findall(r"[\w$]+", condition))
    for node in own_nodes(body):
        if node.is_named and node.end_byte <= end and _ASSIGNS.search(node.type):
            target = node.child_by_field_name("left") or (node.named_children or [node])[0]
            if names & set(re.findall(r"[\w$]+", node_text(target))):
                return True
    return False


def leaves_early_once(block: CodeBlock) -> bool:
    """Whether exactly one statement ends a function before its last one: then its guard is the only one."""
    tree = tree_of_block(block)
    if tree is None or tree.body is None:
        return False
    outer = {node.id for node in tree.statements}
    outer |= {child.id for node in tree.statements if node.type == "expression_statement" for child in node.children}
    leaving = (node for node in own_nodes(tree.body) if node.is_named and _LEAVING.match(node.type))
    return sum(node.id not in outer for node in leaving) == 1


def _with_start(statement: Node, condition: str) -> str:
    """A condition with what Go runs before it: in `if n := len(a); n > 0` nobody knows `n` otherwise."""
    start = statement.child_by_field_name("initializer")
    return condition if start is None else f"{one_line(node_text(start))}; {condition}"


def _without_parentheses(condition: str) -> str:
    """A condition as the miner quotes it: the parentheses of C's `if` are no part of it."""
    inner = condition[1:-1]
    is_wrapped = condition.startswith("(") and condition.endswith(")") and inner.count("(") == inner.count(")")
    # In `(a) and (b)` the first and the last one do not belong together.
    return inner if is_wrapped and inner.find(")") >= inner.find("(") else condition


def returned_by(block: CodeBlock) -> tuple[str, ...] | None:
    """All expressions that a function returns, as the miner quotes them; None where it quotes only some."""
    tree = tree_of_block(block)
    if tree is None or tree.body is None:
        return None
    quoted = block.metadata.return_values
    for node in own_nodes(tree.body):
        if node.type == "return_statement" and node.is_named:
            values = [child for child in node.named_children if "comment" not in child.type]
            if values and one_line(node_text(values[0])) not in quoted:
                return None
    return quoted


def falls_through(block: CodeBlock) -> bool | None:
    """Whether a function can come to its end, or to a bare `return`; None where that cannot be told."""
    tree = tree_of_block(block)
    if tree is None or tree.body is None:
        return None
    if tree.body.type not in _BLOCKS:
        return False  # an expression
    for node in own_nodes(tree.body):
        if node.type == "return_statement" and node.is_named and not node.named_children:
            return True
        if node.type == "finally_clause":
            return None
    left = [tree.body]
    while left:
        node = left.pop()
        if node.type in _LEAVES:
            continue
        if node.type in _BLOCKS:
            statements = [child for child in node.named_children if "comment" not in child.type]
            if not statements:
                return True
            left.append(statements[-1])
        elif node.type == "with_statement":  # a manager may swallow an exception, which no one writes to return None
            left += [child for child in node.named_children if child.type == "block"]
        elif _IF.match(node.type):
            clauses = ("elif_clause", "else_clause", "else_if_clause")
            others = [child for child in node.named_children if child.type in clauses]
            then = node.child_by_field_name("consequence")
            # Without an else it can be passed by; other languages' last `else if` lies in the else clause.
            if then is None or not any(child.type == "else_clause" for child in others):
                return True
            left += [then, *map(_branch, others)]
        elif _TRY.match(node.type):
            inside = node.child_by_field_name("body")
            if inside is None or any(child.type == "else_clause" for child in node.named_children):
                return None
            handlers = [child for child in node.named_children if _HANDLER.match(child.type)]
            left += [inside, *map(_branch, handlers)]
        elif _LOOP.match(node.type):
            if not _ENDLESS.match(node_text(node)):
                return True
        elif _PLAIN_STATEMENT.search(node.type):
            return True
        else:
            return None
    return False


def _branch(node: Node) -> Node:
    """What a clause runs: its block, or the one statement of `else return x;`."""
    inside = node.child_by_field_name("consequence") or node.child_by_field_name("body")
    if inside is not None:
        return inside
    blocks = [child for child in node.named_children if child.type in _BLOCKS]
    return [node, *node.named_children, *blocks][-1]
