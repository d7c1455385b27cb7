"""The tuned model against its rivals on held-out questions and held-out code.

Five contenders answer the same questions: the base bare, with retrieval, and with retrieval and worked examples in its
prompt (the fair rival: it is shown what an answer should look like), the tuned model bare and with retrieval. All get
the same instruction, the same retrieved documents and greedy decoding, and answer from the file that is deployed. As many
questions are asked as it takes to tell them apart: it is looked at a quarter, at half and at all of them. No question,
document or line of code that is scored here was seen in training: the split is by file and was made before synthesis.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ai_forge.config import JudgeSettings
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.events import Sink, StageProgress, ignore
from ai_forge.judge.looked import Look, Looked
from ai_forge.judge.questions.general_texts import GeneralScore, general_nats, general_scores
from ai_forge.judge.questions.people import (
    SHARE_OF_TIME,
    Ask,
    Asked,
    LeftOut,
    PeopleEvaluation,
    ask_in_turn,
    people_scored,
)
from ai_forge.judge.scoring import citation_is_right, facts_are_right, rouge_l
from ai_forge.judge.statistics import level_of, looks, paired_difference
from ai_forge.judge.windows import code_windows
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import messages_for
from ai_forge.serving.runtime import Completes, in_parts
from ai_forge.training.backends.base import Generator
from ai_forge.training.tokens.packing import TokenizedExample, collate

__all__ = [
    "CONTENDERS",
    "TUNED",
    "Answer",
    "CodeScore",
    "Contender",
    "Evaluation",
    "Evaluator",
    "HeldOut",
    "Reply",
    "prompts_of",
    "scored",
]

Load = Callable[[bool], Generator]
"""Gives the trainer's base (False) or tuned model (True)."""
Serve = Callable[[bool, int], AbstractContextManager[Completes]]
"""Opens the exported file of the base (False) or of the tuned model (True), with so many tokens of context."""
Retrieve = Callable[[str], Sequence[Document]]


@dataclass(frozen=True)
class Contender:
    """Who answers, and what it is given."""

    name: str
    is_tuned: bool
    retrieval: bool
    worked_examples: bool = False


CONTENDERS = (
    Contender("base", is_tuned=False, retrieval=False),
    Contender("base + retrieval", is_tuned=False, retrieval=True),
    Contender("base + retrieval + worked examples", is_tuned=False, retrieval=True, worked_examples=True),
    Contender("tuned", is_tuned=True, retrieval=False),
    Contender("tuned + retrieval", is_tuned=True, retrieval=True),
)
TUNED = CONTENDERS[-1].name
BASE_AS_SERVED = CONTENDERS[1].name
"""The base, given what the deployed model is given: the rival on questions of people."""


class Answer(BaseModel):
    """One contender's answer to one question, scored. `loss` is the sum over the reference's `n_tokens` (nats)."""

    model_config = ConfigDict(frozen=True)

    origin: Literal["pipeline"] = "pipeline"
    contender: str
    question: str
    reference: str
    subject_path: str
    family: str
    difficulty: str
    answer: str
    oracle_shown: bool
    citation_right: bool
    facts_right: bool | None
    similarity: float
    loss: float
    n_tokens: int
    looked: Looked | None = None
    """None where it was not looked at."""


class CodeScore(BaseModel):
    """Held-out code of one file: summed −log p (nats) of base and tuned, and its length in bytes."""

    model_config = ConfigDict(frozen=True)

    path: str
    n_bytes: int
    base_nats: float
    tuned_nats: float


class Evaluation(BaseModel):
    """Everything that was measured; `judge.verdict` draws the conclusions."""

    model_config = ConfigDict(frozen=True)

    answers: tuple[Answer, ...]
    code: tuple[CodeScore, ...]
    n_worked_examples: int
    general: tuple[GeneralScore, ...] = ()
    n_looks: int = 1
    """How often it was to be looked whether the questions were enough: so many chances to be wrong."""
    people: PeopleEvaluation = PeopleEvaluation()

    def of(self, contender: str) -> list[Answer]:
        """A contender's answers, in the order of the questions."""
        return [answer for answer in self.answers if answer.contender == contender]


@dataclass(frozen=True)
class HeldOut:
    """What the contenders are measured on: files that no training example touches."""

    questions: Sequence[RAFTExample]
    worked_examples: Sequence[RAFTExample]
    code: Sequence[tuple[str, str]]
    """(path, text)."""
    people: Sequence[Asked] = ()
    left_out: Sequence[LeftOut] = ()
    """Questions of people that cannot be asked any more."""


class Evaluator:
    """Asks what is served, and measures given text with the trainer's model, one in memory at a time.

    Answers come from the exported files of base and tuned model alike, in the type that is deployed: what a quantised file
    loses counts. llama.cpp's server tells no probabilities of a text that it is given, so losses are the trainer's model's.

    Args:
        load: gives the base (False) or the tuned model (True) of the trainer.
        serve: opens the exported file of the base (False) or of the tuned model (True).
        tokenizer: the base's, which is the tuned model's too.
        retrieve: question to documents, for all contenders the same.
        look: finds in each answer what the named measures count; nothing is looked at where it is left out.
    """

    def __init__(
        self,
        load: Load,
        serve: Serve,
        tokenizer: ChatTokenizer,
        retrieve: Retrieve,
        settings: JudgeSettings,
        emit: Sink = ignore,
        look: Look | None = None,
    ) -> None:
        self._load = load
        self._serve = serve
        self._tokenizer = tokenizer
        self._retrieve = retrieve
        self._settings = settings
        self._emit = emit
        self._look = look

    def evaluate(self, held_out: HeldOut, contenders: Sequence[Contender] = CONTENDERS) -> Evaluation:
        """Each of `contenders` on as many questions as it takes, both models on the code."""
        questions, worked = list(held_out.questions), list(held_out.worked_examples)
        shown = [tuple(self._retrieve(q.question)) for q in questions]  # alike for all contenders
        prompts = {one.name: prompts_of(one, questions, shown, worked, self._tokenizer) for one in contenders}
        # as whoever asks the deployed model: the same documents, no worked examples
        shown_to_people = [tuple(self._retrieve(one.text)) for one in held_out.people]
        of_people = [
            self._tokenizer.encode_prompt(messages_for(one.text, documents))
            for one, documents in zip(held_out.people, shown_to_people, strict=True)
        ]
        told, texts = self._ask(contenders, prompts, questions, of_people)
        n_asked = len(texts[contenders[0].name])
        targets = [self._tokenizer.encode_target(q.target) for q in questions[:n_asked]]
        answers: dict[str, list[Answer]] = {}
        nats: dict[bool, list[float]] = {}
        general: dict[bool, list[float]] = {}
        total = sum(map(len, texts.values())) + 2 * (len(held_out.code) + 1)
        counted = itertools.count(1)

        def tell(of: str) -> None:
            # minutes pass here on a busy machine, and silence would be taken for hanging
            self._emit(StageProgress("evaluate", next(counted), total, f"losses: {of}"))

        for is_tuned in (False, True):
            model = self._load(is_tuned)
            for contender in contenders:
                if contender.is_tuned == is_tuned:
                    answers[contender.name] = []
                    given = zip(prompts[contender.name], targets, texts[contender.name], strict=False)
                    for i, (prompt, target, text) in enumerate(given):
                        reply = Reply(text, nats_of(model, prompt, target), len(target))
                        documents = shown[i] if contender.retrieval else ()
                        answers[contender.name].append(scored(contender, questions[i], documents, reply, self._look))
                        tell(contender.name)
            nats[is_tuned] = []
            for _, text in held_out.code:
                nats[is_tuned].append(self._code_nats(model, text))
                tell("held-out code")
            general[is_tuned] = general_nats(model, self._tokenizer)
            tell("general texts")
            del model  # before the other one is loaded: two may not fit
        code = tuple(
            CodeScore(path=path, n_bytes=len(text.encode()), base_nats=base, tuned_nats=tuned)
            for (path, text), base, tuned in zip(held_out.code, nats[False], nats[True], strict=True)
        )
        return Evaluation(
            answers=tuple(answer for contender in contenders for answer in answers[contender.name]),
            code=code,
            n_worked_examples=len(worked),
            general=general_scores(general[False], general[True]),
            n_looks=len(looks(len(questions))),
            people=people_scored(held_out.people, held_out.left_out, shown_to_people, told, self._look),
        )

    def _ask(
        self,
        contenders: Sequence[Contender],
        prompts: Mapping[str, Sequence[Sequence[int]]],
        questions: Sequence[RAFTExample],
        of_people: Sequence[Sequence[int]],
    ) -> tuple[dict[int, dict[str, str]], dict[str, list[str]]]:
        """What people asked, answered by place and contender; and the answers by contender to all of the pipeline's questions,
        or to the first of them where that is enough or takes too long."""
        texts: dict[str, list[str]] = {contender.name: [] for contender in contenders}
        every = [*of_people, *(prompt for each in prompts.values() for prompt in each)]
        longest = max(map(len, every)) + self._settings.max_new_tokens
        total = len(contenders) * len(questions)
        # both open at once: they are quantised and mapped from disk, and which questions are asked next depends on both
        with self._serve(False, longest) as base, self._serve(True, longest) as tuned:
            began = time.monotonic()
            told: dict[int, dict[str, str]] = {}
            if {BASE_AS_SERVED, TUNED} <= texts.keys():
                told = self._ask_for_people(base, tuned, of_people)
            started = time.monotonic()
            left_s = self._settings.time_budget_s - (started - began)
            planned = looks(len(questions))
            for look in planned:
                for contender in contenders:
                    n_before = len(texts[contender.name])
                    model = tuned if contender.is_tuned else base
                    planned_now = prompts[contender.name][n_before:look]
                    for part in in_parts(model, planned_now, self._settings.max_new_tokens):
                        texts[contender.name] += part
                        done = sum(len(answered) for answered in texts.values())
                        self._emit(StageProgress("evaluate", done, total, contender.name))
                seconds = time.monotonic() - started
                if is_enough(texts, questions, len(planned), self._settings) or is_late(seconds, left_s, look, planned):
                    break
        self._emit(StageProgress("evaluate", total, total, f"{look} questions were enough"))
        return told, texts

    def _ask_for_people(
        self, base: Completes, tuned: Completes, prompts: Sequence[Sequence[int]]
    ) -> dict[int, dict[str, str]]:
        """What both models answer to people's questions, as many as fit into their share of the time."""

        def ask(model: Completes, given: Sequence[Sequence[int]]) -> list[str]:
            return [completion.text for completion in model.completions(given, self._settings.max_new_tokens)]

        models: dict[str, Ask] = {BASE_AS_SERVED: partial(ask, base), TUNED: partial(ask, tuned)}
        return ask_in_turn(
            models,
            prompts,
            seed=self._settings.seed,
            budget_s=SHARE_OF_TIME * self._settings.time_budget_s,
            report=lambda done: self._emit(StageProgress("evaluate", done, len(prompts), "questions of people")),
        )

    def _code_nats(self, model: Generator, text: str) -> float:
        """Summed −log p of a file's text, window by window (`code_windows`); the first token of each is given."""
        windows = code_windows(self._tokenizer.encode(text))
        return sum(-float(model.log_probs(collate([window])).sum()) for window in windows)


def prompts_of(
    contender: Contender,
    questions: Sequence[RAFTExample],
    shown: Sequence[Sequence[Document]],
    worked: Sequence[RAFTExample],
    tokenizer: ChatTokenizer,
) -> list[list[int]]:
    """The token ids of what a contender is asked: each question, with its documents and worked examples where it gets them."""
    examples = worked if contender.worked_examples else ()
    return [
        tokenizer.encode_prompt(messages_for(q.question, documents if contender.retrieval else (), examples))
        for q, documents in zip(questions, shown, strict=True)
    ]


def is_late(seconds: float, budget_s: float, look: int, planned: Sequence[int]) -> bool:
    """Whether the questions up to the next look would end after the time that is given."""
    later = [n for n in planned if n > look]
    return bool(later) and seconds * later[0] / look > budget_s


def is_enough(
    texts: Mapping[str, Sequence[str]], questions: Sequence[RAFTExample], n_looks: int, settings: JudgeSettings
) -> bool:
    """Whether the questions asked so far tell the tuned model from the best base, or as much as is wanted.

    They do where the interval of the difference in right citations lies on one side of 0, or is as narrow as
    `settings.interval_width`.
    """
    right = {
        name: [float(citation_is_right(text, q)) for text, q in zip(answered, questions, strict=False)]
        for name, answered in texts.items()
    }
    bases = [c.name for c in CONTENDERS if not c.is_tuned and c.name in right]
    if TUNED not in right or not bases:
        return False
    ours, theirs = right[TUNED], max((right[name] for name in bases), key=sum)
    difference = paired_difference(
        ours,
        theirs,
        groups=[q.subject_path for q in questions[: len(ours)]],
        confidence=level_of(settings.confidence, n_looks),
        seed=settings.seed,
    )
    if difference is None or difference.low is None or difference.high is None:
        return False
    is_clear = difference.low > 0 or difference.high < 0
    # an interval without width says that all were alike so far, not that all will be
    return is_clear or 0 < difference.high - difference.low <= settings.interval_width


def nats_of(model: Generator, prompt: Sequence[int], target: Sequence[int]) -> float:
    """Summed −log p of `target` after `prompt`."""
    return -float(model.log_probs(collate([TokenizedExample((*prompt, *target), len(prompt))])).sum())


@dataclass(frozen=True)
class Reply:
    """A model's greedy words, and −log p (nats) of the reference's `n_tokens` in their place."""

    text: str
    nats: float
    n_tokens: int


def scored(
    contender: Contender,
    question: RAFTExample,
    documents: Sequence[Document],
    reply: Reply,
    look: Look | None = None,
) -> Answer:
    """One reply with everything that is measured on it."""
    oracles = {document.block_id for document in question.oracle_documents}
    return Answer(
        contender=contender.name,
        question=question.question,
        reference=question.target,
        subject_path=question.subject_path,
        family=question.family,
        difficulty=question.difficulty,
        answer=reply.text,
        oracle_shown=oracles <= {document.block_id for document in documents},
        citation_right=citation_is_right(reply.text, question),
        facts_right=facts_are_right(reply.text, question),
        similarity=rouge_l(reply.text, question.target),
        loss=reply.nats,
        n_tokens=reply.n_tokens,
        looked=look(reply.text, question.question, documents) if look else None,
    )
