"""Families whose answer is code or documentation: a gap to fill, a docstring to write, a test to write.

What is asked for is the project's own text and is taken out of what is shown. The answer stands in a code fence.
"""

import re
import textwrap
from collections.abc import Sequence
from itertools import chain
from pathlib import PurePosixPath

from tree_sitter import Node

from ai_forge.data_pipeline.examples.block_tree import parses, tree_of_block
from ai_forge.data_pipeline.examples.excerpts import altered, documentation_rows
from ai_forge.data_pipeline.examples.families.base import TAGS, Draft, Subject, draft_of, is_callable
from ai_forge.data_pipeline.examples.families.calls import call_line
from ai_forge.data_pipeline.examples.verification import GAP, code_spans
from ai_forge.data_pipeline.graph.symbols import overlap
from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock, content_id
from ai_forge.data_pipeline.text.words import approximate_tokens, identifiers, one_line, subwords

_MAX_GAP_LINES = 6
_GAP_TOKENS = (8, 80)
# A function of fewer holds too little around a gap to tell what is missing
_MIN_STATEMENTS = 3
_MAX_DOCSTRING_TOKENS = 90
_MIN_WORDS = 4
# A test that calls more of a file than this is not about one of them.
_MAX_TESTED = 2
_TEST_LINES = (3, 20)
# Languages whose tests bear a mark, and those in which a test may have parameters
_MARKED = ("rust", "kotlin", "csharp")
_WITH_FIXTURES = ("python", "php")
_TEST_MARK = re.compile(r"(?:^|[.:])(?:\w*[Tt]est|TestMethod|TestCase|Fact|Theory|rstest|DataProvider)$")
_TEST_MACRO = re.compile(r"^(?:\w+_)?(?:TEST|TEST_F|TEST_P|TEST_CASE|SCENARIO)\s*\(", re.MULTILINE)
_CALLED = re.compile(r"(?<![\w$])([\w$]+)(?:<[^<>()]*>)?\s*\(")
_ASSERTION = re.compile(r"assert|expect|should|\bt\.(?:Err|Fatal)|verify|raises", re.IGNORECASE)
_EXPECTED = re.compile(r"should_panic|expected\s*=|expectException|assertRaises|raises\(|assert\w*Throws|Throws<")


def fill_in_the_middle(subject: Subject) -> list[Draft]:
    """Whole statements of the body are missing; a second document shows who calls the function, or what it calls."""
    block = subject.block
    tree = tree_of_block(block)
    if tree is None or not is_callable(block):
        return []
    statements = tree.statements
    # Not the first statement: what stands above a gap tells what was under way.
    gaps = [gap for node in statements[1:] if (gap := _gap(node, tree.lines)) is not None]
    other = _seen_from(subject)
    if len(statements) < _MIN_STATEMENTS or not gaps or other is None:
        return []
    first, last = gaps[int(content_id(block.id, "gap", str(subject.seed)), 16) % len(gaps)]
    opening = tree.lines[first]
    missing = textwrap.dedent("\n".join(tree.lines[first : last + 1]))
    margin = opening[: len(opening) - len(opening.lstrip())]
    shown = tree.text_without(first, last, [f"{margin}{GAP}"])
    if one_line(missing) in one_line(shown) or "```" in block.source_code:
        return []
    document = altered(block, shown, "gap")
    answer = f"In `{block.name}` this is missing:\n{_fence(missing, block.language)}"
    return [draft_of("fill_in_the_middle", subject, answer, others=(other,), shown_as=document)]


def _gap(node: Node, lines: Sequence[str]) -> tuple[int, int] | None:
    """First and last line (from 0) of a statement that has its lines to itself and is neither trivial nor long."""
    first, last = node.start_point[0], node.end_point[0]
    before, after = lines[first].encode()[: node.start_point[1]], lines[last].encode()[node.end_point[1] :]
    n_tokens = approximate_tokens("\n".join(lines[first : last + 1]))
    if "attribute" in node.type:  # Rust: of the statement below it
        return None
    alone = not before.strip() and after.strip() in (b"", b";")
    fits = last - first < _MAX_GAP_LINES and _GAP_TOKENS[0] <= n_tokens <= _GAP_TOKENS[1]
    if not alone or not fits:
        return None
    return first, last


def _seen_from(subject: Subject) -> CodeBlock | None:
    """A caller with the call, else something that the block calls."""
    block = subject.block
    graph = subject.graph
    callers = (c for c in graph.callers(block) if call_line(c, block.name, graph.call_line(c, block)) is not None)
    near = chain(callers, graph.callees(block))
    return next((other for other in near if not overlap(block, other) and other.block_type != "module"), None)


def write_docstring(subject: Subject) -> list[Draft]:
    """The block is shown without its documentation; the answer is the documentation that the project wrote."""
    block = subject.block
    text = _opening_paragraphs(block.docstring or "")
    prose = TAGS.split(text, maxsplit=1)[0]
    if len(prose.split()) < _MIN_WORDS:  # tags alone document nothing
        return []
    shown = _without_docstring(block)
    # A docstring that speaks of what is not shown cannot be derived from it.
    spoken_of = {word for span in code_spans(text) for word in identifiers(span)}
    if shown is None or not spoken_of <= set(identifiers(shown)):
        return []
    kind = "docstring" if block.language == "python" else "documentation comment"
    answer = f"A {kind} for `{block.name}`:\n{_fence(text, '')}"
    return [draft_of("write_docstring", subject, answer, shown_as=altered(block, shown, "docstring"), kind=kind)]


def _opening_paragraphs(docstring: str) -> str:
    """As many first paragraphs as fit, up to the first example."""
    kept: list[str] = []
    for paragraph in docstring.strip().split("\n\n"):
        if ">>>" in paragraph or "```" in paragraph:
            break
        if approximate_tokens("\n\n".join([*kept, paragraph])) > _MAX_DOCSTRING_TOKENS:
            break
        kept.append(paragraph.rstrip())
    return "\n\n".join(kept)


def _without_docstring(block: CodeBlock) -> str | None:
    """The source without the lines of its documentation; None where they do not stand apart."""
    tree = tree_of_block(block)
    if tree is None or (tree.body is None and tree.language != "go"):  # a head alone does not say what it does
        return None
    rows = documentation_rows(tree)
    if rows is None:
        return None
    shown = textwrap.dedent(block.source_code)
    if rows:
        shown = tree.text_without(*rows).strip("\n")
    # The documentation may have stood elsewhere as well, and a Python body of nothing but it no longer parses.
    opening = one_line(block.docstring or "")[:40]
    if opening in one_line(shown) or not parses(shown, block.language):
        return None
    return shown


def write_test(subject: Subject) -> list[Draft]:
    """The block is shown; the answer is the shortest real test that calls it."""
    block = subject.block
    tests = [
        caller
        for caller in subject.graph.callers(block)
        if is_test_path(caller.path)
        and _is_test(caller)
        and _TEST_LINES[0] <= caller.source_code.count("\n") + 1 <= _TEST_LINES[1]
        and "```" not in caller.source_code
        and _is_about(caller, subject)
        and parses(caller.source_code, caller.language)
    ]
    if not tests:
        return []
    test = min(tests, key=lambda t: (t.metadata.n_tokens, t.path, t.metadata.first_line))
    answer = f"A test of `{block.name}`:\n{_fence(textwrap.dedent(test.source_code), test.language)}"
    return [draft_of("write_test", subject, answer)]


def _is_test(block: CodeBlock) -> bool:
    """Whether a function of test code is a test, and no helper of tests: what runs it says so, or its name does."""
    if not is_callable(block):
        return False
    meta = block.metadata
    if block.language == "cpp":  # `TEST(Suite, Name)` of GoogleTest and its like
        return _TEST_MACRO.search(block.source_code) is not None
    if any(_TEST_MARK.search(mark.partition("(")[0]) for mark in meta.decorators):
        return True
    if block.language in _MARKED or not block.name.lower().startswith("test"):
        return False
    if block.block_type == "function" and "." in meta.qualified_name:  # of one test alone
        return False
    if block.language == "go":
        return block.name.startswith("Test") and len(meta.parameters) == 1 and "testing.T" in meta.signature
    return block.language in _WITH_FIXTURES or not meta.parameters


def _is_about(test: CodeBlock, subject: Subject) -> bool:
    """Whether a test that calls the block is there to test it: by its own name, or by that of its file."""
    block = subject.block
    words, said = set(subwords(block.name)), set(subwords(test.name))
    if len(words & said) > len(words) / 2:
        return True
    if PurePosixPath(block.path).stem != re.sub(
        r"^test_|_test$|\.(test|spec)$|Tests?$", "", PurePosixPath(test.path).stem
    ):
        return False
    tested = [callee for callee in subject.graph.callees(test) if callee.path == block.path]
    # What its name speaks of and it calls is what it is about, known to the graph or not; what it calls without looking
    # at the result only prepares something.
    code = test.source_code[test.source_code.find(test.name) + len(test.name) :]
    called = {name for name in _CALLED.findall(code) if name != block.name}
    is_looked_at = _EXPECTED.search(test.source_code) is not None or any(
        block.name in _CALLED.findall(line) for line in code.split("\n") if _ASSERTION.search(line)
    )
    return len(tested) <= _MAX_TESTED and is_looked_at and not any(set(subwords(name)) <= said for name in called)


def _fence(text: str, language: str) -> str:
    return f"```{language}\n{text}\n```"
