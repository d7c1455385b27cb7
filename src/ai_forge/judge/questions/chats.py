"""Did it help on a dataset of the user's own? Base and tuned model answer the conversations that were held out.

There is no repository here: no citations, no facts that a parser knows, no code to forget. What applies is measured: the loss of
the reference answer (nats per token), and how alike the model's greedy answer is (ROUGE-L; the share that is the reference
word for word is told beside it). The base's best rival is the base that is shown worked examples from the training side.
"""

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict

from ai_forge.config import JudgeSettings
from ai_forge.data_pipeline.schemas.chats import ChatExample
from ai_forge.judge.evaluation import Load, Serve, nats_of
from ai_forge.judge.plain_report import head_of, quoted
from ai_forge.judge.scoring import rouge_l
from ai_forge.judge.statistics import (
    Estimate,
    mean,
    not_surely_below_zero,
    paired_difference,
    proportion,
    ratio_of_sums,
    surely_below_zero,
)
from ai_forge.judge.verdict import Check, Verdict, in_words, signed, start_of_headline
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message
from ai_forge.serving.runtime import in_parts

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
    load: Load,
    serve: Serve,
    tokenizer: ChatTokenizer,
    chats: Sequence[ChatExample],
    worked: Sequence[ChatExample],
    settings: JudgeSettings,
    report: Report,
) -> ChatEvaluation:
    """Each contender on every conversation: answers of what is served, losses of the trainer's model (see `Evaluator`)."""
    texts: dict[str, list[str]] = {name: [] for name in CONTENDERS}
    losses: dict[str, list[float]] = {}
    targets = [tokenizer.encode_target(chat.messages[-1].content) for chat in chats]
    prompts = {
        name: [tokenizer.encode_prompt(with_examples(chat, worked if name == SHOWN else ())) for chat in chats]
        for name in CONTENDERS
    }
    longest = max(len(prompt) for each in prompts.values() for prompt in each) + settings.max_new_tokens
    total = len(CONTENDERS) * len(chats)
    for is_tuned, contenders in ((False, (BASE, SHOWN)), (True, (TUNED,))):
        with serve(is_tuned, longest) as served:
            for name in contenders:
                for part in in_parts(served, prompts[name], settings.max_new_tokens):
                    texts[name] += part
                    report(sum(map(len, texts.values())), total, name)
        model = load(is_tuned)
        for name in contenders:
            losses[name] = [nats_of(model, *each) for each in zip(prompts[name], targets, strict=True)]
        del model  # before the other one is loaded: two may not fit
    answers = tuple(
        ChatAnswer(
            contender=name,
            question=chat.messages[-2].content,
            reference=chat.messages[-1].content,
            answer=texts[name][i],
            similarity=rouge_l(texts[name][i], chat.messages[-1].content),
            loss=losses[name][i],
            n_tokens=len(targets[i]),
        )
        for name in CONTENDERS
        for i, chat in enumerate(chats)
    )
    return ChatEvaluation(answers=answers, n_worked_examples=len(worked))


def with_examples(chat: ChatExample, worked: Sequence[ChatExample]) -> list[Message]:
    """The conversation up to the answer, with the last exchange of each worked example as an earlier one."""
    turns = list(chat.messages[:-1])
    first = int(turns[0].role == "system")  # a system message stays in front: many templates take it nowhere else
    earlier = [turn for example in worked for turn in example.messages[-2:]]
    return [{"role": turn.role, "content": turn.content} for turn in (*turns[:first], *earlier, *turns[first:])]


def judge_chats(evaluation: ChatEvaluation, settings: JudgeSettings) -> Verdict:
    """Better only if the reference answers have surely become likelier, and the model's own are not surely less alike."""
    loss_rival = min((BASE, SHOWN), key=lambda name: _mean_loss(evaluation, name))
    loss = _gain(evaluation, loss_rival, lambda answer: answer.loss / answer.n_tokens, settings)
    like_rival = max((BASE, SHOWN), key=lambda name: sum(answer.similarity for answer in evaluation.of(name)))
    alike = _gain(evaluation, like_rival, lambda answer: answer.similarity, settings)
    loss_text = f"{signed(loss)} nats per token against {loss_rival}; must be below 0"
    alike_text = f"{signed(alike)} ROUGE-L against {like_rival}; must not be surely below 0"
    loss_check = Check("answer loss", surely_below_zero(loss), loss_text)
    # an answer in other words may be as good, so likeness alone carries nothing: it may only not fall
    alike_check = Check("likeness", not_surely_below_zero(alike), alike_text)
    better = loss_check.passed is True and alike_check.passed is not False
    ours, theirs = _mean_loss(evaluation, TUNED), _mean_loss(evaluation, loss_rival)
    measured = f"{ours:.2f} nats per token on {len(evaluation.of(TUNED))} held-out answers (best base: {theirs:.2f})"
    return Verdict(better, f"{start_of_headline(better)}: {measured}.", (loss_check, alike_check))


def _mean_loss(evaluation: ChatEvaluation, contender: str) -> float:
    answers = evaluation.of(contender)
    return sum(answer.loss for answer in answers) / sum(answer.n_tokens for answer in answers)


def _gain(
    evaluation: ChatEvaluation, rival: str, value: Callable[[ChatAnswer], float], settings: JudgeSettings
) -> Estimate | None:
    """Tuned − rival, conversation by conversation."""
    ours, theirs = ([value(answer) for answer in evaluation.of(name)] for name in (TUNED, rival))
    return paired_difference(ours, theirs, confidence=settings.confidence, seed=settings.seed)


def chat_report(verdict: Verdict, evaluation: ChatEvaluation, figures: dict[str, str], settings: JudgeSettings) -> str:
    """Markdown: the verdict, `figures` by name, a row for each contender, and the answers side by side."""
    lines = head_of(verdict, figures)
    n = len(evaluation.of(TUNED))
    lines += ["", f"| n = {n} | answer loss, nats per token | ROUGE-L | word for word |", "| --- | --- | --- | --- |"]
    lines += [_row(evaluation.of(name), name, settings) for name in CONTENDERS]
    lines += [
        "",
        "Not known: what the model forgot of anything else, and whether an answer that reads otherwise is as good: read them.",
    ]
    for base, tuned in zip(evaluation.of(SHOWN), evaluation.of(TUNED), strict=True):
        lines += ["", f"## {' '.join(tuned.question.split())[:200]}"]  # a heading is one line
        lines += quoted("reference", tuned.reference) + quoted(SHOWN, base.answer) + quoted(TUNED, tuned.answer)
    return "\n".join(lines) + "\n"


def _row(answers: Sequence[ChatAnswer], name: str, settings: JudgeSettings) -> str:
    nats, lengths = [a.loss for a in answers], [a.n_tokens for a in answers]
    loss = ratio_of_sums(nats, lengths, confidence=settings.confidence, seed=settings.seed)
    alike = mean([a.similarity for a in answers], confidence=settings.confidence, seed=settings.seed)
    exact = proportion([a.is_exact for a in answers], settings.confidence)
    return f"| {name} | {in_words(loss, '.2f')} | {in_words(alike, '.2f')} | {in_words(exact, '.0%')} |"


__all__ = ["ChatEvaluation", "chat_report", "evaluate_chats", "judge_chats"]
