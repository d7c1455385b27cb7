"""`EvaluationReport`: what one evaluation found, as values for other programs (`report.json`); None is "not measured"."""

import math
from collections.abc import Callable, Mapping

from pydantic import BaseModel, ConfigDict

from ai_forge.judge.evaluation import TUNED, Evaluation
from ai_forge.judge.looked import ServedSpeed
from ai_forge.judge.named import Perplexities
from ai_forge.judge.questions.people import LeftOut
from ai_forge.judge.statistics import Estimate
from ai_forge.judge.verdict import Decision, Row, Verdict, best_base

FIGURES: Mapping[str, Callable[[Row], Estimate | None]] = {
    "answer_loss": lambda row: row.answer_loss,
    "citations": lambda row: row.citations,
    "facts": lambda row: row.facts,
    "similarity": lambda row: row.similarity,
}


class Interval(BaseModel):
    """An estimate with its interval, and of how many."""

    model_config = ConfigDict(frozen=True)

    value: float
    low: float | None
    high: float | None
    n: int


class PeopleReport(BaseModel):
    """What was measured on the questions that people wrote: figures by contender and name, and tuned minus base by name."""

    model_config = ConfigDict(frozen=True)

    origin: str = "people"
    n_written: int
    n_asked: int
    left_out: tuple[LeftOut, ...]
    figures: Mapping[str, Mapping[str, Interval | None]]
    improvement_over_base: Mapping[str, Interval | None]
    confidence: float


class EvaluationReport(BaseModel):
    """The figures of one tuned model.

    `perplexity` is that of the held-out answers, per token. `improvement_over_base` is tuned minus the best base contender, by
    figure; `loss_curve` and `metric_distribution` are the PNG files' names beside the report.
    """

    model_config = ConfigDict(frozen=True)

    model_name: str
    base_model: str
    training_date: str
    num_training_examples: int
    num_eval_examples: int
    decision: Decision
    headline: str
    reasons: tuple[str, ...]
    people: PeopleReport | None = None
    """None where nobody wrote any."""
    origin: str = "pipeline"
    """Who wrote the questions that all that follows is measured on."""
    perplexity: float | None = None
    codebleu_score: float | None = None
    humaneval_pass_rate: float | None = None
    reconstruction_score: float | None = None
    hallucination_rate: float | None = None
    measures: Mapping[str, Mapping[str, Interval | None]] = {}
    """Shares of the answers of base and tuned model as served, by contender and name."""
    perplexities: Mapping[str, Perplexities | None] = {}
    """Of base and tuned model with retrieval."""
    speed: ServedSpeed | None = None
    not_measured: Mapping[str, str] = {}
    """What takes too long to be measured each time, with what measures it."""
    improvement_over_base: Mapping[str, float]
    figures: Mapping[str, Mapping[str, Interval | None]]
    """By contender and name."""
    confidence: float
    loss_curve: str
    metric_distribution: str


def interval(e: Estimate | None) -> Interval | None:
    """An estimate as it is written."""
    if e is None:
        return None
    return Interval(value=e.value, low=e.low, high=e.high, n=e.n)


def people_of(evaluation: Evaluation, verdict: Verdict) -> PeopleReport | None:
    """The figures of people's questions; None where nobody wrote any."""
    people = evaluation.people
    if not people.n_written:
        return None
    return PeopleReport(
        n_written=people.n_written,
        n_asked=people.n_asked,
        left_out=people.left_out,
        figures={row.contender: {name: interval(e) for name, e in row.figures.items()} for row in verdict.people},
        improvement_over_base={name: interval(e) for name, e in verdict.people_gains.items()},
        confidence=verdict.people_confidence,
    )


def improvements(verdict: Verdict) -> dict[str, float]:
    """Tuned with retrieval minus the best base contender, for each figure that both have."""
    rows = {row.contender: row for row in verdict.rows}
    if TUNED not in rows:
        return {}
    found: dict[str, float] = {}
    for name, figure in FIGURES.items():
        rival = best_base(verdict.rows, figure, lowest=name == "answer_loss")
        ours, theirs = figure(rows[TUNED]), figure(rows[rival])
        if ours is not None and theirs is not None:
            found[name] = ours.value - theirs.value
    return found


def perplexity_of(evaluation: Evaluation) -> float | None:
    """exp of the mean loss per token of the tuned model with retrieval on the held-out answers."""
    answers = evaluation.of(TUNED)
    n_tokens = sum(answer.n_tokens for answer in answers)
    if n_tokens == 0:
        return None
    return math.exp(sum(answer.loss for answer in answers) / n_tokens)
