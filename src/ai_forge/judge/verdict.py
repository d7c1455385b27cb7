"""From measurements to a verdict: did it help, by how much, and what was lost.

The gate reads differences to the best base contender, question by question, never the training loss. A check that
could not be computed is unscored (None) and says so; the verdict needs answer loss and citations to be scored.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ai_forge.config import JudgeSettings
from ai_forge.judge.evaluator import CONTENDERS, TUNED, Answer, Evaluation
from ai_forge.judge.statistics import (
    Estimate,
    bootstrap,
    mean,
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


@dataclass(frozen=True)
class Verdict:
    """The conclusion: `better` only if no check fails and the two that carry it are scored."""

    better: bool
    headline: str
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    code_base: Estimate | None
    code_tuned: Estimate | None
    forgetting: Estimate | None
    retrieval_recall: Estimate | None


def _row(name: str, answers: list[Answer], settings: JudgeSettings) -> Row:
    files = [a.subject_path for a in answers]
    options: dict[str, Any] = {"confidence": settings.confidence, "seed": settings.seed}
    return Row(
        contender=name,
        answer_loss=ratio_of_sums([a.loss for a in answers], [a.n_tokens for a in answers], groups=files, **options),
        citations=proportion([a.citation_right for a in answers], settings.confidence),
        facts=proportion([a.facts_right for a in answers if a.facts_right is not None], settings.confidence),
        similarity=mean([a.similarity for a in answers], groups=files, **options),
    )


def _gain(
    evaluation: Evaluation, rival: str, value: Callable[[Answer], float | None], settings: JudgeSettings
) -> Estimate | None:
    """Paired difference tuned + retrieval − rival on the questions where `value` is defined."""
    ours, theirs, files = [], [], []
    for answer, rivals in zip(evaluation.of(TUNED), evaluation.of(rival), strict=True):
        our, their = value(answer), value(rivals)
        if our is None or their is None:
            continue
        ours.append(our)
        theirs.append(their)
        files.append(answer.subject_path)
    return paired_difference(ours, theirs, groups=files, confidence=settings.confidence, seed=settings.seed)


def best_base(rows: tuple[Row, ...], figure: Callable[[Row], Estimate | None], *, lowest: bool = False) -> str:
    """The base contender with the best value of a figure: the one to beat."""
    scored = [(e.value, r.contender) for r in rows if r.contender in BASES and (e := figure(r)) is not None]
    if not scored:
        return BASES[-1]
    best = min(scored) if lowest else max(scored)
    return best[1]


def judge(evaluation: Evaluation, settings: JudgeSettings) -> Verdict:
    """The verdict on an evaluation."""
    rows = tuple(_row(c.name, evaluation.of(c.name), settings) for c in CONTENDERS)
    forgetting = _forgetting(evaluation, settings)
    # Loss and citations must be scored. Facts are in few answers, and held-out code may be missing: those may only not fail.
    required = _loss_check(evaluation, rows, settings), _citation_check(evaluation, rows, settings)
    checks = (*required, _facts_check(evaluation, rows, settings), _forgetting_check(forgetting, settings))
    better = all(c.passed for c in required) and all(c.passed is not False for c in checks)
    return Verdict(
        better=better,
        headline=_headline(better, rows, checks),
        rows=rows,
        checks=checks,
        code_base=_bits_per_byte(evaluation, settings, tuned=False),
        code_tuned=_bits_per_byte(evaluation, settings, tuned=True),
        forgetting=forgetting,
        retrieval_recall=proportion([a.oracle_shown for a in evaluation.of(TUNED)], settings.confidence),
    )


def _loss_check(evaluation: Evaluation, rows: tuple[Row, ...], settings: JudgeSettings) -> Check:
    rival = best_base(rows, lambda r: r.answer_loss, lowest=True)
    gain = _gain(evaluation, rival, lambda a: a.loss / a.n_tokens, settings)
    text = f"{signed(gain)} nats per token against {rival}; must be below 0"
    return Check("answer loss", surely_below_zero(gain), text)


def _citation_check(evaluation: Evaluation, rows: tuple[Row, ...], settings: JudgeSettings) -> Check:
    rival = best_base(rows, lambda r: r.citations)
    gain = _gain(evaluation, rival, lambda a: a.citation_right, settings)
    text = f"{signed(gain, percent=True)} against {rival}; must be above 0"
    return Check("citations", surely_above_zero(gain), text)


def _facts_check(evaluation: Evaluation, rows: tuple[Row, ...], settings: JudgeSettings) -> Check:
    rival = best_base(rows, lambda r: r.facts)
    gain = _gain(evaluation, rival, lambda a: a.facts_right, settings)
    is_worse = surely_below_zero(gain)
    text = f"{signed(gain, percent=True)} against {rival}; must not be surely below 0"
    return Check("facts", None if is_worse is None else not is_worse, text)


def _forgetting(evaluation: Evaluation, settings: JudgeSettings) -> Estimate | None:
    """Perplexity per byte of held-out code, tuned over base, minus 1: 0.05 is five per cent worse."""
    rows = [(c.tuned_nats - c.base_nats, float(c.n_bytes)) for c in evaluation.code]
    return bootstrap(
        rows,
        lambda d: math.expm1(float(d[:, 0].sum() / d[:, 1].sum())),
        confidence=settings.confidence,
        seed=settings.seed,
    )


def _forgetting_check(change: Estimate | None, settings: JudgeSettings) -> Check:
    passed = None if change is None else change.value <= settings.forgetting_budget
    text = f"{signed(change, percent=True)} perplexity per byte of held-out code; at most {settings.forgetting_budget:+.0%}"
    return Check("forgetting", passed, text)


def _bits_per_byte(evaluation: Evaluation, settings: JudgeSettings, *, tuned: bool) -> Estimate | None:
    nats = [c.tuned_nats for c in evaluation.code] if tuned else [c.base_nats for c in evaluation.code]
    bits = [value / math.log(2) for value in nats]
    sizes = [float(c.n_bytes) for c in evaluation.code]
    return ratio_of_sums(bits, sizes, confidence=settings.confidence, seed=settings.seed)


def signed(e: Estimate | None, *, percent: bool = False) -> str:
    """A difference with its sign and interval, in words."""
    if e is None:
        return "unscored"
    form = "{:+.1%}" if percent else "{:+.3f}"
    text = form.format(e.value)
    if e.low is None or e.high is None:
        return text
    return f"{text} ({form.format(e.low)} to {form.format(e.high)})"


def _headline(better: bool, rows: tuple[Row, ...], checks: tuple[Check, ...]) -> str:
    tuned = next(r for r in rows if r.contender == TUNED)
    if not better:
        failed = [c.name for c in checks if c.passed is False] or [c.name for c in checks if c.passed is None]
        return f"Not shown to be better than the base: {', '.join(failed)}."
    rival = next(r for r in rows if r.contender == best_base(rows, lambda r: r.citations))
    parts = [
        f"cites the right code in {_percent(tuned.citations)} of the answers (best base: {_percent(rival.citations)})"
    ]
    if tuned.facts is not None:
        facts = next(r for r in rows if r.contender == best_base(rows, lambda r: r.facts)).facts
        parts.append(f"states the facts right in {_percent(tuned.facts)} (best base: {_percent(facts)})")
    return f"Better than the base: {', '.join(parts)}."


def _percent(e: Estimate | None) -> str:
    return "unscored" if e is None else f"{e.value:.0%}"
