"""What the team itself asks: put to base and tuned model first, as they are served, and scored by rule (`team_questions`).

The pipeline's own questions show what was learned of its rules; these show what somebody is helped with. Both models see the
documents that whoever asks the deployed one would be shown. A question of which no file or symbol can be found any more is
left out and told, never counted as wrong.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.schemas import Document
from ai_forge.judge.looked import Look, Looked
from ai_forge.judge.statistics import Estimate, mean, paired_difference, proportion
from ai_forge.serving.runtime import ASKED_AT_ONCE

SHARE_OF_TIME = 0.5  # of the time for answers that these may take: the rest belongs to the pipeline's questions


class TeamScore(BaseModel):
    """What is right about one answer to a team's question; None is unscored."""

    model_config = ConfigDict(frozen=True)

    found_first: bool
    found_among: bool
    citation_right: bool
    said_right: bool | None
    similarity: float | None
    facts: float | None = None
    """Share of the facts of the written answer that are stated; None where it holds none."""

    @property
    def right(self) -> bool:
        """Cited from a place that answers it, and nothing said that is wrong."""
        return self.citation_right and self.said_right is not False


FIGURES: Mapping[str, Callable[[TeamScore], float | None]] = {
    "right": lambda score: score.right,
    "right place cited": lambda score: score.citation_right,
    "said what it must": lambda score: score.said_right,
    "facts of the written answer": lambda score: score.facts,
}
"""By what the gate compares; None where the question does not ask for it."""


class PeopleAnswer(BaseModel):
    """One contender's answer to one question of the team, scored."""

    model_config = ConfigDict(frozen=True)

    origin: Literal["people"] = "people"
    contender: str
    question: str
    answer: str
    score: TeamScore
    looked: Looked | None = None
    """None where it was not looked at."""


class LeftOut(BaseModel):
    """A question that was not asked: nothing of what answers it is there."""

    model_config = ConfigDict(frozen=True)

    question: str
    missing: tuple[str, ...]


class PeopleEvaluation(BaseModel):
    """What was asked of the `n_written` questions in the team's file."""

    model_config = ConfigDict(frozen=True)

    answers: tuple[PeopleAnswer, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    n_written: int = 0

    def of(self, contender: str) -> list[PeopleAnswer]:
        """A contender's answers, in the order of the file."""
        return [answer for answer in self.answers if answer.contender == contender]

    @property
    def n_asked(self) -> int:
        """How many questions were asked."""
        return len({answer.question for answer in self.answers})


class Asked(Protocol):
    """A question that is put to a model, and that knows what is right about an answer."""

    @property
    def text(self) -> str:
        """The question itself."""

    def score(self, answer: str, shown: Sequence[Document]) -> TeamScore:
        """What is right about an answer of a model that was shown `shown`."""


def people_scored(
    asked: Sequence[Asked],
    left_out: Sequence[LeftOut],
    shown: Sequence[Sequence[Document]],
    told: Mapping[int, Mapping[str, str]],
    look: Look | None = None,
) -> PeopleEvaluation:
    """Each answer scored by rule, and looked at; `told` are the answers by place and contender."""
    answers = [
        PeopleAnswer(
            contender=contender,
            question=asked[place].text,
            answer=text,
            score=asked[place].score(text, shown[place]),
            looked=look(text, asked[place].text, shown[place]) if look else None,
        )
        for place, texts in told.items()
        for contender, text in texts.items()
    ]
    return PeopleEvaluation(answers=tuple(answers), left_out=tuple(left_out), n_written=len(asked) + len(left_out))


Ask = Callable[[Sequence[Sequence[int]]], Sequence[str]]


def ask_in_turn(
    models: Mapping[str, Ask],
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    budget_s: float,
    report: Callable[[int], None],
    clock: Callable[[], float] = time.monotonic,
) -> dict[int, dict[str, str]]:
    """The answers of each of `models`, by the place of the prompt: to all of them, or to those that fit into `budget_s`.

    They are drawn in a random order, so that what fits is a sample of the file and not its beginning.
    """
    order = list(range(len(prompts)))
    random.Random(seed).shuffle(order)
    answers: dict[int, dict[str, str]] = {}
    started = clock()
    for first in range(0, len(order), ASKED_AT_ONCE):
        spent = clock() - started
        if answers and spent * (len(answers) + ASKED_AT_ONCE) / len(answers) > budget_s:
            break
        places = order[first : first + ASKED_AT_ONCE]
        texts = {name: ask([prompts[place] for place in places]) for name, ask in models.items()}
        for number, place in enumerate(places):
            answers[place] = {name: given[number] for name, given in texts.items()}
        report(len(answers))
    return dict(sorted(answers.items()))


@dataclass(frozen=True)
class PeopleRow:
    """One contender's shares, by the names of `FIGURES`."""

    contender: str
    figures: Mapping[str, Estimate | None]


def row_of(people: PeopleEvaluation, contender: str, confidence: float, seed: int) -> PeopleRow:
    """A contender's figures with their intervals, over the questions that ask for each."""
    figures: dict[str, Estimate | None] = {}
    for name, value in FIGURES.items():
        values = [found for one in people.of(contender) if (found := value(one.score)) is not None]
        if name.startswith("facts"):  # shares of each answer, no successes to count
            figures[name] = mean(values, confidence=confidence, seed=seed)
        else:
            figures[name] = proportion([bool(found) for found in values], confidence)
    return PeopleRow(contender, figures)


def gain_of(
    people: PeopleEvaluation, figure: str, ours: str, theirs: str, confidence: float, seed: int
) -> Estimate | None:
    """Ours − theirs, question by question, of those that ask for the figure; None where none does."""
    value = FIGURES[figure]
    pairs = [(value(a.score), value(b.score)) for a, b in zip(people.of(ours), people.of(theirs), strict=True)]
    scored = [(a, b) for a, b in pairs if a is not None and b is not None]
    return paired_difference([a for a, _ in scored], [b for _, b in scored], confidence=confidence, seed=seed)
