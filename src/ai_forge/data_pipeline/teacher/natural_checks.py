"""Which of a writer's questions and answers may be taught.

A question is one that a person could ask who has not seen the code. An answer cites, and each citation is that of a document
that the student is shown and that holds what is said before it; its names, numbers and quotations stand in the documents; what it
says of raising, returning, calling, defaulting and inheriting stands in the document that it cites; it is no copy, it comes to an
end, and it is about what was asked. Not checked: whether a sentence of plain words that all occur is true.
"""

import re
from collections.abc import Sequence

from ai_forge.data_pipeline.examples.asked import asks_the_same
from ai_forge.data_pipeline.examples.verification import code_spans
from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.search.terms import question_terms, terms
from ai_forge.data_pipeline.teacher.prompt import invention
from ai_forge.data_pipeline.text.near_duplicates import shingle
from ai_forge.data_pipeline.text.words import flat, identifiers, names_in, one_line
from ai_forge.prompting.prompt import CITATION, FENCE, citations_in

__all__ = ["problem_of_answer", "problem_of_question", "problem_of_refusal", "says_not_there"]

_QUESTION_WORDS = (4, 30)
_ANSWER_WORDS = (12, 220)
_MAX_REFUSAL_WORDS = 70
_COPIED_RUN = 12
_MOST_COPIED = 0.4
_LEAST_ABOUT = 1 / 4
"""Of the stems of a question that its answer speaks of."""
# what only someone says who has the code before them
_POINTS_AT_CODE = re.compile(
    r"\b(?:this|the (?:above|given|following|provided|shown)) (?:code|function|method|class|snippet|document|file|section|module|test"
    r"|example|line|block|text)\b|\b(?:above|snippet|documents?)\b",
    re.I,
)
_SPEAKS_OF_DOCUMENTS = re.compile(
    r"\b(?:the )?(?:provided|given|shown|above) (?:documents?|code|context|snippets?|text)\b|\bDocument \d|\bcitations?\b",
    re.I,
)
_NOT_THERE = re.compile(
    r"\b(?:(?:can(?:not|'t)|could(?: not|n't)|unable to) (?:tell|say|find|see|answer|determine)|(?:do(?: not|n't)) know"
    r"|(?:do(?:es)?(?: not|n't)) (?:say|show|contain|hold|mention|explain|cover|provide|specify|describe|include|answer|address|state)"
    r"|(?:is|are|was)(?: not|n't) (?:shown|in|part of|covered|mentioned|specified|provided|included|described|explained|stated)"
    r"|nothing (?:here|shown|in|about|says)|no (?:information|mention|details?) (?:here|about|on|of|in)"
    r"|none of (?:this|these|what|the))\b",
    re.I,
)
_DENIES = re.compile(
    r"\b(?:documents?|context|code|snippets?|what is shown)\b[^.]{0,40}\b(?:do(?:es)?(?: not|n't)|cannot)\b[^.]{0,30}"
    r"\b(?:contain|hold|provide|mention|include|show|specify|say|answer|cover|address|explain)",
    re.I,
)
_OTHER_BRACKETS = re.compile(r"\[[^\[\]\n`]*(?:\.\w{1,5}|:\d|›)[^\[\]\n`]*\]")
# what a parser knows of code: said of a name, it must stand where the answer points
_CLAIM = re.compile(
    r"\b(?:raises?|throws?|returns?|calls?|invokes?|inherits? from|subclass(?:es)? of|extends?|defaults? (?:to|is|of)|"
    r"by default(?: to)?|set to|decorated with)\s+(?:an? |the |its |to )?`([^`\n]+)`",
    re.I,
)
_CALLED = re.compile(r"([A-Za-z_]\w*)\s*\(")
_DEFINED = re.compile(
    r"\b(?:def|class|func|function|const|let|var|import|as|for)\s+([A-Za-z_]\w*)|([A-Za-z_]\w*)\s*(?::=|=)(?!=)"
)
_LEAST_KNOWN = 0.2
"""Of the words of an answer: prose explains in words of its own."""
_LITERALS = frozenset({"True", "False", "None", "true", "false", "null", "nil", "undefined"})
_BUILT_IN = frozenset(
    identifiers(
        """print len range list dict set str int float bool open isinstance super type tuple input repr sorted enumerate zip main
        format require console log printf println Println Printf make append new Error if for while switch return async await
        with"""
    )
)


def problem_of_question(question: str, documents: Sequence[Document], before: Sequence[str]) -> str | None:
    """Why a question that `documents` answer must not be used, or None; `before` are those that were taken."""
    n_words = len(question.split())
    if not _QUESTION_WORDS[0] <= n_words <= _QUESTION_WORDS[1]:
        return "question_length"
    if _POINTS_AT_CODE.search(question) or CITATION.search(question) or "```" in question:
        return "question_points_at_code"
    if len(code_spans(question)) > 2:
        return "question_knows_too_much"
    known = set[str]().union(*(names_in(f"{d.text} {d.name} {d.citation}") for d in documents))
    if not set(identifiers(" ".join(code_spans(question)))) <= known:
        return "question_invents_a_name"
    if any(asks_the_same(question, other) for other in before):
        return "question_again"
    return None


def says_not_there(answer: str) -> bool:
    """Whether an answer says that the documents do not hold what was asked for."""
    return bool(_DENIES.search(answer))


def problem_of_answer(question: str, answer: str, shown: Sequence[Document], student: Sequence[Document]) -> str | None:
    """Why an answer must not be taught, or None; the writer was `shown` documents, the `student` will see others."""
    n_words = len(answer.split())
    if not _ANSWER_WORDS[0] <= n_words <= _ANSWER_WORDS[1]:
        return "length"
    if says_not_there(answer):
        return "denies_the_answer"
    cited = citations_in(answer)
    if not cited:
        return "cites_nothing"
    place = {document.citation: document for document in shown}
    if not set(cited) <= place.keys() or _OTHER_BRACKETS.search(CITATION.sub("", FENCE.sub("", answer))):
        return "invents_a_citation"
    if not set(cited) <= {document.citation for document in student}:
        return "cites_what_the_student_does_not_see"
    if _SPEAKS_OF_DOCUMENTS.search(answer):
        return "speaks_of_documents"
    prose = FENCE.sub("", answer)
    return (
        _invented(question, answer, prose, shown)
        or _wrong_place(prose, place)
        or _copied(prose, shown)
        or _beside_the_question(question, answer)
    )


def problem_of_refusal(question: str, answer: str, shown: Sequence[Document]) -> str | None:
    """Why words that say that the answer is not there must not be taught, or None."""
    if not 6 <= len(answer.split()) <= _MAX_REFUSAL_WORDS or "```" in answer:
        return "refusal_length"
    if not _NOT_THERE.search(answer):
        return "does_not_refuse"
    if not set(citations_in(answer)) <= {document.citation for document in shown}:
        return "invents_a_citation"
    problem = _invented(question, answer, answer, shown)
    if problem == "strays_from_the_documents":  # it speaks of what is not there
        return None
    return problem


def _wrong_place(prose: str, place: dict[str, Document]) -> str | None:
    """Whether what is said before a citation is not in the document that it names."""
    at = 0
    groups: list[tuple[str, list[Document]]] = []
    for found in CITATION.finditer(prose):
        said = prose[at : found.start()]
        if groups and not said.strip(" ,;and\n"):  # another citation of the same statement
            groups[-1][1].append(place[found[1]])
        else:
            groups.append((said, [place[found[1]]]))
        at = found.end()
    for said, documents in groups:
        text = " ".join(f"{d.text} {d.name} {d.citation}" for d in documents)
        names = names_in(text)
        spans = code_spans(said)
        if spans and not any(set(identifiers(span)) & names for span in spans):
            return "cites_another_place"
        for claimed in _CLAIM.findall(said):
            if not set(identifiers(claimed)) <= names and one_line(claimed) not in one_line(text):
                return "contradicts_the_code"
    return None


def _invented(question: str, answer: str, prose: str, shown: Sequence[Document]) -> str | None:
    sources = "\n".join(f"{d.text}\n{d.name} {d.citation} {d.language}" for d in shown)
    known = set(identifiers(f"{sources}\n{question}")) | _LITERALS
    whole = one_line(sources)
    for span in code_spans(prose):
        if not set(identifiers(span)) <= known and one_line(span) not in whole:
            return "invents_a_name"
    for code in FENCE.findall(answer):
        defined = {name for pair in _DEFINED.findall(code) for name in pair if name}
        if set(_CALLED.findall(code)) - known - defined - _BUILT_IN:
            return "invents_a_name"
    return invention(prose, sources, question, _LEAST_KNOWN)


def _copied(prose: str, shown: Sequence[Document]) -> str | None:
    runs = shingle(CITATION.sub("", prose), _COPIED_RUN)
    if not runs:
        return None
    held = frozenset[int]().union(*(shingle(flat(document.text), _COPIED_RUN) for document in shown))
    return "copies" if len(runs & held) > _MOST_COPIED * len(runs) else None


def _beside_the_question(question: str, answer: str) -> str | None:
    asked = set(question_terms(question))
    return "beside_the_question" if len(asked & set(terms(answer))) < _LEAST_ABOUT * len(asked) else None
