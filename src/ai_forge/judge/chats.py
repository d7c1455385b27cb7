"""Did it help on a dataset of the user's own? Base and tuned model answer the conversations that were held out.

There is no repository here: no citations, no facts that a parser knows, no code to forget. What applies is measured: the loss of
the reference answer (nats per token), and how alike the model's greedy answer is (ROUGE-L; the share that is the reference
word for word is told beside it). The base's best rival is the base that is shown worked examples from the training side.
"""

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict

from ai_forge.config import JudgeSettings
from ai_forge.data_pipeline.schemas.chats import ChatExample
from ai_forge.data_pipeline.schemas.preference_pairs import ChatMessage
from ai_forge.judge.evaluator import batches_of
from ai_forge.judge.scoring import rouge_l
from ai_forge.judge.statistics import Estimate, mean, paired_difference, proportion, ratio_of_sums
from ai_forge.judge.verdict import Check, Verdict, signed
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message
from ai_forge.training.backends.base import Generator

BASE, SHOWN, TUNED = "base", "base + worked examples", "tuned"
CONTENDERS = (BASE, SHOWN, TUNED)
Report = Callable[[int, int, str], None]


class ChatAnswer(BaseModel):
    """One contender's answer to one conversation. `loss` is the sum over the reference's `n_tokens` (nats)."""

    model_config = ConfigDict(frozen=True)

    contender: str
    question: str
    reference: str
    answer: str
    similarity: float
    loss: float
    n_tokens: int

    @property
    def is_exact(self) -> bool:
        """Whether the answer is the reference, but for white space."""
        return self.answer.split() == self.reference.split()


class ChatEvaluation(BaseModel):
    """All answers, contender by contender, each in the order of the conversations."""

    model_config = ConfigDict(frozen=True)

    answers: tuple[ChatAnswer, ...]
    n_worked_examples: int

    def of(self, contender: str) -> list[ChatAnswer]:
        """A contender's answers."""
        return [answer for answer in self.answers if answer.contender == contender]


def evaluate_chats(
    load: Callable[[bool], Generator],
    tokenizer: ChatTokenizer,
    chats: Sequence[ChatExample],
    worked: Sequence[ChatExample],
    settings: JudgeSettings,
    report: Report,
) -> ChatEvaluation:
    """Each contender on every conversation. `load` gives the base (False) or the tuned model (True), one at a time."""
    total = len(CONTENDERS) * len(chats)
    answers: list[ChatAnswer] = []
    for is_tuned in (False, True):
        model = load(is_tuned)
        for contender in (TUNED,) if is_tuned else (BASE, SHOWN):
            report(len(answers), total, contender)
            shown = worked if contender == SHOWN else ()
            answers += _ask(model, tokenizer, contender, chats, shown, settings)
        del model
    report(total, total, "")
    return ChatEvaluation(answers=tuple(answers), n_worked_examples=len(worked))


def _ask(
    model: Generator,
    tokenizer: ChatTokenizer,
    contender: str,
    chats: Sequence[ChatExample],
    worked: Sequence[ChatExample],
    settings: JudgeSettings,
) -> list[ChatAnswer]:
    prompts = [tokenizer.encode_prompt(with_examples(chat, worked)) for chat in chats]
    references = [tokenizer.encode_target(chat.messages[-1].content) for chat in chats]
    longest = settings.max_new_tokens
    answers: dict[int, ChatAnswer] = {}
    for chosen in batches_of([len(prompt) + longest for prompt in prompts], settings.batch_tokens):
        replies = model.answer([prompts[i] for i in chosen], [references[i] for i in chosen], longest)
        for i, (ids, nats) in zip(chosen, replies, strict=True):
            text, reference = tokenizer.decode(ids), chats[i].messages[-1].content
            answers[i] = ChatAnswer(
                contender=contender,
                question=chats[i].messages[-2].content,
                reference=reference,
                answer=text,
                similarity=rouge_l(text, reference),
                loss=nats,
                n_tokens=len(references[i]),
            )
    return [answers[i] for i in range(len(chats))]


def with_examples(chat: ChatExample, worked: Sequence[ChatExample]) -> list[Message]:
    """The conversation up to the answer, with the last exchange of each worked example as an earlier one."""
    turns = [_message(turn) for turn in chat.messages[:-1]]
    first = 1 if turns[0]["role"] == "system" else 0
    earlier = [_message(turn) for example in worked for turn in example.messages[-2:]]
    return [*turns[:first], *earlier, *turns[first:]]


def _message(turn: ChatMessage) -> Message:
    return {"role": turn.role, "content": turn.content}


def judge_chats(evaluation: ChatEvaluation, settings: JudgeSettings) -> Verdict:
    """Better only if the reference answers have surely become likelier, and the model's own are not surely less alike."""
    loss_rival = min((BASE, SHOWN), key=lambda name: _mean_loss(evaluation, name))
    loss = _gain(evaluation, loss_rival, lambda answer: answer.loss / answer.n_tokens, settings)
    like_rival = max((BASE, SHOWN), key=lambda name: sum(answer.similarity for answer in evaluation.of(name)))
    alike = _gain(evaluation, like_rival, lambda answer: answer.similarity, settings)
    loss_passed = None if loss is None or loss.high is None else loss.high < 0
    alike_passed = None if alike is None or alike.high is None else alike.high >= 0
    better = loss_passed is True and alike_passed is not False
    n = len(evaluation.of(TUNED))
    figures = f"{_mean_loss(evaluation, TUNED):.2f} nats per token on {n} held-out answers (best base: "
    start = "Better than the base" if better else "Not shown to be better than the base"
    return Verdict(
        better=better,
        headline=f"{start}: {figures}{_mean_loss(evaluation, loss_rival):.2f}).",
        rows=(),
        checks=(
            Check("answer loss", loss_passed, f"{signed(loss)} nats per token against {loss_rival}; must be below 0"),
            Check(
                "likeness", alike_passed, f"{signed(alike)} ROUGE-L against {like_rival}; must not be surely below 0"
            ),
        ),
        code_base=None,
        code_tuned=None,
        forgetting=None,
        retrieval_recall=None,
    )


def _mean_loss(evaluation: ChatEvaluation, contender: str) -> float:
    answers = evaluation.of(contender)
    return sum(answer.loss for answer in answers) / sum(answer.n_tokens for answer in answers)


def _gain(
    evaluation: ChatEvaluation, rival: str, value: Callable[[ChatAnswer], float], settings: JudgeSettings
) -> Estimate | None:
    """Tuned − rival, conversation by conversation."""
    return paired_difference(
        [value(answer) for answer in evaluation.of(TUNED)],
        [value(answer) for answer in evaluation.of(rival)],
        groups=[str(place) for place in range(len(evaluation.of(TUNED)))],
        confidence=settings.confidence,
        seed=settings.seed,
    )


def chat_report(verdict: Verdict, evaluation: ChatEvaluation, figures: dict[str, str], settings: JudgeSettings) -> str:
    """Markdown: the verdict, `figures` by name, a row for each contender, and the answers side by side."""
    lines = [f"# {verdict.headline}", "", *(f"- {check.name}: {check.text}" for check in verdict.checks)]
    lines += [f"- {name}: {value}" for name, value in figures.items()]
    n = len(evaluation.of(TUNED))
    lines += ["", f"| n = {n} | answer loss, nats per token | ROUGE-L | word for word |", "| --- | --- | --- | --- |"]
    lines += [_row(evaluation.of(name), name, settings) for name in CONTENDERS]
    lines += [
        "",
        "Not known: what the model forgot of anything else, and whether an answer that reads otherwise is as good: read them.",
    ]
    for base, tuned in zip(evaluation.of(SHOWN), evaluation.of(TUNED), strict=True):
        lines += ["", f"## {' '.join(tuned.question.split())[:200]}"]
        for who, text in (("reference", tuned.reference), (SHOWN, base.answer), (TUNED, tuned.answer)):
            quoted = "\n".join(f"> {line}" for line in text.strip().splitlines()) or "> (nothing)"
            lines += ["", f"{who}:", "", quoted]
    return "\n".join(lines) + "\n"


def _row(answers: Sequence[ChatAnswer], name: str, settings: JudgeSettings) -> str:
    losses = ratio_of_sums(
        [a.loss for a in answers], [a.n_tokens for a in answers], confidence=settings.confidence, seed=settings.seed
    )
    alike = mean([a.similarity for a in answers], confidence=settings.confidence, seed=settings.seed)
    exact = proportion([a.is_exact for a in answers], settings.confidence)
    return f"| {name} | {_text(losses, '.2f')} | {_text(alike, '.2f')} | {_text(exact, '.0%')} |"


def _text(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return "unscored"
    if estimate.low is None or estimate.high is None:
        return format(estimate.value, form)
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


__all__ = ["ChatEvaluation", "chat_report", "evaluate_chats", "judge_chats"]
