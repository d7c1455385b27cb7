"""Intervals against published values and by simulation."""

import math

import numpy as np
import pytest

from ai_forge.judge.statistics import bootstrap, mean, paired_difference, proportion, ratio_of_sums


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_equals_newcombes_table(successes: int, n: int, low: float, high: float) -> None:
    estimate = proportion([True] * successes + [False] * (n - successes))
    assert estimate is not None
    assert estimate.n == n
    assert estimate.value == successes / n
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_ends_solve_its_equation() -> None:
    """(p̂ − p)² = z² p(1 − p)/n at both ends (Wilson 1927), at another confidence."""
    estimate = proportion([True] * 7 + [False] * 13, confidence=0.9)
    assert estimate is not None
    for end in (estimate.low, estimate.high):
        assert end is not None
        assert (0.35 - end) ** 2 == pytest.approx(1.6448536**2 * end * (1 - end) / 20, rel=1e-6)


def test_nothing_counted_is_no_estimate() -> None:
    assert proportion([]) is None
    assert mean([]) is None
    assert paired_difference([], []) is None
    assert ratio_of_sums([], []) is None


def test_one_value_or_one_group_has_no_interval() -> None:
    for estimate in (mean([3.0]), mean([1.0, 3.0, 5.0], groups=["a", "a", "a"])):
        assert estimate is not None
        assert estimate.value == 3.0
        assert (estimate.low, estimate.high) == (None, None)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30).tolist()
    assert mean(values, seed=1) == mean(values, seed=1)
    assert mean(values, seed=1) != mean(values, seed=2)


def test_the_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    """100 samples of 40 normal values: the 95 % interval holds the true mean in 95 % ± 3 standard errors."""
    generator = np.random.default_rng(3)
    n_samples, covered = 100, 0
    for seed in range(n_samples):
        estimate = mean(generator.normal(5.0, 2.0, size=40).tolist(), seed=seed)
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 5.0 <= estimate.high
    assert abs(covered / n_samples - 0.935) < 3 * math.sqrt(0.05 * 0.95 / n_samples)


def test_the_bootstrap_of_a_mean_is_as_wide_as_the_normal_theory() -> None:
    values = np.random.default_rng(1).normal(size=400)
    estimate = mean(values.tolist())
    assert estimate is not None
    half = 1.96 * values.std() / math.sqrt(400)
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_groups_are_drawn_as_wholes() -> None:
    """Ten files of eight equal answers are ten observations, not eighty."""
    per_file = np.random.default_rng(2).normal(size=10)
    values = np.repeat(per_file, 8).tolist()
    files = [f for f in range(10) for _ in range(8)]
    grouped, single, whole = mean(values, groups=files), mean(values), mean(per_file.tolist())
    assert grouped is not None
    assert single is not None
    assert whole is not None

    def width(estimate: object) -> float:
        return estimate.high - estimate.low  # type: ignore[attr-defined, no-any-return]

    assert width(grouped) == pytest.approx(width(whole), rel=0.1)
    assert width(grouped) > 2 * width(single)
    seen: list[np.ndarray] = []
    bootstrap([[v] for v in values], lambda d: float(len(seen.append(d[:, 0]) or d)), groups=files)
    assert all((np.unique(draw, return_counts=True)[1] % 8 == 0).all() and len(draw) == 80 for draw in seen)


def test_pairs_stay_together() -> None:
    """A constant gain on wildly different questions has an interval of no width; the unpaired one would be wide."""
    theirs = np.random.default_rng(0).normal(0, 100, size=30)
    gain = paired_difference((theirs + 0.5).tolist(), theirs.tolist())
    assert gain is not None
    assert (gain.value, gain.low, gain.high) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    with pytest.raises(ValueError, match="zip"):
        paired_difference([1.0], [1.0, 2.0])


def test_a_ratio_of_sums_weights_by_the_denominators() -> None:
    ratio = ratio_of_sums([10.0, 1.0], [1.0, 10.0])
    assert ratio is not None
    assert ratio.value == 1.0  # the mean of ratios would be 5.05
    assert ratio.low == pytest.approx(0.1)
    assert ratio.high == pytest.approx(10.0)
