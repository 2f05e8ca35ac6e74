"""Means and win rates have intervals over queries that cover the truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from promptreel.evaluation import stats

outcomes = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60)


@given(outcomes)
def test_win_rates_of_both_sides_sum_to_one_and_intervals_hold_them(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    rate, mirrored = stats.win_rate(a, b), stats.win_rate(b, a)
    assert rate.value + mirrored.value == pytest.approx(1)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.count == len(pairs)


def test_a_tie_counts_half_and_certainty_still_has_an_interval() -> None:
    assert stats.win_rate([1, 1], [1, 1]).value == 0.5
    sure = stats.win_rate([1.0] * 20, [0.0] * 20)
    assert sure.value == 1.0
    assert 0.8 < sure.low < 0.9  # Clopper and Pearson: 0.832
    assert stats.proportion(0, 1000).high == pytest.approx(0.00368, abs=1e-4)
    for successes in range(21):
        exact = binomtest(successes, 20).proportion_ci(method="exact")
        share = stats.proportion(successes, 20)
        assert (share.low, share.high) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("count", [1, 2, 7, 400])
def test_agreement_alone_is_no_certainty(count: int) -> None:
    """Whether all queries are won, lost or tied; more of them say more."""
    for other in (0.0, 0.5, 1.0):
        rate, more = (stats.win_rate([0.5] * n, [other] * n) for n in (count, 4 * count))
        assert rate.low <= rate.value <= rate.high
        assert 0 < more.high - more.low < rate.high - rate.low


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        outcomes = (rng.random(80) < 0.7).astype(float)
        estimate = stats.win_rate(outcomes, np.full(80, 0.5), seed=trial)
        covered += estimate.low <= 0.7 <= estimate.high
    assert 0.89 <= covered / 200 <= 0.99


def test_nothing_cannot_be_estimated() -> None:
    with pytest.raises(ValueError, match="no values"):
        stats.mean([])
    with pytest.raises(ValueError, match="no queries"):
        stats.win_rate([], [])
    with pytest.raises(ValueError, match="one length, got 1 and 2"):
        stats.win_rate([1.0], [1.0, 2.0])
