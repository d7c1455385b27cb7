"""Natural questions and their answers, written by a model that sees more than the trained one will.

    subject ─ask─► questions ─retrieve─► documents ─answer, sampled─► checks ─► example + the writer's top tokens

Three passes, each continued where it was cut off: questions and answers are appended to files as they are made. A question is
kept where retrieval with it finds what it is about; of those where it does not, some become honest refusals. What is learned is
the prompt of a user: retrieved documents with their distractors.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.schemas.raft_examples import difficulty_of
from ai_forge.data_pipeline.teacher.natural import answer_messages, question_messages, read_questions, refusal_messages
from ai_forge.data_pipeline.teacher.natural_checks import problem_of_answer, problem_of_question, problem_of_refusal
from ai_forge.data_pipeline.text.words import approximate_tokens
from ai_forge.events import Progress
from ai_forge.prompting.prompt import CITATION, Message, citations_in
from ai_forge.training.scribe import Put, Scribe, Span, append, rows_of
from ai_forge.training.tokens.packing import TeacherTokens

QUESTIONS_A_SUBJECT = 4
REFUSAL_SHARE = 0.12
ASKS_HOW = re.compile(r"how (?:do|can|should|could) (?:i|we|you)\b|how to\b", re.I)
QUESTION_TOKENS, ANSWER_TOKENS = 160, 256
QUESTION_TEMPERATURE = 0.9


class Asked(BaseModel):
    """A question, what it is about, and what its asker is shown. Of a `refusal` the shown documents do not hold the answer."""

    model_config = ConfigDict(frozen=True)

    side: str
    question: str
    subject: tuple[Document, ...]
    shown: tuple[Document, ...]
    refusal: bool = False

    @property
    def seen_by_writer(self) -> tuple[Document, ...]:
        """What it is about, then what the asker is shown besides."""
        if self.refusal:
            return self.shown
        about = {document.citation for document in self.subject}
        # the asker's copies, which may be excerpts: the writer is not to tell what is cut off there
        first = [document for document in self.shown if document.citation in about]
        return (*first, *(document for document in self.shown if document.citation not in about))

    @property
    def writer_prompt(self) -> list[Message]:
        """What the writer is asked."""
        if self.refusal:
            return refusal_messages(self.question, self.shown)
        return answer_messages(self.question, self.seen_by_writer)

    def problem_of(self, answer: str) -> str | None:
        """Why an answer must not be taught, or None."""
        if self.refusal:
            return problem_of_refusal(self.question, answer, self.shown)
        return problem_of_answer(self.question, answer, self.seen_by_writer, self.shown)

    def wanted_in(self, answer: str) -> bool:
        """Whether an answer has what its asker hopes for: who asks how to do something, an example in code."""
        return bool(ASKS_HOW.match(self.question)) and "```" in answer

    def demanded(self, answer: str) -> list[Span]:
        """What the checks demand of an answer: its citations; of a refusal all of it."""
        if self.refusal:
            return [(0, len(answer))]
        return [found.span() for found in CITATION.finditer(answer)]

    def example(self, answer: str) -> RAFTExample:
        """The example that is trained on."""
        cited = set(citations_in(answer))
        oracles = tuple(d for d in self.shown if d.citation in cited and not self.refusal)
        others = tuple(d for d in self.shown if d not in oracles)
        family = "natural_refusal" if self.refusal else "natural"
        if len(self.subject) > 1 and not self.refusal:
            family = "natural_several"
        return RAFTExample(
            question=self.question,
            oracle_documents=oracles,
            distractor_documents=others,
            reasoning="",
            final_answer=answer,
            difficulty=difficulty_of(len(oracles), len(others)),
            family=family,
            subject_id=self.subject[0].block_id,
            subject_path=self.subject[0].path or "",
        )


@dataclass(frozen=True)
class Subject:
    """What questions are asked about: one document, or several that belong together."""

    side: str
    documents: tuple[Document, ...]

    @property
    def id(self) -> str:
        """Names it in what is kept."""
        return "+".join(document.block_id for document in self.documents)


@dataclass
class NaturalWriter:
    """Writes questions and answers into `folder`.

    `find` gives what someone is shown who asks a question on a side; `far` the same without the files that hold the answer.
    """

    scribe: Scribe
    folder: Path
    project: str
    find: Callable[[str, str], tuple[Document, ...]]
    far: Callable[[str, str, set[str]], tuple[Document, ...]]
    progress: Progress
    dropped: Counter[str] = field(default_factory=Counter)

    # -- questions ----------------------------------------------------------------------------------------------

    def ask(self, subjects: Sequence[Subject], n: int, side: str) -> list[Asked]:
        """At most `n` questions about `subjects`, which are of one `side`, taken in turn."""
        path = self.folder / f"asked-{side}.jsonl"
        done = rows_of(path)
        asked = [Asked.model_validate(row) for entry in done for row in entry["asked"]]
        for entry in done:
            self.dropped.update(entry["dropped"])
        left = subjects[len(done) :]
        while left and len(asked) < n:
            # about two questions of a subject are kept
            chunk = min(self.scribe.at_a_time(QUESTIONS_A_SUBJECT), max(16, (n - len(asked)) // 2))
            now, left = left[:chunk], left[chunk:]
            prompts = [
                question_messages(s.documents, self.project, QUESTIONS_A_SUBJECT, f"{self.scribe.seed}/{s.id}")
                for s in now
            ]
            told = self.scribe.sampled(prompts, QUESTION_TOKENS, QUESTION_TEMPERATURE, f"ask {now[0].id}")
            for subject, (text, _) in zip(now, told, strict=True):
                taken, dropped = self._taken(subject, read_questions(text), [a.question for a in asked])
                asked += taken
                self.dropped += dropped
                append(path, {"asked": [a.model_dump(mode="json") for a in taken], "dropped": dropped})
                if len(asked) >= n:
                    break
            self.progress(min(len(asked), n), n, "questions")
        return asked[:n]

    def _taken(self, subject: Subject, questions: Sequence[str], before: list[str]) -> tuple[list[Asked], Counter[str]]:
        taken: list[Asked] = []
        dropped: Counter[str] = Counter()
        for question in questions[:QUESTIONS_A_SUBJECT]:
            known = [*before, *(a.question for a in taken)]
            if problem := problem_of_question(question, subject.documents, known):
                dropped[problem] += 1
                continue
            shown = self.find(question, subject.side)
            if all(any(_same_place(document, other) for other in shown) for document in subject.documents):
                taken.append(Asked(side=subject.side, question=question, subject=subject.documents, shown=shown))
            elif random.Random(f"{self.scribe.seed}/refuse {question}").random() < 2 * REFUSAL_SHARE:
                # where the right place was not found, an honest model says so instead of guessing from its neighbours
                files = {document.path or "" for document in subject.documents}
                away = self.far(question, subject.side, files)
                taken.append(
                    Asked(side=subject.side, question=question, subject=subject.documents, shown=away, refusal=True)
                )
            else:
                dropped["question_not_found"] += 1
        return taken, dropped

    # -- answers ------------------------------------------------------------------------------------------------

    def answer(self, asked: Sequence[Asked]) -> list[tuple[Asked, str]]:
        """The questions that have an answer which passed, with it."""
        questions = [Put(each.question, each.writer_prompt, each.problem_of, each.wanted_in) for each in asked]
        answers, dropped = self.scribe.answered(self.folder / "answered.jsonl", questions, ANSWER_TOKENS, self.progress)
        self.dropped += dropped
        return [(each, answers[each.question]) for each in asked if each.question in answers]

    # -- what the writer thought --------------------------------------------------------------------------------

    def top_tokens(self, answered: Sequence[tuple[Asked, str]]) -> list[TeacherTokens]:
        """What the writer thought along each answer; citations and refusals, which the checks demand, are certain."""
        written = [(asked.writer_prompt, answer, asked.demanded(answer)) for asked, answer in answered]
        return self.scribe.thoughts(written, self.progress)


def _same_place(document: Document, other: Document) -> bool:
    """Whether `other` shows `document` or a good part of it."""
    if document.citation == other.citation:
        return True
    if document.path is None or document.path != other.path or not document.first_line or not other.first_line:
        return False
    first = max(document.first_line, other.first_line)
    last = min(document.last_line or 0, other.last_line or 0)
    return last - first + 1 >= 0.5 * ((document.last_line or 0) - document.first_line + 1)


def is_worth_asking(document: Document) -> bool:
    """Long enough to be asked about, and short enough to be read whole."""
    return 40 <= approximate_tokens(document.text) <= 700
