"""Scores of a RAFT example, 0–1, and what they mean.

*Oracle relevance*: the TF-IDF cosine of the question and its closest oracle, mapped by 1 − exp(−cosine / 0.1). It is a
reading aid, not a probability.

*Distractor relevance*: how much of the answer a distractor holds, not how similar it looks: a good distractor is
similar on purpose. It is 0 where the distractor never names the subject, else the share of the answer's names and
quoted words that it contains. Above 0.3 it would be an oracle in disguise.

*Substance*: how much there is to learn, 1 − exp(−n / 2) for n names and quoted words in the answer besides the subject.

*Grounding*: 1 when `verify_example` finds nothing wrong, a quarter less for each problem.

*Quality* weighs relevance 0.4, substance 0.25, grounding 0.15, form 0.1 and harmless distractors 0.1 over what is
scored. An example with a problem stays below 0.6 whatever else it has.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ai_forge.data_pipeline.examples.verification import code_spans, verify_example
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.text.words import identifiers, names_in, subwords
from ai_forge.prompting.prompt import FENCE

__all__ = ["ExampleScores", "Scorer", "answer_words", "distractor_relevance", "held_share", "subject_name"]

# The raw cosine is small because a question is short and a document long. Measured on four repositories (Python and
# JavaScript, 3,300 examples): right pairs have a median of 0.20–0.33 (5th percentile 0.07–0.14), random pairs 0.01–0.02
# (95th 0.06–0.13). With 0.1 the median right pair scores 0.86–0.96, the median random one 0.10–0.18. Fixed, so that a bad
# dataset scores badly, and for these TF-IDF vectors only.
_COSINE_SCALE = 0.1
_QUESTION_WORDS = (3, 40)
_TARGET_WORDS = (5, 120)
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True)
class ExampleScores:
    """The scores of one example; None is unscored (no oracle, or no distractor)."""

    oracle_relevance: float | None
    distractor_relevance: float | None
    substance: float | None
    grounding: float
    form: float
    quality: float
    problems: tuple[str, ...]


class Scorer:
    """Scores examples with the word frequencies of one dataset's documents."""

    def __init__(self, dataset: Sequence[RAFTExample]) -> None:
        documents = {d.block_id: d for example in dataset for d in example.shown_documents}
        words = {key: _document_words(document) for key, document in documents.items()}
        frequency = Counter(word for found in words.values() for word in set(found))
        n = len(words)
        self._idf = {word: math.log((1 + n) / (1 + count)) + 1 for word, count in frequency.items()}
        self._vectors = {key: self.vector(found) for key, found in words.items()}

    def vector(self, words: Sequence[str]) -> dict[str, float]:
        """The unit TF-IDF vector of some subwords; words that no document has are left out."""
        counts = Counter(word for word in words if word in self._idf)
        values = {word: (1 + math.log(count)) * self._idf[word] for word, count in counts.items()}
        norm = math.sqrt(sum(value * value for value in values.values())) or 1.0
        return {word: value / norm for word, value in values.items()}

    def score(self, example: RAFTExample, problems: Sequence[str] | None = None) -> ExampleScores:
        """All scores of one example of the dataset; `problems` are what `verify_example` finds, where that is known."""
        if problems is None:
            problems = verify_example(example)
        grounding = max(0.0, 1 - len(problems) / 4)
        form = _form(example)
        oracle = substance = None
        parts = [(0.15, grounding), (0.1, form)]
        if example.oracle_documents:
            question = self.vector(subwords(example.question))
            cosine = max(_dot(question, self._vectors[d.block_id]) for d in example.oracle_documents)
            oracle = 1 - math.exp(-cosine / _COSINE_SCALE)
            substance = 1 - math.exp(-len(answer_words(example.final_answer, subject_name(example))) / 2)
            parts = [(0.4, oracle), (0.25, substance), *parts]
        distracting = distractor_relevance(example)
        if distracting is not None:
            parts.append((0.1, 1 - distracting))
        quality = sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts)
        if problems:  # whatever else is good about it, what its documents do not hold must not rank high
            quality = min(quality, grounding * 0.6)
        return ExampleScores(
            _rounded(oracle),
            _rounded(distracting),
            _rounded(substance),
            grounding,
            round(form, 4),
            round(quality, 4),
            tuple(problems),
        )


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)


def distractor_relevance(example: RAFTExample) -> float | None:
    """The largest share of the answer that one distractor holds, 0–1; None without distractors.

    Without an oracle, a distractor that names the subject at all counts as 1.
    """
    if not example.distractor_documents:
        return None
    name = subject_name(example)
    content = answer_words(example.final_answer, name)
    found = (names_in(document.text) for document in example.distractor_documents)
    if not example.oracle_documents:
        return max(float(name in words) for words in found)
    return max(held_share(content, name, words) for words in found)


def held_share(content: frozenset[str], name: str, words: frozenset[str]) -> float:
    """Share of an answer's words that a document with these `words` holds; 0 if it does not name the subject."""
    return len(content & words) / len(content) if content and name in words else 0.0


@lru_cache(maxsize=1 << 10)
def answer_words(answer: str, name: str) -> frozenset[str]:
    """The names in backticks and in code, and the longer words in quotation marks, without the subject's own name."""
    code = {word for span in (*code_spans(answer), *FENCE.findall(answer)) for word in identifiers(span)}
    quoted = {word for part in _QUOTED.findall(answer) for word in identifiers(part) if len(word) > 3}
    return frozenset((code | quoted) - {name})


def subject_name(example: RAFTExample) -> str:
    """The bare name that the reasoning (or else the question) puts first in backticks; empty if there is none."""
    spans = code_spans(example.reasoning) or code_spans(example.question)
    names = identifiers(spans[0].partition("(")[0]) if spans else []
    return names[-1] if names else ""


def _document_words(document: Document) -> list[str]:
    return subwords(f"{document.path or document.citation} {document.text}")


def _dot(first: dict[str, float], second: dict[str, float]) -> float:
    return sum(value * second.get(word, 0.0) for word, value in first.items())


def _form(example: RAFTExample) -> float:
    """1 for a question and target of ordinary length, half of it lost for each that is not."""
    question, target = len(example.question.split()), len(example.target.split())
    fits = (_QUESTION_WORDS[0] <= question <= _QUESTION_WORDS[1], _TARGET_WORDS[0] <= target <= _TARGET_WORDS[1])
    return sum(fits) / 2
