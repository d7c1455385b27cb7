"""From measurements to a verdict: did it help, by how much, and what was lost.

The gate (`judge`) is a pure function of what was measured and of the settings. It reads differences to the best base contender,
question by question, never the training loss, and what was forgotten against a budget each, all by the bounds of intervals:

    promote   the questions that people wrote are not answered surely worse (they are read first); answer loss and citations of
              the pipeline's own are surely better, facts not surely worse, nothing forgotten beyond its budget
    reject    something is surely worse, or surely forgotten beyond its budget
    hold      neither is shown: more questions, or another training, may show it

Several comparisons: to promote, all checks must pass, which needs no correction (each may err, all of them together rarely do).
To reject, one is enough, so the error is split over those that can (Bonferroni). Where questions were asked until they were
enough, it is split over the looks as well. A check that could not be computed is unscored (None) and says so.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from ai_forge.config import JudgeSettings
from ai_forge.judge.evaluation import BASE_AS_SERVED, CONTENDERS, TUNED, Answer, Evaluation
from ai_forge.judge.questions.general_texts import GeneralScore, Kind
from ai_forge.judge.questions.people import FIGURES, PeopleRow, gain_of, row_of
from ai_forge.judge.statistics import (
    FIRST_LOOK,
    Estimate,
    bootstrap,
    level_of,
    mean,
    not_surely_below_zero,
    paired_difference,
    proportion,
    ratio_of_sums,
    surely_above_zero,
    surely_below_zero,
)

BASES = tuple(c.name for c in CONTENDERS if not c.is_tuned)


@dataclass(frozen=True)
class Row:
    """One contender's figures."""

    contender: str
    answer_loss: Estimate | None
    citations: Estimate | None
    facts: Estimate | None
    similarity: Estimate | None


@dataclass(frozen=True)
class Check:
    """One condition of the gate; `passed` is None where it could not be scored."""

    name: str
    passed: bool | None
    text: str
    harm: bool = False
    """Surely worse than it may be: enough to reject."""


Decision = Literal["promote", "hold", "reject"]


@dataclass(frozen=True)
class Verdict:
    """The conclusion: `better` only if no check fails and those that carry it are scored; what follows is a repository's."""

    better: bool
    headline: str
    checks: tuple[Check, ...]
    rows: tuple[Row, ...] = ()
    code_base: Estimate | None = None
    code_tuned: Estimate | None = None
    forgetting: Estimate | None = None
    retrieval_recall: Estimate | None = None
    general_code: Estimate | None = None
    general_chat: Estimate | None = None
    confidence: float = 0.95
    """The level of the intervals, looks accounted for."""
    people: tuple[PeopleRow, ...] = ()
    """Base and tuned model on what people asked."""
    people_gains: Mapping[str, Estimate | None] = field(default_factory=dict)
    """Tuned minus base, by figure."""
    people_confidence: float = 0.95
    """The level of these: that of the settings, because all were asked at one go."""

    @property
    def decision(self) -> Decision:
        """What to do with the model."""
        if self.better:
            return "promote"
        return "reject" if any(check.harm for check in self.checks) else "hold"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is not promoted, check by check; why it is where it is."""
        if self.better:
            return tuple(f"{c.name}: {c.text}" for c in self.checks if c.passed)
        against = [c for c in self.checks if c.harm] or [c for c in self.checks if not c.passed]
        return tuple(f"{c.name}: {c.text}" for c in against)


def _row(name: str, answers: list[Answer], settings: JudgeSettings) -> Row:
    files, confidence, seed = [a.subject_path for a in answers], settings.confidence, settings.seed
    losses, lengths = [a.loss for a in answers], [a.n_tokens for a in answers]
    return Row(
        contender=name,
        answer_loss=ratio_of_sums(losses, lengths, groups=files, confidence=confidence, seed=seed),
        citations=proportion([a.citation_right for a in answers], confidence),
        facts=proportion([a.facts_right for a in answers if a.facts_right is not None], confidence),
        similarity=mean([a.similarity for a in answers], groups=files, confidence=confidence, seed=seed),
    )


def _gain(
    evaluation: Evaluation, rival: str, value: Callable[[Answer], float | None], settings: JudgeSettings
) -> Estimate | None:
    """Paired difference tuned + retrieval − rival on the questions where `value` is defined."""
    ours, theirs, files = [], [], []
    for answer, rivals in zip(evaluation.of(TUNED), evaluation.of(rival), strict=True):
        our, their = value(answer), value(rivals)
        if our is None or their is None:  # counted as 0, an unscored answer would be a wrong one
            continue
        ours.append(our)
        theirs.append(their)
        files.append(answer.subject_path)
    return paired_difference(ours, theirs, groups=files, confidence=settings.confidence, seed=settings.seed)


def best_base(rows: tuple[Row, ...], figure: Callable[[Row], Estimate | None], *, lowest: bool = False) -> str:
    """The base contender with the best value of a figure: the one to beat."""
    scored = []
    for row in rows:
        estimate = figure(row)
        if row.contender in BASES and estimate is not None:
            scored.append((estimate.value, row.contender))
    if not scored:  # the base that is given the most: nothing speaks for another
        return BASES[-1]
    _, best = min(scored) if lowest else max(scored)
    return best


N_HARMS = (
    6  # the checks below on what the pipeline asks: any of them can reject, as can each figure of people's questions
)


def judge(evaluation: Evaluation, settings: JudgeSettings) -> Verdict:
    """The verdict on an evaluation."""
    at_looks = settings.model_copy(update={"confidence": level_of(settings.confidence, evaluation.n_looks)})
    n_harms = N_HARMS + len(FIGURES) if evaluation.people.answers else N_HARMS
    strict = at_looks.model_copy(update={"confidence": level_of(at_looks.confidence, n_harms)})
    rows = tuple(_row(c.name, evaluation.of(c.name), at_looks) for c in CONTENDERS)
    # Loss and citations must be scored. Facts are in few answers, and held-out code may be missing: those may only not fail.
    required = _loss_check(evaluation, rows, at_looks, strict), _citation_check(evaluation, rows, at_looks, strict)
    budgets = (
        ("forgetting", "held-out code", evaluation.code, settings.forgetting_budget),
        ("general code", "general code", general_of(evaluation, "code"), settings.general_code_budget),
        ("general chat", "answers to general chats", general_of(evaluation, "chat"), settings.general_chat_budget),
    )
    forgotten = [_budget_check(name, what, scores, budget, at_looks, strict) for name, what, scores, budget in budgets]
    # an evaluation of an older AI Forge has no general texts: what was never asked is no check
    forgotten = [check for check in forgotten if check.name == "forgetting" or check.passed is not None]
    checks = (
        *_people_check(evaluation, settings, level_of(settings.confidence, n_harms)),
        *required,
        _facts_check(evaluation, rows, at_looks, strict),
        *forgotten,
    )
    better = all(c.passed for c in required) and all(c.passed is not False for c in checks)
    people = [BASE_AS_SERVED, TUNED] if evaluation.people.answers else []
    of_people = tuple(row_of(evaluation.people, name, settings.confidence, settings.seed) for name in people)
    return Verdict(
        better=better,
        headline=_headline(better, rows, checks, of_people),
        checks=checks,
        rows=rows,
        code_base=_bits_per_byte(evaluation, at_looks, tuned=False),
        code_tuned=_bits_per_byte(evaluation, at_looks, tuned=True),
        forgetting=worsening(evaluation.code, at_looks),
        retrieval_recall=proportion([a.oracle_shown for a in evaluation.of(TUNED)], at_looks.confidence),
        general_code=worsening(general_of(evaluation, "code"), at_looks),
        general_chat=worsening(general_of(evaluation, "chat"), at_looks),
        confidence=at_looks.confidence,
        people=of_people,
        people_gains=_people_gains(evaluation, settings, settings.confidence),
        people_confidence=settings.confidence,
    )


PEOPLE = "questions of people"


def _people_gains(evaluation: Evaluation, settings: JudgeSettings, confidence: float) -> dict[str, Estimate | None]:
    """What the tuned model gained on people's questions, by figure; nothing where nobody asked."""
    asked = evaluation.people
    if not asked.answers:
        return {}
    return {name: gain_of(asked, name, TUNED, BASE_AS_SERVED, confidence, settings.seed) for name in FIGURES}


def _people_check(evaluation: Evaluation, settings: JudgeSettings, strict: float) -> tuple[Check, ...]:
    """Whether what people asked is answered surely worse than by the base, in any figure; nothing where nobody asked."""
    gains = _people_gains(evaluation, settings, settings.confidence)
    if not gains:
        return ()
    worse = [name for name, e in gains.items() if surely_below_zero(e)]
    # a few answers that are all worse leave an interval without width: enough not to promote, not enough to reject
    surely = {name: e for name, e in _people_gains(evaluation, settings, strict).items() if e and e.n >= FIRST_LOOK}
    harm = any(surely_below_zero(e) for e in surely.values())
    told = [f"{in_points(gains['right'])} right against {BASE_AS_SERVED}, n = {evaluation.people.n_asked}"]
    told += [f"{name} {in_points(gains[name])}" for name in worse if name != "right"]
    passed = not_surely_below_zero(gains["right"])
    if worse:
        passed = False
    return (Check(PEOPLE, passed, f"{'; '.join(told)}; must not be surely below 0", harm),)


def general_of(evaluation: Evaluation, kind: Kind) -> list[GeneralScore]:
    """The general texts of a kind."""
    return [score for score in evaluation.general if score.kind == kind]


def _loss_check(evaluation: Evaluation, rows: tuple[Row, ...], settings: JudgeSettings, strict: JudgeSettings) -> Check:
    rival = best_base(rows, lambda r: r.answer_loss, lowest=True)

    def gain(level: JudgeSettings) -> Estimate | None:
        return _gain(evaluation, rival, lambda a: a.loss / a.n_tokens, level)

    text = f"{signed(gain(settings))} nats per token against {rival}; must be below 0"
    harm = surely_above_zero(gain(strict)) is True
    return Check("answer loss", surely_below_zero(gain(settings)), text, harm)


def _citation_check(
    evaluation: Evaluation, rows: tuple[Row, ...], settings: JudgeSettings, strict: JudgeSettings
) -> Check:
    rival = best_base(rows, lambda r: r.citations)
    gain = _gain(evaluation, rival, lambda a: a.citation_right, settings)
    harm = surely_below_zero(_gain(evaluation, rival, lambda a: a.citation_right, strict)) is True
    text = f"{in_points(gain)} against {rival}; must be above 0"
    return Check("citations", surely_above_zero(gain), text, harm)


def _facts_check(
    evaluation: Evaluation, rows: tuple[Row, ...], settings: JudgeSettings, strict: JudgeSettings
) -> Check:
    rival = best_base(rows, lambda r: r.facts)
    gain = _gain(evaluation, rival, lambda a: a.facts_right, settings)
    harm = surely_below_zero(_gain(evaluation, rival, lambda a: a.facts_right, strict)) is True
    text = f"{in_points(gain)} against {rival}; must not be surely below 0"
    return Check("facts", not_surely_below_zero(gain), text, harm)


class _Scored(Protocol):
    """A text with what both models gave to it."""

    @property
    def n_bytes(self) -> int: ...
    @property
    def base_nats(self) -> float: ...
    @property
    def tuned_nats(self) -> float: ...


def worsening(scores: Sequence[_Scored], settings: JudgeSettings) -> Estimate | None:
    """Perplexity per byte, tuned over base, minus 1: 0.05 is five per cent worse."""
    # per byte, not per token, so that bases with other tokenizers can be compared
    rows = [(c.tuned_nats - c.base_nats, float(c.n_bytes)) for c in scores]
    return bootstrap(
        rows,
        lambda d: math.expm1(float(d[:, 0].sum() / d[:, 1].sum())),  # a ratio of sums: long texts weigh more
        confidence=settings.confidence,
        seed=settings.seed,
    )


def _budget_check(
    name: str,
    what: str,
    scores: Sequence[_Scored],
    budget: float,
    settings: JudgeSettings,
    strict: JudgeSettings,
) -> Check:
    change, surely = worsening(scores, settings), worsening(scores, strict)
    passed = None
    if change is not None:  # by the bound: what may lie beyond the budget is not known to be within it
        passed = (change.value if change.high is None else change.high) <= budget
    harm = surely is not None and surely.low is not None and surely.low > budget
    text = f"{signed(change, percent=True)} perplexity per byte of {what}; surely at most {budget:+.0%}"
    return Check(name, passed, text, harm)


def _bits_per_byte(evaluation: Evaluation, settings: JudgeSettings, *, tuned: bool) -> Estimate | None:
    bits = [(c.tuned_nats if tuned else c.base_nats) / math.log(2) for c in evaluation.code]
    sizes = [float(c.n_bytes) for c in evaluation.code]
    return ratio_of_sums(bits, sizes, confidence=settings.confidence, seed=settings.seed)


def signed(e: Estimate | None, *, percent: bool = False) -> str:
    """A difference with its sign and interval, in words."""
    return in_words(e, "+.1%" if percent else "+.3f")


def in_points(e: Estimate | None) -> str:
    """A difference of two shares: percentage points, which are no per cent of either.

    >>> in_points(Estimate(0.5, 0.25, 0.75, 4))
    '+50 points (+25 to +75)'
    """
    if e is None:
        return "unscored"
    if e.low is None or e.high is None:
        return f"{100 * e.value:+.0f} points (n = {e.n}, no interval)"
    return f"{100 * e.value:+.0f} points ({100 * e.low:+.0f} to {100 * e.high:+.0f})"


def in_words(e: Estimate | None, form: str) -> str:
    """An estimate in the format `form`, with its interval where it has one.

    >>> in_words(Estimate(0.5, 0.25, 0.75, 4), ".0%"), in_words(None, ".2f")
    ('50% (25% to 75%)', 'unscored')
    """
    if e is None:
        return "unscored"
    if e.low is None or e.high is None:
        return f"{e.value:{form}} (n = {e.n}, no interval)"
    return f"{e.value:{form}} ({e.low:{form}} to {e.high:{form}})"


def _headline(better: bool, rows: tuple[Row, ...], checks: tuple[Check, ...], people: tuple[PeopleRow, ...]) -> str:
    harmed = [c.name for c in checks if c.harm]
    if harmed:
        return f"Worse than it may be: {', '.join(harmed)}."
    if not better:
        failed = [c.name for c in checks if c.passed is False] or [c.name for c in checks if c.passed is None]
        return f"{start_of_headline(better)}: {', '.join(failed)}."
    by_name = {row.contender: row for row in rows}
    tuned = by_name[TUNED]
    rival = by_name[best_base(rows, lambda r: r.citations)]
    ours, theirs = _percent(tuned.citations), _percent(rival.citations)
    parts = []
    if people:
        before, after = (row.figures["right"] for row in people)
        n = 0 if after is None else after.n
        parts = [f"answers {_percent(after)} of {n} questions of people right (base: {_percent(before)})"]
    parts.append(f"cites the right code in {ours} of the answers (best base: {theirs})")
    if tuned.facts is not None:
        rival = by_name[best_base(rows, lambda r: r.facts)]
        parts.append(f"states the facts right in {_percent(tuned.facts)} (best base: {_percent(rival.facts)})")
    return f"{start_of_headline(better)}: {', '.join(parts)}."


def start_of_headline(better: bool) -> str:
    """What every verdict begins with; it says "not shown", because a wide interval is no proof of being worse."""
    return "Better than the base" if better else "Not shown to be better than the base"


def _percent(e: Estimate | None) -> str:
    return "unscored" if e is None else f"{e.value:.0%}"
