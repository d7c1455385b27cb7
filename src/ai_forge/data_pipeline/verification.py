"""Does an example say only what its documents hold? Applied to everything that is generated, whoever wrote it."""

import re

from ai_forge.data_pipeline.families import plain
from ai_forge.data_pipeline.prompt import NOT_IN_CONTEXT, citations_in
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.text import identifiers, one_line

__all__ = ["code_spans", "verify_example"]

_SPAN = re.compile(r"`([^`\n]+)`")
_QUOTATION = re.compile(r'says: "(.+?)"(?=$|[.\s])')
_SIMPLE = re.compile(r"^@?[\w$.]+(\([\w$., *]*\))?$")
_COMMENT_MARK = re.compile(r"^\s*(?:/\*\*?|\*/|\*|//+|#)\s?", re.MULTILINE)


def code_spans(text: str) -> list[str]:
    """What stands in backticks, in order.

    >>> code_spans("`a` calls `b.c`")
    ['a', 'b.c']
    """
    return _SPAN.findall(text)


def verify_example(example: RAFTExample) -> list[str]:
    """What is wrong with an example; empty means that each statement was found in its documents.

    Checked: every citation is an oracle's and, with an oracle, there is one; every fact stands in backticks in the
    answer and in an oracle; no wrong fact stands in an oracle; whatever is in backticks is code of an oracle, or made
    of names that stand there or in the question; every quoted documentation is an oracle's, word for word.
    """
    citations = citations_in(example.target)
    if not example.oracle_documents:
        return _verify_no_oracle(example, citations)
    problems: list[str] = []
    allowed = {document.citation for document in example.oracle_documents}
    problems += [f"cites {c}, which is no oracle" for c in citations if c not in allowed]
    if not citations:
        problems.append("cites nothing")
    code = one_line("\n".join(document.text for document in example.oracle_documents))
    known = set(identifiers(code))
    spans = code_spans(example.target)
    for fact in example.facts:
        if fact.value not in code_spans(example.final_answer):
            problems.append(f"does not state the {fact.kind} {fact.value}")
        place = " ".join(allowed) if fact.kind == "location" else code
        if not set(identifiers(fact.value)) <= set(identifiers(place)):
            problems.append(f"the {fact.kind} {fact.value} is not in the oracle")
    problems += [
        f"the wrong {fact.kind} {fact.value} is in the oracle" for fact in example.wrong_facts if fact.value in known
    ]
    titles = " ".join(document.name for document in example.oracle_documents)
    named = known | set(identifiers(f"{example.question} {titles}"))
    for span in spans:
        is_path = any(citation.startswith(f"{span}:") for citation in allowed)
        is_name = bool(_SIMPLE.match(span)) and set(identifiers(span)) <= named
        if not (is_path or is_name or one_line(span) in code or set(identifiers(span)) <= _words(example)):
            problems.append(f"`{span}` is in no oracle")
    prose = [_prose(document) for document in example.oracle_documents]
    for quoted in _QUOTATION.findall(example.final_answer):
        if not any(plain(quoted) in text for text in prose):
            problems.append("quotes documentation that is in no oracle")
    return problems


def _verify_no_oracle(example: RAFTExample, citations: list[str]) -> list[str]:
    problems = [f"cites {c} without an oracle" for c in citations]
    if example.final_answer != NOT_IN_CONTEXT:
        problems.append("has no oracle but an answer")
    if example.facts:
        problems.append("states facts without an oracle")
    return problems


def _words(example: RAFTExample) -> set[str]:
    """Names inside the documentation that an answer quotes."""
    return {word for document in example.oracle_documents for word in identifiers(_prose(document))}


def _prose(document: Document) -> str:
    return plain(_COMMENT_MARK.sub("", document.text))
