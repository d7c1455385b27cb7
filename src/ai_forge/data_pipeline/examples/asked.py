"""What the team asks itself is not trained on: neither its questions, nor their wording, nor the answers it wrote.

Two questions ask the same where the stems of what they ask for are nearly the same set, whatever fills the sentence: a
template's "What does `Cache.open` do?" and a person's "what does cache open do". An answer is found again where most of its
runs of words stand in a target.
"""

from collections import Counter
from collections.abc import Sequence

from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion
from ai_forge.data_pipeline.search.terms import question_terms
from ai_forge.data_pipeline.text.near_duplicates import Shingles, jaccard, shingle

__all__ = ["asks_the_same", "without_asked"]

ALIKE = 2 / 3
"""Of the stems of two questions together: "where is the registry kept" and "in which file is the registry kept" are alike."""
_RUN = 5
_MIN_WORDS = 8
"""A shorter answer is a name or a sentence that says itself."""


def asks_the_same(first: str, second: str) -> bool:
    """Whether two questions ask for the same in other words.

    >>> asks_the_same("Where is the registry kept?", "In which file is the registry kept?")
    True
    >>> asks_the_same("Where is the registry kept?", "What does the registry return?")
    False
    """
    return jaccard(_stems(first), _stems(second)) >= ALIKE


def without_asked(
    examples: Sequence[RAFTExample], questions: Sequence[TeamQuestion]
) -> tuple[list[RAFTExample], Counter[str]]:
    """`examples` without those that ask one of `questions` or hold an answer to one, and how many those are."""
    dropped: Counter[str] = Counter()
    stems = [_stems(question.question) for question in questions]
    answers = [shingle(q.answer, _RUN) for q in questions if q.answer and len(q.answer.split()) >= _MIN_WORDS]
    kept: list[RAFTExample] = []
    for example in examples:
        own = _stems(example.question)
        if any(jaccard(own, other) >= ALIKE for other in stems):
            dropped["asked_by_team"] += 1
        elif answers and _holds_one(example.target, answers):
            dropped["answered_by_team"] += 1
        else:
            kept.append(example)
    return kept, dropped


def _stems(question: str) -> Shingles:
    return frozenset(question_terms(question))


def _holds_one(target: str, answers: Sequence[Shingles]) -> bool:
    runs = shingle(target, _RUN)
    return any(len(runs & answer) >= 0.5 * len(answer) for answer in answers)
