"""The tuned model against its rivals on held-out questions and held-out code.

Five contenders answer the same questions: the base bare, with retrieval, and with retrieval and worked examples in its
prompt (the fair rival: it is shown what an answer should look like), the tuned model bare and with retrieval. All get
the same instruction, the same retrieved documents and greedy decoding. No question, document or line of code that is
scored here was seen in training: the split is by file and was made before synthesis.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ai_forge.config import JudgeSettings
from ai_forge.data_pipeline.schemas import Document, RAFTExample
from ai_forge.events import Sink, StageProgress, ignore
from ai_forge.judge.human_eval import run_humaneval_subset
from ai_forge.judge.metrics.codebleu import codebleu_components, compute_codebleu
from ai_forge.judge.metrics.hallucination import evaluate_hallucination_rate, measure_hallucination
from ai_forge.judge.metrics.perplexity import code_windows, compute_perplexity, measure_perplexity
from ai_forge.judge.metrics.reconstruction import evaluate_reconstruction
from ai_forge.judge.scoring import citation_is_right, facts_are_right, rouge_l
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message, messages_for
from ai_forge.training.backends.base import Generator
from ai_forge.training.tokens.packing import collate

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
    "batches_of",
    "code_windows",
    "codebleu_components",
    "compute_codebleu",
    "compute_perplexity",
    "evaluate_hallucination_rate",
    "evaluate_reconstruction",
    "measure_hallucination",
    "measure_perplexity",
    "replies_in_batches",
    "run_humaneval_subset",
    "scored",
]

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


class Answer(BaseModel):
    """One contender's answer to one question, scored. `loss` is the sum over the reference's `n_tokens` (nats)."""

    model_config = ConfigDict(frozen=True)

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


class Evaluator:
    """Asks and scores; holds at most one model in memory at a time.

    Args:
        load: gives the base (False) or the tuned model (True).
        tokenizer: the base's, which is the tuned model's too.
        retrieve: question to documents, for all contenders the same.
    """

    def __init__(
        self,
        load: Callable[[bool], Generator],
        tokenizer: ChatTokenizer,
        retrieve: Retrieve,
        settings: JudgeSettings,
        emit: Sink = ignore,
    ) -> None:
        self._load = load
        self._tokenizer = tokenizer
        self._retrieve = retrieve
        self._settings = settings
        self._emit = emit
        self._done = 0

    def evaluate(self, held_out: HeldOut, contenders: Sequence[Contender] = CONTENDERS) -> Evaluation:
        """Each of `contenders` on every question, both models on the code."""
        questions = list(held_out.questions)
        shown: list[Sequence[Document]] = [
            tuple(self._retrieve(q.question)) for q in questions
        ]  # alike for all contenders
        nothing: list[Sequence[Document]] = [()] * len(questions)
        worked = list(held_out.worked_examples)
        total = len(contenders) * len(questions)
        answers: list[Answer] = []
        nats: dict[bool, list[float]] = {}
        for is_tuned in (False, True):
            model = self._load(is_tuned)
            for contender in contenders:
                if contender.is_tuned != is_tuned:
                    continue
                examples = worked if contender.worked_examples else []
                documents = shown if contender.retrieval else nothing
                answers += self._ask(model, contender, questions, documents, examples, total)
            nats[is_tuned] = [self._code_nats(model, text) for _, text in held_out.code]
            del model  # before the other one is loaded: two may not fit
        code = tuple(
            CodeScore(path=path, n_bytes=len(text.encode()), base_nats=base, tuned_nats=tuned)
            for (path, text), base, tuned in zip(held_out.code, nats[False], nats[True], strict=True)
        )
        return Evaluation(answers=tuple(answers), code=code, n_worked_examples=len(worked))

    def _ask(
        self,
        model: Generator,
        contender: Contender,
        questions: Sequence[RAFTExample],
        documents: Sequence[Sequence[Document]],
        worked: Sequence[RAFTExample],
        total: int,
    ) -> list[Answer]:
        asked = zip(questions, documents, strict=True)
        chats = [messages_for(question.question, shown, worked) for question, shown in asked]
        references = [question.target for question in questions]
        answers: dict[int, Answer] = {}
        for replies in replies_in_batches(model, self._tokenizer, chats, references, self._settings):
            answers |= {i: scored(contender, questions[i], documents[i], reply) for i, reply in replies.items()}
            self._done += len(replies)
            self._emit(StageProgress("evaluate", self._done, total, contender.name))
        return [answers[i] for i in range(len(questions))]

    def _code_nats(self, model: Generator, text: str) -> float:
        """Summed −log p of a file's text, in windows (`code_windows`); the first token of each is given."""
        windows = code_windows(self._tokenizer.encode(text))
        return sum(-float(model.log_probs(collate([window])).sum()) for window in windows)


@dataclass(frozen=True)
class Reply:
    """A model's greedy words, and −log p (nats) of the reference's `n_tokens` in their place."""

    text: str
    nats: float
    n_tokens: int


def replies_in_batches(
    model: Generator,
    tokenizer: ChatTokenizer,
    chats: Sequence[Sequence[Message]],
    references: Sequence[str],
    settings: JudgeSettings,
) -> Iterator[dict[int, Reply]]:
    """The replies to `chats` by their places, batch by batch, the shortest prompts first."""
    prompts = [tokenizer.encode_prompt(chat) for chat in chats]
    targets = [tokenizer.encode_target(reference) for reference in references]
    longest = settings.max_new_tokens
    for places in batches_of([len(prompt) + longest for prompt in prompts], settings.batch_tokens):
        answers = model.answer([prompts[i] for i in places], [targets[i] for i in places], longest)
        by_place = zip(places, answers, strict=True)
        yield {i: Reply(tokenizer.decode(ids), nats, len(targets[i])) for i, (ids, nats) in by_place}


def batches_of(lengths: Sequence[int], room: int) -> list[list[int]]:
    """The places of `lengths`, shortest first, in batches that, padded, take at most `room` tokens (or are one long one).

    >>> batches_of([30, 10, 20, 90], room=60)
    [[1, 2], [0], [3]]
    """
    batches: list[list[int]] = []
    # by length, because a batch is padded to its longest: mixed ones would compute padding for the most part
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and lengths[place] * (len(batches[-1]) + 1) <= room:
            batches[-1].append(place)
        else:
            batches.append([place])
    return batches


def scored(contender: Contender, question: RAFTExample, documents: Sequence[Document], reply: Reply) -> Answer:
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
    )


if __name__ == "__main__":
    from ai_forge.judge.metrics.command import main

    sys.exit(main())
