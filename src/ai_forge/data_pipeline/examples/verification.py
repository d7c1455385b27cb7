"""Does an example say only what its documents hold? Applied to everything that is generated, whoever wrote it."""

import re
import textwrap
from functools import lru_cache

from ai_forge.data_pipeline.examples.block_tree import parses
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.text.words import flat, identifiers, names_in, one_line, plain
from ai_forge.prompting.prompt import FENCE, NOT_IN_CONTEXT, citations_in

__all__ = ["GAP", "code_spans", "verify_example"]

GAP = "<missing>"
"""Stands for the lines that a question asks for."""
_MAX_TEST_LINES = 20
# Shorter lines of documentation stand in code by chance
_MIN_LINE_WORDS = 4
_SPAN = re.compile(r"`([^`\n]+)`")
_QUOTATION = re.compile(r'says: "(.+?)"(?=$|[.\s])')
_SIMPLE = re.compile(r"^@?[\w$.]+(\([\w$., *]*\))?$")
_COMMENT_MARK = re.compile(r"^\s*(?:/\*\*?|\*/|\*|//+|#)\s?", re.MULTILINE)


def code_spans(text: str) -> list[str]:
    """What stands in backticks, in order, outside of code fences.

    >>> code_spans("`a` calls `b.c`")
    ['a', 'b.c']
    """
    return _SPAN.findall(FENCE.sub("", text))


def verify_example(example: RAFTExample) -> list[str]:
    """What is wrong with an example; empty means that each statement was found in its documents.

    Checked: every citation is an oracle's and, with an oracle, there is one; every fact stands in backticks in the
    answer and in an oracle; no wrong fact stands in an oracle; whatever is in backticks is code of an oracle, or made
    of names that stand there or in the question; every quoted documentation is an oracle's, word for word. Code that is
    asked for is not shown, parses, and fits where it is missing. No answer is a copy of what is shown.
    """
    citations = citations_in(example.target)
    if not example.oracle_documents:
        return _verify_no_oracle(example, citations)
    problems: list[str] = []
    allowed = {document.citation for document in example.oracle_documents}
    problems += [f"cites {c}, which is no oracle" for c in citations if c not in allowed]
    if not citations:
        problems.append("cites nothing")
    code = " ".join(filter(None, (flat(document.text) for document in example.oracle_documents)))
    known = frozenset[str]().union(*(names_in(document.text) for document in example.oracle_documents))
    for fact in example.facts:
        # In backticks and whole: a name inside another one (`read` in `read_rows`) does not state it.
        if fact.value not in code_spans(example.final_answer):
            problems.append(f"does not state the {fact.kind} {fact.value}")
        place = " ".join(allowed) if fact.kind == "location" else code
        if not set(identifiers(fact.value)) <= set(identifiers(place)):
            problems.append(f"the {fact.kind} {fact.value} is not in the oracle")
    wrong = [fact for fact in example.wrong_facts if fact.value in known]
    problems += [f"the wrong {fact.kind} {fact.value} is in the oracle" for fact in wrong]
    titles = {document.name for document in example.oracle_documents}
    named = known | set(identifiers(" ".join([example.question, *titles])))
    for span in code_spans(example.target):
        is_path = any(citation.startswith(f"{span}:") for citation in allowed)
        is_name = bool(_SIMPLE.match(span)) and set(identifiers(span)) <= named
        # In the order of their cost: the words of the documentation are read only where nothing else explains the span.
        is_known = span in titles or is_path or is_name or one_line(span) in code
        if not is_known and not set(identifiers(span)) <= _words(example):
            problems.append(f"`{span}` is in no oracle")
    for quoted in _QUOTATION.findall(example.final_answer):
        if not any(plain(quoted) in _prose(document.text) for document in example.oracle_documents):
            problems.append("quotes documentation that is in no oracle")
    return problems + _verify_asked_for(example) + _verify_no_copy(example)


def _verify_asked_for(example: RAFTExample) -> list[str]:
    """Problems of an answer that is code or documentation."""
    fences = FENCE.findall(example.final_answer)
    if example.family not in ("fill_in_the_middle", "write_docstring", "write_test"):
        return ["holds code that was not asked for" for _ in fences[:1]]
    if len(fences) != 1:
        return [f"holds {len(fences)} pieces of code, asked for is one"]
    code = fences[0].rstrip("\n")
    problems: list[str] = []
    documents = (*example.oracle_documents, *example.distractor_documents)
    if any(one_line(code) in flat(document.text) for document in documents):
        problems.append("what is asked for is shown")
    oracle = example.oracle_documents[0]
    if example.family == "fill_in_the_middle":
        holes = [line for line in oracle.text.split("\n") if line.strip() == GAP]
        if len(holes) != 1:
            return [*problems, f"shows {len(holes)} gaps"]
        margin = holes[0][: len(holes[0]) - len(holes[0].lstrip())]
        # Parsed in its place: lines that are right alone may still close a bracket too many there.
        whole = oracle.text.replace(holes[0], textwrap.indent(code, margin))
        if not parses(whole, oracle.language):
            problems.append("the missing lines do not fit into the gap")
    if example.family == "write_docstring":
        lines = [one_line(line) for line in code.split("\n") if len(line.split()) >= _MIN_LINE_WORDS]
        if any(line in flat(document.text) for document in documents for line in lines):
            problems.append("a line of the documentation that is asked for is shown")
    if example.family == "write_test":
        if code.count("\n") + 1 > _MAX_TEST_LINES or not parses(code, oracle.language):
            problems.append(f"the test is longer than {_MAX_TEST_LINES} lines or does not parse")
        if oracle.name.rpartition(".")[2] not in identifiers(code):
            problems.append("the test does not name its subject")
    return problems


def _verify_no_copy(example: RAFTExample) -> list[str]:
    answer = one_line(example.final_answer)
    documents = (*example.oracle_documents, *example.distractor_documents)
    if answer in one_line(example.question) or any(answer in flat(document.text) for document in documents):
        return ["the answer is a copy of what is shown"]
    return []


def _verify_no_oracle(example: RAFTExample, citations: list[str]) -> list[str]:
    problems = [f"cites {c} without an oracle" for c in citations]
    if example.final_answer != NOT_IN_CONTEXT:
        problems.append("has no oracle but an answer")
    if example.facts:
        problems.append("states facts without an oracle")
    return problems


def _words(example: RAFTExample) -> set[str]:
    """Names inside the documentation that an answer quotes."""
    return {word for document in example.oracle_documents for word in identifiers(_prose(document.text))}


@lru_cache(maxsize=1 << 13)
def _prose(document: str) -> str:
    return plain(_COMMENT_MARK.sub("", document))
