"""Families about who uses a block: one use, all callers, what a change reaches."""

import re
from collections import defaultdict

from ai_forge.data_pipeline.examples.families.base import (
    Draft,
    Subject,
    closes_its_brackets,
    draft_of,
    facts_as,
    listed,
)
from ai_forge.data_pipeline.graph.symbols import overlap
from ai_forge.data_pipeline.mining.filters import is_test_path
from ai_forge.data_pipeline.schemas import CodeBlock
from ai_forge.data_pipeline.text.words import one_line

_MAX_LINE = 100
_WORD = re.compile(r"[\w$]+")
_CALLED = re.compile(r"(?<![\w$])([\w$]+)\s*\(")
# A comment, or the line that defines the name
_NO_CALL = re.compile(r"(#|//|\*|def |class )")
_TRAILING = re.compile(r"\s+(?://\s[^\"'`]*|/\*[^\"'`]*\*/|#\s[^\"'`]*)$")
_SUPER = re.compile(r"\b(?:super|base\.|parent::)")
# More would not fit into a prompt, and an answer that lists some of them would be wrong
_MAX_CALLERS = 3


def usage(subject: Subject) -> list[Draft]:
    """One caller and its line."""
    block = subject.block
    for caller in subject.graph.callers(block):
        # The line that the graph knows: of two calls of one name in a caller, the other may mean another block.
        line = call_line(caller, block.name, subject.graph.call_line(caller, block))
        if overlap(block, caller) or line is None or caller.name == block.name:
            continue
        answer = f"`{caller.name}` uses `{block.name}`: `{line}`."
        where = "usage_test" if is_test_path(caller.path) else "usage"
        return [draft_of("usage", subject, answer, facts_as("name", [caller.name]), ("name",), (caller,), where)]
    return []


def call_line(caller: CodeBlock, name: str, number: int | None = None) -> str | None:
    """The first short line of `caller` that calls `name`, or line `number` of its file, if it is one.

    A name alone may be another's: of two `render` only the graph knows which one a line calls.
    """
    first = 1 if number is None else number - caller.metadata.first_line + caller.metadata.head_lines
    end = None if number is None else first + 1
    for line in caller.source_code.split("\n")[first:end]:
        if name not in line:
            continue
        text = _TRAILING.sub("", one_line(line))
        is_call = len(text) <= _MAX_LINE and "`" not in text and _calls(text, name) and not _NO_CALL.match(text)
        whole = text.rstrip(" {:;,")
        if is_call and closes_its_brackets(whole):
            return whole
    return None


def _calls(line: str, name: str) -> bool:
    if _WORD.fullmatch(name):  # compiling an expression for each name takes longer than all searches
        return name in _CALLED.findall(line)
    return re.search(rf"(?<![\w$]){re.escape(name)}\s*\(", line) is not None


def callers(subject: Subject) -> list[Draft]:
    """All callers that are shown, where there are two or three: code of another side of the split may hold more."""
    code, tests = _callers(subject)
    # One that calls itself would be among them; on another object only a reader can tell that it is the same function.
    if any(name.rpartition(".")[2] == subject.block.name for name in subject.block.metadata.calls):
        return []
    if subject.is_named_elsewhere((*code, *tests)) or not 2 <= len(code) <= _MAX_CALLERS:
        return []
    name, names = subject.block.name, [caller.name for caller in code]
    answer = f"In these documents `{name}` is called by {listed(names)}."
    return [draft_of("callers", subject, answer, facts_as("name", names), others=tuple(code))]


def change_impact(subject: Subject) -> list[Draft]:
    """Who has to be looked at when the block changes: its callers, and the test that runs it."""
    code, tests = _callers(subject)
    if subject.is_named_elsewhere((*code, *tests)) or not 1 <= len(code) <= _MAX_CALLERS:
        return []
    name, names = subject.block.name, [caller.name for caller in code]
    verb, them = ("calls", "it") if len(names) == 1 else ("call", "them")
    answer = f"In these documents {listed(names)} {verb} `{name}`, so look at {them} when it changes."
    others = tuple(code)
    test = next((caller for caller in tests if caller.name.lower().startswith("test")), None)
    if test is not None and len(code) < _MAX_CALLERS:
        names.append(test.name)
        answer += f" The test `{test.name}` runs it."
        others += (test,)
    return [draft_of("change_impact", subject, answer, facts_as("name", names), others=others)]


def _callers(subject: Subject) -> tuple[list[CodeBlock], list[CodeBlock]]:
    """(callers in code, callers in tests), innermost blocks only; nothing where one of them cannot be told apart."""
    block = subject.block
    found = subject.graph.callers(block)
    # What overrides it and runs it by `super` depends on it, too, without its name
    others = (one for one in subject.graph.definitions(block.name) if one is not block and not is_test_path(one.path))
    if any(_SUPER.search(one.source_code) for one in others):
        return [], []
    if any(overlap(block, caller) for caller in found):
        return [], []
    # A class that holds the calling method calls, too: a reader looks at the method.
    in_file: dict[str, list[CodeBlock]] = defaultdict(list)
    for caller in found:
        in_file[caller.path].append(caller)
    inner = [c for c in found if not any(c is not o and _holds(c, o) for o in in_file[c.path])]
    names = [caller.name for caller in inner]
    # Two callers of one name would be one word in the answer, and what a module's head runs has no name at all.
    if len(set(names)) < len(names) or block.name in names or any(caller.block_type == "module" for caller in inner):
        return [], []
    code = [caller for caller in inner if not is_test_path(caller.path)]
    return code, [caller for caller in inner if is_test_path(caller.path)]


def _holds(outer: CodeBlock, inner: CodeBlock) -> bool:
    """Of two blocks of one file."""
    a, b = outer.metadata, inner.metadata
    return a.first_line <= b.first_line and b.last_line <= a.last_line
