"""Numbers computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from sirl.statistics import (
    auroc,
    cohens_d,
    cohens_kappa,
    gap_of_means,
    mann_whitney,
    mcnemar,
    mean_of_rates,
    paired_difference,
    smallest_half_width,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(5, 10, 0.236593, 0.763407), (0, 10, 0.0, 0.277533), (10, 10, 0.722467, 1.0)],
)
def test_wilson(successes: int, n: int, low: float, high: float) -> None:
    estimate = wilson(successes, n)
    assert estimate.value == successes / n
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2)])
def test_wilson_of_no_share(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson(successes, n)


def test_paired_difference() -> None:
    # 8 pairs, sum 2; with the two imagined ones: mean 0.2, variance 6/10 - 0.04.
    half = 1.959964 * math.sqrt(0.56 / 10)
    estimate = paired_difference([1, 1, 1, 0, 0, 0, 0, -1])
    assert estimate == pytest.approx((0.25, 0.2 - half, 0.2 + half), abs=1e-6)


def test_paired_difference_of_equal_pairs_keeps_a_width() -> None:
    estimate = paired_difference([0.0] * 18)
    assert estimate == pytest.approx((0.0, -0.138590, 0.138590), abs=1e-6)
    assert smallest_half_width(18) == pytest.approx(estimate.high)


def test_no_interval_leaves_its_range() -> None:
    for n in range(1, 300):
        for successes in (0, 1, n - 1, n):
            share = wilson(successes, n)
            assert share.low >= 0 and share.high <= 1
    # With the imagined pairs: mean 1/3, variance 3/3 - 1/9, so that the upper end is beyond 1.
    low = 1 / 3 - 1.959964 * math.sqrt(8 / 9 / 3)
    assert paired_difference([1.0]) == pytest.approx((1.0, low, 1.0), abs=1e-6)
    assert paired_difference([-1.0]) == pytest.approx((-1.0, -1.0, -low), abs=1e-6)


def test_paired_difference_needs_a_pair() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([])


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(8, 2, 112 / 1024), (2, 8, 112 / 1024), (0, 0, 1.0), (5, 5, 1.0), (6, 0, 2 / 64)],
)
def test_mcnemar(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_mcnemar_of_many_pairs_does_not_overflow() -> None:
    assert 0 < mcnemar(1000, 1200) < 1e-4


def test_mean_of_rates_resamples_columns_whole() -> None:
    # Resamples of two columns have mean 1 (a quarter), 0.75 (a half) or 0.5 (a quarter).
    assert mean_of_rates([[1, 0], [1, 1]]) == pytest.approx((0.75, 0.5, 1.0))


def test_mean_of_rates_weighs_rows_equally_whatever_is_missing() -> None:
    estimate = mean_of_rates([[1, 1, 1, 1], [0, math.nan, math.nan, math.nan]])
    assert estimate.value == 0.5
    assert 0.5 <= estimate.high <= 1.0


NAN = math.nan


@pytest.mark.parametrize(
    ("rows", "mean", "known"),
    [
        (
            [[1.0, 0.0, 1.0, NAN, 0.5], [NAN, NAN, 0.0, NAN, NAN], [1.0, 1.0, NAN, NAN, 0.0]],
            (2.5 / 4 + 0 + 2 / 3) / 3,
            (2000, 2000),
        ),
        # Without the first two columns, 1 resample of 16, nothing is known.
        ([[1.0, 0.0, NAN, NAN], [0.0, NAN, NAN, NAN]], 0.25, (1800, 1950)),
    ],
)
def test_mean_of_rates_is_the_bootstrap_written_out(
    rows: list[list[float]], mean: float, known: tuple[int, int]
) -> None:
    columns = len(rows[0])
    means = []
    for weights in np.random.default_rng(0).multinomial(columns, [1 / columns] * columns, 2000):
        rates = []
        for row in rows:
            drawn = [x for x, w in zip(row, weights, strict=True) for _ in range(w) if x == x]
            rates += [sum(drawn) / len(drawn)] if drawn else []
        means += [sum(rates) / len(rates)] if rates else []
    low, high = np.percentile(means, [2.5, 97.5])
    assert known[0] <= len(means) <= known[1]
    with np.errstate(all="raise"):
        assert mean_of_rates(rows) == pytest.approx((mean, low, high))


def test_of_one_cell_each_resample_is_that_cell() -> None:
    assert mean_of_rates([[1.0]]) == (1.0, 1.0, 1.0)
    assert gap_of_means({"a": (3.0, 1)}, {"a": (1.0, 1)}) == (2.0, 2.0, 2.0)


def kappa_of(table: np.ndarray) -> float:
    observed, expected = np.trace(table), table.sum(axis=1) @ table.sum(axis=0)
    return float((observed - expected) / (1 - expected))


@pytest.mark.parametrize(("both", "first", "second", "none"), [(20, 5, 10, 15), (3, 9, 4, 6)])
def test_the_interval_of_kappa_is_that_of_the_delta_method(
    both: int, first: int, second: int, none: int
) -> None:
    counts = {(True, True): both, (True, False): first, (False, True): second}
    pairs = [pair for pair, n in {**counts, (False, False): none}.items() for _ in range(n)]
    n, step = len(pairs), 1e-6
    shares = np.array([[none, second], [first, both]]) / n
    slopes = np.zeros((2, 2))
    for cell in np.ndindex(2, 2):
        more = np.zeros((2, 2))
        more[cell] = step
        slopes[cell] = (kappa_of(shares + more) - kappa_of(shares - more)) / (2 * step)
    # Shares add up to 1: what a slope has in common with the others moves nothing.
    spread = (shares * slopes**2).sum() - (shares * slopes).sum() ** 2
    half = 1.959963985 * math.sqrt(spread / n)
    kappa = kappa_of(shares)
    assert cohens_kappa(pairs) == pytest.approx((kappa, kappa - half, kappa + half), abs=1e-6)


def test_the_interval_of_kappa_keeps_its_range() -> None:
    agree = cohens_kappa([(True, True), (False, False), (True, False)])
    differ = cohens_kappa([(True, False), (False, True), (True, True)])
    assert agree is not None
    assert agree.high == 1.0
    assert differ is not None
    assert differ.low == -1.0


def test_mean_of_rates_is_deterministic() -> None:
    outcomes = np.random.default_rng(1).random((5, 40)) < 0.3
    assert mean_of_rates(outcomes) == mean_of_rates(outcomes)
    assert mean_of_rates(outcomes).low < outcomes.mean() < mean_of_rates(outcomes).high


def test_resamples_are_2000_by_seed_0_unless_said() -> None:
    values = np.random.default_rng(1).random((3, 20))  # no two resamples have one mean
    assert mean_of_rates(values) == mean_of_rates(values, resamples=2000, seed=0)
    high, low = ({f"{n}": (v, 1) for n, v in enumerate(row)} for row in values[:2].tolist())
    assert gap_of_means(high, low) == gap_of_means(high, low, resamples=2000, seed=0)


def test_bootstrap_intervals_are_at_95_percent() -> None:
    # The mean of n resampled zeros and ones is binomial: 2.5 % of it lies below the 102nd of 400,
    # 5 % below the 105th.
    values = [1.0] * 120 + [0.0] * 280
    low, high = (binom(400, 0.3).ppf(share) / 400 for share in (0.025, 0.975))
    ones = {f"{i}": (value, 1) for i, value in enumerate(values)}
    zeros = dict.fromkeys(ones, (0.0, 1))
    for estimate in (mean_of_rates([values]), gap_of_means(ones, zeros)):
        assert estimate == pytest.approx((0.3, low, high), abs=1.6 / 400)


@pytest.mark.parametrize("outcomes", [[], [[]], [[math.nan, math.nan], [1.0, 0.0]]])
def test_mean_of_rates_needs_outcomes(outcomes: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="needs an outcome"):
        mean_of_rates(outcomes)


def test_auroc() -> None:
    assert auroc([3, 2], [1, 2]) == 3.5 / 4
    assert auroc([5], [1, 2]) == 1.0
    assert auroc([1, 1], [1]) == 0.5
    with pytest.raises(ValueError, match="both sides"):
        auroc([], [1])


def test_cohens_d() -> None:
    assert cohens_d([2, 4], [0, 2]) == pytest.approx(2 / math.sqrt(2))
    assert cohens_d([0, 2], [2, 4]) == pytest.approx(-2 / math.sqrt(2))
    assert cohens_d([0.0, 0.2], [0.2, 0.4]) == pytest.approx(-2 / math.sqrt(2))
    assert math.isnan(cohens_d([1], [1, 2]))
    assert math.isnan(cohens_d([1, 1], [2, 2]))


def test_gap_of_means_by_hand() -> None:
    high, low = {"a": (6.0, 2), "b": (1.0, 1)}, {"b": (1.0, 1), "c": (0.0, 1)}
    gap = gap_of_means(high, low)
    assert gap.value == pytest.approx(7 / 3 - 1 / 2)
    assert gap.low < gap.value < gap.high
    assert gap_of_means(high, low) == gap  # the resampling is seeded
    with pytest.raises(ValueError, match="both groups"):
        gap_of_means(high, {})


def test_gap_of_means_is_the_bootstrap_written_out() -> None:
    high = {"a": (6.0, 2), "b": (1.0, 1), "d": (2.0, 2)}
    low = {"c": (0.0, 1), "b": (1.0, 1), "e": (1.0, 3)}
    means = []
    for weights in np.random.default_rng(0).multinomial(5, [0.2] * 5, size=2000):
        sides = []
        for side in (high, low):
            drawn = [side.get(c, (0.0, 0)) for c in "abcde"]
            total = sum(s * w for (s, _), w in zip(drawn, weights, strict=True))
            count = sum(n * w for (_, n), w in zip(drawn, weights, strict=True))
            sides += [total / count] if count else []
        means += [sides[0] - sides[1]] if len(sides) == 2 else []
    low_end, high_end = np.percentile(means, [2.5, 97.5])
    assert len(means) < 2000  # some resamples lost a side
    with np.errstate(all="raise"):
        assert gap_of_means(high, low) == pytest.approx((9 / 5 - 2 / 5, low_end, high_end))


def test_gap_of_means_resamples_clusters_whole() -> None:
    # One prompt holds all the spread: its eight responses are one observation, not eight.
    whole = {"a": (8.0, 8), **{f"{i}": (0.0, 1) for i in range(8)}}
    split = {f"a{i}": (1.0, 1) for i in range(8)} | {f"{i}": (0.0, 1) for i in range(8)}
    low = {f"{i}": (0.0, 1) for i in range(8)}
    wide, narrow = gap_of_means(whole, low), gap_of_means(split, low)
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_mann_whitney_by_hand() -> None:
    # U = 0 of 4 x 4: the exact two-sided p is 2 / C(8, 4).
    assert mann_whitney([1, 2, 3, 4], [5, 6, 7, 8]) == pytest.approx(2 / 70)
    assert mann_whitney([1, 1, 1], [1, 1, 1]) == 1.0
    with pytest.raises(ValueError, match="both sides"):
        mann_whitney([], [1.0])
