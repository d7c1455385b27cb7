"""Whether a team's own question is answered right, by rule: found, cited, said.

    found     retrieval brings one of the places that answer it first, or among the first three files
    cited     the answer cites one of them, and nothing that it was not shown
    said      it holds every word that it must, and none that it must not (where the question has such words)
    facts     which share of the names and numbers in the answer that the team wrote it states (where it wrote one)
    likeness  ROUGE-L to that answer

No model judges. What a question does not say is `None`: unscored, not wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.schemas.team_questions import TeamQuestion, is_below
from ai_forge.data_pipeline.search.entries import Entry
from ai_forge.data_pipeline.search.question_index import QuestionIndex
from ai_forge.errors import InputError
from ai_forge.events import Progress
from ai_forge.judge.questions.people import LeftOut, TeamScore
from ai_forge.judge.scoring import rouge_l
from ai_forge.judge.statistics import Estimate, proportion
from ai_forge.prompting.prompt import CITATION, citations_in

if TYPE_CHECKING:
    from ai_forge.serving.served_model import ServedModel

AMONG = 3  # files that a reader looks through before asking somebody
SEARCHED = 10  # places of which these are the files
# names and numbers: what is written as code, options, names with an underscore or a capital inside, figures
_FACT = re.compile(r"`([^`\n]+)`|(--[a-z][\w-]*|\b\w*_\w+|\b[A-Za-z]+[a-z0-9][A-Z]\w*|\b\d+(?:\.\d+)*)")


@dataclass(frozen=True)
class Places:
    """What answers a question in one state of a repository: its files, and the lines of its symbols in other files.

    `missing` are the files and symbols of the question that the index does not hold.
    """

    question: TeamQuestion
    definitions: tuple[tuple[str, int, int], ...]
    missing: tuple[str, ...]

    @classmethod
    def of(cls, question: TeamQuestion, entries: Iterable[Entry]) -> Places:
        """The places among `entries`. A symbol is a definition's qualified name, or its end: `lock`, `Workspace.lock`."""
        definitions: list[tuple[str, int, int]] = []
        found = set[str]()
        for entry in entries:
            found |= {file for file in question.files if is_below(entry.path, file)}
            if entry.kind in ("documentation", "configuration", "commit"):
                continue
            for symbol in question.symbols:
                if entry.name == symbol or entry.name.endswith(f".{symbol}"):
                    found.add(symbol)
                    definitions.append((entry.path, entry.first_line, entry.last_line))
        missing = tuple(name for name in (*question.files, *question.symbols) if name not in found)
        return cls(question, tuple(definitions), missing)

    def answer(self, path: str | None, first_line: int | None, last_line: int | None) -> bool:
        """Whether lines `first_line` to `last_line` of `path` answer the question, or a part of them."""
        if path is None:
            return False
        if self.question.is_in_files(path):
            return True
        first, last = first_line or 0, last_line or 0
        return any(path == file and first <= end and start <= last for file, start, end in self.definitions)


def rank_of(places: Places, index: QuestionIndex) -> int | None:
    """The place of the first right file among the files that retrieval finds, from 1; None where it is not among them."""
    files: list[str] = []
    for found in index.search(places.question.question, SEARCHED):
        if found.path not in files:
            files.append(found.path)
        if places.answer(found.path, found.first_line, found.last_line):
            return files.index(found.path) + 1
    return None


def score_answer(answer: str, places: Places, rank: int | None, shown: Sequence[Document]) -> TeamScore:
    """Score one answer. `rank` is that of `rank_of`, `shown` what the model was shown (nothing for one that is asked bare)."""
    question = places.question
    similarity = None
    if question.answer is not None:
        similarity = rouge_l(CITATION.sub(" ", answer), CITATION.sub(" ", question.answer))
    return TeamScore(
        found_first=rank == 1,
        found_among=rank is not None and rank <= AMONG,
        citation_right=_is_cited(answer, places, shown),
        said_right=_is_said(answer, question),
        similarity=similarity,
        facts=_facts_stated(answer, question),
    )


@dataclass(frozen=True)
class PeopleQuestion:
    """A question that can be asked: the places that answer it, and the rank at which retrieval finds the first of them."""

    places: Places
    rank: int | None

    @property
    def text(self) -> str:
        """The question itself."""
        return self.places.question.question

    def score(self, answer: str, shown: Sequence[Document]) -> TeamScore:
        """What is right about an answer of a model that was shown `shown`."""
        return score_answer(answer, self.places, self.rank, shown)


def still_there(questions: Sequence[TeamQuestion], index: QuestionIndex) -> tuple[list[PeopleQuestion], list[LeftOut]]:
    """The questions that can be asked of a repository's state, and those of which nothing is left."""
    asked, left_out = [], []
    for question in questions:
        places = Places.of(question, index.entries)
        if len(places.missing) == len(question.files) + len(question.symbols):
            left_out.append(LeftOut(question=question.question, missing=places.missing))
        else:
            asked.append(PeopleQuestion(places, rank_of(places, index)))
    return asked, left_out


class TeamAnswer(BaseModel):
    """A team's question, the answer of a model, and what is right about it."""

    model_config = ConfigDict(frozen=True)

    question: str
    answer: str
    rank: int | None
    score: TeamScore


def ask_deployed(served: ServedModel, questions: Sequence[TeamQuestion], progress: Progress) -> list[TeamAnswer]:
    """Ask a deployed model a team's questions, as a person asks it, and score each answer.

    Raises:
        InputError: it is a model that is asked without documents, such as a handbook's.
    """
    index = served.index
    if index is None:
        raise InputError(
            f"{served.deployment.model} is asked without documents; questions about files are no test of it.",
            "ask a model of a repository's code.",
        )
    answers: list[TeamAnswer] = []
    for number, question in enumerate(questions):
        progress(number, len(questions), question.question)
        places = Places.of(question, index.entries)
        rank = rank_of(places, index)
        reply = served.ask(question.question)
        for _ in reply:  # read to its end: its text comes of that
            pass
        score = score_answer(reply.text, places, rank, reply.documents)
        answers.append(TeamAnswer(question=question.question, answer=reply.text, rank=rank, score=score))
    return answers


def shares_of(answers: Sequence[TeamAnswer], confidence: float = 0.95) -> dict[str, Estimate]:
    """Shares with their intervals: found first, found among three, cited, said, right; without what was never scored."""
    scores = [answer.score for answer in answers]
    counted = {
        "found first": [score.found_first for score in scores],
        "found among three": [score.found_among for score in scores],
        "cited": [score.citation_right for score in scores],
        "said": [score.said_right for score in scores if score.said_right is not None],
        "right": [score.right for score in scores],
    }
    estimates = {name: proportion(successes, confidence) for name, successes in counted.items()}
    return {name: estimate for name, estimate in estimates.items() if estimate is not None}


def _is_cited(answer: str, places: Places, shown: Sequence[Document]) -> bool:
    """Whether the answer cites a place that answers, and nothing that was not shown.

    Whoever was shown nothing can know a place only from training: any lines of the right file count then.
    """
    cited = citations_in(answer)
    if not shown:
        return any(places.answer(*_place(citation)) for citation in cited)
    by_citation = {document.citation: document for document in shown}
    if not cited or any(citation not in by_citation for citation in cited):
        return False
    documents = [by_citation[citation] for citation in cited]
    return any(places.answer(d.path, d.first_line, d.last_line) for d in documents)


def _place(citation: str) -> tuple[str | None, int, int]:
    path, _, lines = citation.rpartition(":")
    first, _, last = lines.partition("-")
    if not (first.isdecimal() and last.isdecimal()):  # a commit
        return None, 0, 0
    return path, int(first), int(last)


def _is_said(answer: str, question: TeamQuestion) -> bool | None:
    if not question.must and not question.must_not:
        return None
    text = CITATION.sub(" ", answer)  # a path in a citation is no statement
    if any(_holds(text, term) for term in question.must_not):
        return False
    return all(_holds(text, term) for term in question.must)


def facts_in(text: str) -> list[str]:
    """The names and numbers in a text, each once.

    >>> facts_in("`keep` copies of max_size 4096, see --keep-last and ServedModel.")
    ['keep', 'max_size', '4096', '--keep-last', 'ServedModel']
    """
    found = (code or plain for code, plain in _FACT.findall(CITATION.sub(" ", text)))
    return list(dict.fromkeys(fact.strip() for fact in found if fact.strip()))


def _facts_stated(answer: str, question: TeamQuestion) -> float | None:
    """Share of the facts of the written answer that `answer` states; what the question says itself is none."""
    facts = [fact for fact in facts_in(question.answer or "") if not _holds(question.question, fact)]
    if not facts:
        return None
    text = CITATION.sub(" ", answer)  # a path in a citation is no statement
    return sum(_holds(text, fact) for fact in facts) / len(facts)


def _holds(text: str, term: str) -> bool:
    """Whether whole words of `text` are `term`, in any case and spacing."""
    words = r"\s+".join(re.escape(word) for word in term.split())
    return re.search(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE) is not None
