"""Estimates with confidence intervals: no number without how far it can be trusted.

Proportions get Wilson's interval (Wilson 1927), which stays inside 0–1 and is honest at 0/n and n/n. Means and paired
differences get the percentile bootstrap over questions. An interval that is not defined (no or one value) is None,
never a width of 0. Questions about the same file are not independent, which these intervals do not account for: they
are resampled by file where `groups` are given.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; `low` and `high` are None where no interval is defined."""

    value: float
    low: float | None
    high: float | None
    n: int


FIRST_LOOK = 12  # fewer questions that all end alike give a bootstrap no width: certain, where nothing is


def looks(n_questions: int) -> list[int]:
    """After how many questions it is looked whether they are enough: a quarter of them, half, all; `FIRST_LOOK` at the least.

    >>> looks(48), looks(20), looks(5)
    ([12, 24, 48], [12, 20], [5])
    """
    least = min(FIRST_LOOK, n_questions)
    return sorted({max(least, math.ceil(n_questions * share)) for share in (0.25, 0.5, 1.0)})


def level_of(confidence: float, n_looks: int) -> float:
    """The level of each interval that is looked at, so that with all `n_looks` chances the error stays 1 − `confidence`.

    The error is spent in equal parts (Bonferroni over the looks): it holds whatever the looks have in common, and costs a
    fifth of the width at three looks.

    >>> round(level_of(0.95, 1), 4), round(level_of(0.95, 3), 4)
    (0.95, 0.9833)
    """
    return 1 - (1 - confidence) / n_looks


def surely_below_zero(e: Estimate | None) -> bool | None:
    """Whether the whole interval lies below 0; None where there is none."""
    if e is None or e.high is None:
        return None
    return e.high < 0


def not_surely_below_zero(e: Estimate | None) -> bool | None:
    """Whether some of the interval lies at 0 or above; None where there is none."""
    is_below = surely_below_zero(e)
    if is_below is None:
        return None
    return not is_below


def surely_above_zero(e: Estimate | None) -> bool | None:
    """Whether the whole interval lies above 0; None where there is none."""
    if e is None or e.low is None:
        return None
    return e.low > 0


def proportion(successes: Sequence[bool], confidence: float = 0.95) -> Estimate | None:
    """Share of `successes` with Wilson's score interval; None where there is nothing to count.

    >>> e = proportion([True] * 8 + [False] * 2)
    >>> round(e.value, 3), round(e.low, 3), round(e.high, 3)
    (0.8, 0.49, 0.943)
    """
    n = len(successes)
    if n == 0:
        return None
    p, z = sum(successes) / n, NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Estimate(p, max(0.0, centre - half), min(1.0, centre + half), n)


def bootstrap(
    rows: Sequence[Sequence[float]],
    statistic: Callable[[NDArray[np.float64]], float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate | None:
    """Percentile bootstrap of `statistic` over the rows [n, columns]; whole groups are resampled where given.

    Returns None without rows; an estimate without interval where there are fewer than two groups.
    """
    data = np.asarray(rows, dtype=np.float64)
    if len(data) == 0:
        return None
    members: dict[Hashable, list[int]] = {}
    labels: Sequence[Hashable] = range(len(data))  # each row a group of its own
    if groups is not None:
        labels = groups
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    clusters = [np.asarray(indices) for indices in members.values()]
    value = float(statistic(data))
    if len(clusters) < 2:  # every resample would be the same: an interval of width 0, which says "certain"
        return Estimate(value, None, None, len(data))
    generator = np.random.default_rng(seed)  # seeded: the same answers give the same verdict
    draws = []
    for _ in range(n_resamples):
        chosen = generator.integers(len(clusters), size=len(clusters))
        resample = np.concatenate([clusters[index] for index in chosen])
        draws.append(float(statistic(data[resample])))
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), len(data))


def mean(
    values: Sequence[float], *, groups: Sequence[Hashable] | None = None, confidence: float = 0.95, seed: int = 0
) -> Estimate | None:
    """Mean with its bootstrap interval."""
    return bootstrap(
        [[v] for v in values], lambda d: float(d[:, 0].mean()), groups=groups, confidence=confidence, seed=seed
    )


def paired_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Estimate | None:
    """Mean of ours − theirs on the same questions with its bootstrap interval."""
    rows = list(zip(ours, theirs, strict=True))
    return bootstrap(
        rows,
        lambda d: float((d[:, 0] - d[:, 1]).mean()),
        groups=groups,
        confidence=confidence,
        seed=seed,
        n_resamples=n_resamples,
    )


def ratio_of_sums(
    numerators: Sequence[float],
    denominators: Sequence[float],
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate | None:
    """Σ numerators / Σ denominators (a token-weighted mean) with its bootstrap interval."""
    rows = list(zip(numerators, denominators, strict=True))
    return bootstrap(
        rows, lambda d: float(d[:, 0].sum() / d[:, 1].sum()), groups=groups, confidence=confidence, seed=seed
    )
