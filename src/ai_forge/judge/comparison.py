"""Two tuned models beside each other, on what both were asked and neither was trained on.

Questions and files that only one of the two evaluations holds are left out: another split, another commit or a verdict that
was clear sooner makes them differ, and a figure over other questions is no comparison. A difference is the second model's
figure minus the first's, paired question by question, whole files resampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from ai_forge.judge.evaluation import TUNED, Answer, Evaluation
from ai_forge.judge.evaluation_report import Interval, interval
from ai_forge.judge.questions.people import FIGURES as OF_PEOPLE
from ai_forge.judge.questions.people import PeopleAnswer
from ai_forge.judge.report import environment
from ai_forge.judge.scoring import rouge_l
from ai_forge.judge.statistics import (
    Estimate,
    mean,
    paired_difference,
    surely_above_zero,
    surely_below_zero,
)
from ai_forge.judge.verdict import Decision
from ai_forge.workspace import atomic_write

A = TypeVar("A")
Better = Literal["first", "second", "not shown"]
N_SHOWN = 8


class Side(BaseModel):
    """One of the two: what it is, and what its own report says."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    model: str
    created: str
    commit: str | None
    base: str
    decision: Decision | None
    """None for a model that is no run of ours and has no report."""
    headline: str
    n_questions: int
    n_train: int | None
    settings: Mapping[str, str]
    """By name, as text; the page shows those that differ."""


class Row(BaseModel):
    """One figure of both, on the `n` questions or files that both hold. `better` is what the difference's interval shows."""

    model_config = ConfigDict(frozen=True)

    figure: str
    unit: Literal["share", "nats"]
    first: Interval | None
    second: Interval | None
    difference: Interval | None
    better: Better


class Pair(BaseModel):
    """What both answered to a question, and whether it was right (`None`: not scored)."""

    model_config = ConfigDict(frozen=True)

    question: str
    origin: Literal["people", "pipeline"]
    first: str
    second: str
    first_right: bool
    second_right: bool


class Comparison(BaseModel):
    """All of it; `n_common` counts the questions that both were asked, people's and the pipeline's."""

    model_config = ConfigDict(frozen=True)

    first: Side
    second: Side
    headline: str
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    n_common: int
    unknown: tuple[str, ...]
    differing_settings: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class _Values:
    """One figure's values of both models, question by question, and the file of each."""

    figure: str
    unit: Literal["share", "nats"]
    first: Sequence[float]
    second: Sequence[float]
    files: Sequence[str]
    lower_is_better: bool = False


def compare(
    first: Side, second: Side, evaluations: tuple[Evaluation, Evaluation], *, confidence: float = 0.95, seed: int = 0
) -> Comparison:
    """The comparison of two evaluated models."""
    of_people = _common([list(e.people.of(TUNED)) for e in evaluations], lambda answer: answer.question)
    # with the reference: the same words about code that changed are another question
    of_pipeline = _common(
        [e.of(TUNED) for e in evaluations], lambda answer: (answer.question, answer.subject_path, answer.reference)
    )
    values = [*_people_values(of_people), *_pipeline_values(of_pipeline), *_code_values(evaluations)]
    rows = tuple(_row(each, confidence, seed) for each in values if each.first)
    n_common = len(of_people) + len(of_pipeline)
    return Comparison(
        first=first,
        second=second,
        headline=_headline(rows, n_common),
        rows=rows,
        pairs=_pairs(of_people, of_pipeline),
        n_common=n_common,
        unknown=_unknown(first, second, n_common),
        differing_settings={
            name: (first.settings.get(name, "not there"), second.settings.get(name, "not there"))
            for name in sorted({*first.settings, *second.settings})
            if first.settings.get(name) != second.settings.get(name)
        },
    )


def _common(answers: Sequence[Sequence[A]], key: Callable[[A], object]) -> list[tuple[A, A]]:
    """Both models' answers to what both were asked, in the first one's order."""
    ours, theirs = answers
    by_key = {key(answer): answer for answer in theirs}
    return [(answer, by_key[key(answer)]) for answer in ours if key(answer) in by_key]


def _people_values(pairs: Sequence[tuple[PeopleAnswer, PeopleAnswer]]) -> list[_Values]:
    found = []
    for name, value in OF_PEOPLE.items():
        scored = [(value(one.score), value(other.score), one.question) for one, other in pairs]
        # a question is its own group: it may be answered by several files
        found.append(_values(f"people's questions: {name}", scored))
    return found


def _pipeline_values(pairs: Sequence[tuple[Answer, Answer]]) -> list[_Values]:
    def scored(value: Callable[[Answer], float | None]) -> list[tuple[float | None, float | None, str]]:
        return [(value(one), value(other), one.subject_path) for one, other in pairs]

    # per byte of the reference: the two may count tokens differently
    def loss_of(answer: Answer) -> float | None:
        return answer.loss / len(answer.reference.encode()) if answer.n_tokens and answer.reference else None

    loss = _values("answer loss per byte", scored(loss_of))
    return [
        _values("right citations", scored(lambda a: a.citation_right)),
        _values("facts right", scored(lambda a: a.facts_right)),
        _values("likeness to the reference (ROUGE-L)", scored(lambda a: a.similarity)),
        _as_nats(loss),
    ]


def _code_values(evaluations: tuple[Evaluation, Evaluation]) -> list[_Values]:
    code = _common([e.code for e in evaluations], lambda score: (score.path, score.n_bytes))
    general = _common([e.general for e in evaluations], lambda score: (score.kind, score.name))
    of_code = [(a.tuned_nats / a.n_bytes, b.tuned_nats / b.n_bytes, a.path) for a, b in code]
    of_general = [(a.tuned_nats / a.n_bytes, b.tuned_nats / b.n_bytes, a.name) for a, b in general]
    return [
        _as_nats(_values("held-out code, loss per byte", of_code)),
        _as_nats(_values("general texts, loss per byte", of_general)),
    ]


def _values(figure: str, scored: Sequence[tuple[float | None, float | None, str]]) -> _Values:
    whole = [(a, b, file) for a, b, file in scored if a is not None and b is not None]
    firsts, seconds = [float(a) for a, _, _ in whole], [float(b) for _, b, _ in whole]
    return _Values(figure, "share", firsts, seconds, [file for _, _, file in whole])


def _as_nats(values: _Values) -> _Values:
    return _Values(values.figure, "nats", values.first, values.second, values.files, lower_is_better=True)


def _row(values: _Values, confidence: float, seed: int) -> Row:
    def average(of: Sequence[float]) -> Interval | None:
        return interval(mean(of, groups=values.files, confidence=confidence, seed=seed))

    difference = paired_difference(values.second, values.first, groups=values.files, confidence=confidence, seed=seed)
    return Row(
        figure=values.figure,
        unit=values.unit,
        first=average(values.first),
        second=average(values.second),
        difference=interval(difference),
        better=_better(difference, lower_is_better=values.lower_is_better),
    )


def _better(difference: Estimate | None, *, lower_is_better: bool) -> Better:
    if surely_above_zero(difference):
        return "first" if lower_is_better else "second"
    if surely_below_zero(difference):
        return "second" if lower_is_better else "first"
    return "not shown"


def _headline(rows: Sequence[Row], n_common: int) -> str:
    if n_common == 0:
        return "Nothing was asked of both: no comparison."
    told = []
    for who in ("first", "second"):
        figures = [row.figure for row in rows if row.better == who]
        if figures:
            told.append(f"the {who} is better in {', '.join(figures)}")
    if not told:
        return f"No difference is shown on the {n_common} questions that both were asked."
    text = "; ".join(told)
    return f"{text[0].upper()}{text[1:]} ({n_common} questions asked of both)."


def _unknown(first: Side, second: Side, n_common: int) -> tuple[str, ...]:
    texts = [
        f"Only the {n_common} questions that both were asked are compared, of {first.n_questions} and {second.n_questions}.",
        "Each figure has an interval of its own: of twenty that do not differ, one will seem to.",
        "One training each: another seed would move both by a few points.",
    ]
    if first.commit != second.commit:
        texts.append("The two were trained on other states of the code: what differs may be the code's doing.")
    if first.base != second.base:
        texts.append("The two have other bases: what differs may be the base's doing.")
    return tuple(texts)


def _pairs(
    of_people: Sequence[tuple[PeopleAnswer, PeopleAnswer]], of_pipeline: Sequence[tuple[Answer, Answer]]
) -> tuple[Pair, ...]:
    """Up to `N_SHOWN` of each origin: first those of which one was right, then those whose words differ most."""
    people = [
        Pair(
            question=a.question,
            origin="people",
            first=a.answer,
            second=b.answer,
            first_right=a.score.right,
            second_right=b.score.right,
        )
        for a, b in of_people
    ]
    pipeline = [
        Pair(
            question=a.question,
            origin="pipeline",
            first=a.answer,
            second=b.answer,
            first_right=a.citation_right and a.facts_right is not False,
            second_right=b.citation_right and b.facts_right is not False,
        )
        for a, b in of_pipeline
    ]

    def order(pair: Pair) -> tuple[bool, float]:
        return pair.first_right == pair.second_right, rouge_l(pair.first, pair.second)

    return (*sorted(people, key=order)[:N_SHOWN], *sorted(pipeline, key=order)[:N_SHOWN])


def text_of(value: Interval | None, unit: str, *, is_difference: bool = False) -> str:
    """A figure as it is read: shares in per cent, their differences in points, an interval in brackets.

    >>> text_of(Interval(value=0.5, low=0.25, high=0.75, n=4), "share")
    '50% (25% to 75%)'
    >>> text_of(Interval(value=-0.5, low=-0.75, high=-0.25, n=4), "share", is_difference=True)
    '-50 points (-75 to -25)'
    """
    if value is None:
        return "unscored"
    sign = "+" if is_difference else ""
    if unit == "nats":
        return _in_form(value, f"{sign}.3f", 1.0, "")
    if is_difference:
        return _in_form(value, "+.0f", 100.0, " points")
    return _in_form(value, ".0%", 1.0, "")


def _in_form(value: Interval, form: str, scale: float, unit: str) -> str:
    text = f"{scale * value.value:{form}}{unit}"
    if value.low is None or value.high is None or math.isnan(value.low):
        return f"{text} (no interval)"
    return f"{text} ({scale * value.low:{form}} to {scale * value.high:{form}})"


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write it as one self-contained page, as Markdown or as JSON, by the ending of `path` (.html, .md, .json)."""
    if path.suffix == ".json":
        atomic_write(path, comparison.model_dump_json(indent=1))
        return
    template = environment().get_template(f"comparison{path.suffix}.j2")
    atomic_write(path, template.render({"c": comparison, "text_of": text_of}))
