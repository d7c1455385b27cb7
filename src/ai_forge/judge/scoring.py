"""What is right about one answer: its citations, its facts, its likeness to the reference."""

import re

from rapidfuzz.distance import LCSseq

from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.prompting.prompt import CITATION, citations_in

WORD = re.compile(r"\w+")


def citation_is_right(answer: str, example: RAFTExample) -> bool:
    """Whether the answer cites, and every span it cites is an oracle's, path and lines.

    Stricter than "mentions the file": `[a.py:3-9]` is wrong where the oracle is `[a.py:3-10]`.
    """
    cited = citations_in(answer)
    oracles = {document.citation for document in example.oracle_documents}
    return bool(cited) and set(cited) <= oracles  # all of them: who cites everything that was shown is not right


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w]){re.escape(name)}(?![\w])", text) is not None


def facts_asked(example: RAFTExample) -> list[str]:
    """The values that a right answer must state.

    A value that the question itself holds is no achievement and is left out; so is a location, which the citation scores.
    """
    return [f.value for f in example.facts if f.kind != "location" and not _mentions(example.question, f.value)]


def facts_are_right(answer: str, example: RAFTExample) -> bool | None:
    """Whether every fact is stated and none of the distractors' is; None where the question asks for none.

    The form is free: a base that names the parameters in its own words is as right as a tuned model.
    """
    asked = facts_asked(example)
    if not asked:
        return None
    text = CITATION.sub(" ", answer)  # a path in a citation is no statement
    if any(_mentions(text, fact.value) for fact in example.wrong_facts):
        return False
    return all(_mentions(text, value) for value in asked)


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 over words, 0–1 (Lin 2004): the longest common subsequence against both lengths.

    >>> round(rouge_l("a b c d", "a c d e"), 2)
    0.75
    """
    ours, theirs = WORD.findall(answer.lower()), WORD.findall(reference.lower())
    if not ours or not theirs:
        return 0.0
    common = LCSseq.similarity(ours, theirs)
    return 2 * common / (len(ours) + len(theirs))
