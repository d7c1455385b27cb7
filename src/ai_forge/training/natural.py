"""Natural questions and their answers, written by a model that sees more than the trained one will.

    subject ─ask─► questions ─retrieve─► documents ─answer, sampled─► checks ─► example + the writer's top tokens

Three passes, each continued where it was cut off: questions and answers are appended to files as they are made. A question is
kept where retrieval with it finds what it is about; of those where it does not, some become honest refusals. What is learned is
the prompt of a user: retrieved documents with their distractors.

On a GPU many prompts go at a time, sorted by length. On a CPU one question's samples do, and share the reading of its prompt.
"""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.data_pipeline.schemas.raft_examples import difficulty_of
from ai_forge.data_pipeline.search.terms import terms
from ai_forge.data_pipeline.teacher.natural import answer_messages, question_messages, read_questions, refusal_messages
from ai_forge.data_pipeline.teacher.natural_checks import problem_of_answer, problem_of_question, problem_of_refusal
from ai_forge.data_pipeline.text.words import approximate_tokens
from ai_forge.events import Progress
from ai_forge.json_lines import JsonObject, json_line, lines_of
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import CITATION, Message, citations_in
from ai_forge.training.tokens.packing import Batch, TeacherTokens, collate, tokenize_chat

QUESTIONS_A_SUBJECT = 4
REFUSAL_SHARE = 0.12
QUESTION_TOKENS, ANSWER_TOKENS = 160, 256
QUESTION_TEMPERATURE, ANSWER_TEMPERATURE, TOP_P = 0.9, 0.7, 0.95
TOP_TOKENS = 16
GPU_TOKENS = 320_000
"""Of prompts and replies that are generated at a time."""
_SCORED_TOKENS = 16_384
IMPOSSIBLE = -50.0
"""A log-probability (nats) that adds nothing to a sum in float32, and is a number."""


class Writer(Protocol):
    """A model that writes: `torch_model.TorchGenerator`."""

    reads_many: bool

    def sample(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, *, temperature: float, top_p: float, seed: int
    ) -> list[tuple[list[int], bool]]:
        """For each prompt an answer, and whether it came to its end; MemoryError where there are too many."""

    def top_tokens(self, batch: Batch, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The likeliest tokens at each supervised position and their log-probabilities."""


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

    writer: Writer
    tokenizer: ChatTokenizer
    folder: Path
    project: str
    find: Callable[[str, str], tuple[Document, ...]]
    far: Callable[[str, str, set[str]], tuple[Document, ...]]
    seed: int
    samples: int
    progress: Progress
    dropped: Counter[str] = field(default_factory=Counter)

    # -- questions ----------------------------------------------------------------------------------------------

    def ask(self, subjects: Sequence[Subject], n: int, side: str) -> list[Asked]:
        """At most `n` questions about `subjects`, which are of one `side`, taken in turn."""
        path = self.folder / f"asked-{side}.jsonl"
        done = _rows(path)
        asked = [Asked.model_validate(row) for entry in done for row in entry["asked"]]
        for entry in done:
            self.dropped.update(entry["dropped"])
        left = subjects[len(done) :]
        chunk = 128 if self.writer.reads_many else 1
        while left and len(asked) < n:
            now, left = left[:chunk], left[chunk:]
            prompts = [
                question_messages(s.documents, self.project, QUESTIONS_A_SUBJECT, f"{self.seed}/{s.id}") for s in now
            ]
            told = self._sampled(prompts, QUESTION_TOKENS, QUESTION_TEMPERATURE, f"ask {now[0].id}")
            for subject, (text, _) in zip(now, told, strict=True):
                taken, dropped = self._taken(subject, read_questions(text), [a.question for a in asked])
                asked += taken
                self.dropped += dropped
                _append(path, {"asked": [a.model_dump(mode="json") for a in taken], "dropped": dropped})
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
            elif random.Random(f"{self.seed}/refuse {question}").random() < 2 * REFUSAL_SHARE:
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
        """The questions whose answers passed, each with the one that says the most."""
        path = self.folder / "answered.jsonl"
        known = {row["question"]: row for row in _rows(path)}
        left = [a for a in asked if a.question not in known]
        per_call = max(1, 512 // self.samples) if self.writer.reads_many else 1
        for first in range(0, len(left), per_call):
            now = left[first : first + per_call]
            prompts = [a.writer_prompt for a in now for _ in range(self.samples)]
            told = self._sampled(prompts, ANSWER_TOKENS, ANSWER_TEMPERATURE, f"answer {now[0].question}")
            for place, each in enumerate(now):
                own = told[place * self.samples : (place + 1) * self.samples]
                row = {"question": each.question, **best_of(each, own)}
                known[each.question] = row
                _append(path, row)
            self.progress(first + len(now), len(left), "answers")
        for row in known.values():
            self.dropped.update(row["dropped"])
        return [(a, known[a.question]["answer"]) for a in asked if known[a.question]["answer"]]

    # -- what the writer thought --------------------------------------------------------------------------------

    def top_tokens(self, answered: Sequence[tuple[Asked, str]]) -> list[TeacherTokens]:
        """The writer's likeliest tokens along each answer, under the prompt that it was written under.

        What the checks demand is certain (`demanded`), not what the writer would have done in half of its samples.
        """
        rows = [tokenize_chat(asked.writer_prompt, answer, self.tokenizer) for asked, answer in answered]
        made: list[TeacherTokens] = []
        at = 0
        while at < len(rows):
            end = at + 1
            while end < len(rows) and sum(len(row.ids) for row in rows[at : end + 1]) <= _SCORED_TOKENS:
                end += 1
            ids, scores = self.writer.top_tokens(collate(rows[at:end]), TOP_TOKENS)
            first = 0
            for row, (asked, answer) in zip(rows[at:end], answered[at:end], strict=True):
                last = first + row.n_supervised
                thought = TeacherTokens(ids[first:last], scores[first:last])
                made.append(certain(thought, row.ids[row.n_prompt :], demanded(asked, answer, self.tokenizer)))
                first = last
            at = end
            self.progress(at, len(rows), "what the writer thought")
        return made

    def _sampled(
        self, chats: Sequence[list[Message]], max_new_tokens: int, temperature: float, what: str
    ) -> list[tuple[str, bool]]:
        """Replies in the order of `chats`, and whether each came to its end."""
        prompts = [self.tokenizer.encode_prompt(chat) for chat in chats]
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        told: dict[int, tuple[str, bool]] = {}
        room = GPU_TOKENS
        waiting = order
        while waiting:
            n = len(waiting)
            if self.writer.reads_many:
                while n > 1 and n * (len(prompts[waiting[n - 1]]) + max_new_tokens) > room:
                    n -= 1
            seed = random.Random(f"{self.seed}/{what}/{waiting[0]}").randrange(2**31)
            try:
                replies = self.writer.sample(
                    [prompts[i] for i in waiting[:n]], max_new_tokens, temperature=temperature, top_p=TOP_P, seed=seed
                )
            except MemoryError:
                if n == 1:
                    raise
                room //= 2
                continue
            for i, (ids, whole) in zip(waiting[:n], replies, strict=True):
                told[i] = self.tokenizer.decode(ids).strip(), whole
            waiting = waiting[n:]
        return [told[i] for i in range(len(prompts))]


def best_of(asked: Asked, told: Sequence[tuple[str, bool]]) -> JsonObject:
    """The sample to be taught, empty where none passes, how many pass, and what the others were dropped for."""
    dropped: Counter[str] = Counter()
    good: list[str] = []
    for text, whole in told:
        problem = asked.problem_of(text) if whole else "cut_off"
        if problem:
            dropped[problem] += 1
        else:
            good.append(text)
    every = [text for text, _ in told]
    answer = max(good, key=lambda text: (agreement(text, every), -len(text)), default="")
    return {"answer": answer, "n_good": len(good), "dropped": dict(dropped)}


def agreement(answer: str, others: Sequence[str]) -> float:
    """How much an answer says of what the writer says again and again: the mean likeness (Dice) of its words with all samples'.

    Of several answers the one that agrees best is taken (minimum Bayes risk; for language models Bertsch et al., "It's MBR All
    the Way Down", arXiv 2310.01387): what is said once is more often made up.

    >>> said = ["It raises `Missing`.", "`Missing` is raised.", "It waits for a day."]
    >>> max(said, key=lambda answer: agreement(answer, said))
    'It raises `Missing`.'
    """
    own = set(terms(answer))
    each = [set(terms(other)) for other in others]
    return sum(2 * len(own & other) / max(1, len(own) + len(other)) for other in each) / max(1, len(each))


def demanded(asked: Asked, answer: str, tokenizer: ChatTokenizer) -> list[bool]:
    """Of each token of an answer (and the one that ends it) whether the checks demand it: citations, and refusals whole.

    A token that spans the border counts, so the blank or line break before a citation does.
    """
    starts = tokenizer.target_starts(answer)
    ends = [*starts[1:], len(answer)]
    spans = [(0, len(answer))] if asked.refusal else [found.span() for found in CITATION.finditer(answer)]
    in_span = [
        any(start < last and first < end for first, last in spans) for start, end in zip(starts, ends, strict=True)
    ]
    return [*in_span, asked.refusal]


def certain(thought: TeacherTokens, written: Sequence[int], which: Sequence[bool]) -> TeacherTokens:
    """`thought` with no doubt left about the tokens that are `written` where `which` says so."""
    ids, log_probs = thought.ids.copy(), thought.log_probs.copy()
    for place in np.flatnonzero(which):
        others = ids[place][ids[place] != written[place]][: ids.shape[1] - 1]
        ids[place] = [written[place], *others]
        log_probs[place] = [0.0, *[IMPOSSIBLE] * len(others)]
    return TeacherTokens(ids, log_probs)


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


def _rows(path: Path) -> list[JsonObject]:
    if not path.is_file():
        return []
    rows = []
    for _, line in lines_of(path.read_bytes().decode("utf-8", "replace")):
        try:
            rows.append(json.loads(line))
        except ValueError:  # torn by a crash: made again, and so is what follows
            break
    path.write_text("".join(map(json_line, rows)), encoding="utf-8")
    return rows


def _append(path: Path, row: JsonObject) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json_line(row))
