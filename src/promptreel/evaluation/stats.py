"""Means and win rates with 95 % intervals, over queries.

The queries are the sample: an evaluation speaks about queries like these. Intervals therefore resample queries, with
all their seeds, and never single clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float
    count: int
    """Queries it rests on."""


def mean(values: Sequence[float], seed: int = 0) -> Estimate:
    """Return the mean with a percentile bootstrap interval, of no width if all values agree."""
    data = np.asarray(values, dtype=float)
    if len(data) == 0:
        raise ValueError("no values: nothing can be estimated")
    low, high = _bootstrap(data, seed)
    return Estimate(float(data.mean()), low, high, len(data))


def win_rate(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Estimate:
    """Return the share of queries on which ``a`` beats ``b``; a tie counts one half.

    The interval is a bootstrap over queries. If every outcome is the same, there is nothing to resample, and the
    interval is the exact one of Clopper and Pearson, in which a tie counts one half too.
    """
    won = outcomes(a, b)
    if (won == won[0]).all():
        return proportion(float(won.sum()), len(won))
    low, high = _bootstrap(won, seed)
    return Estimate(float(won.mean()), low, high, len(won))


def outcomes(a: Sequence[float], b: Sequence[float]) -> np.ndarray:
    """Return 1 for each query on which ``a`` is higher than ``b``, 0 where it is lower, and one half for a tie."""
    if len(a) != len(b):
        raise ValueError(f"paired samples must have one length, got {len(a)} and {len(b)}")
    if len(a) == 0:
        raise ValueError("no queries: nothing can be compared")
    won: np.ndarray = (np.sign(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)) + 1) / 2
    return won


def across(groups: Sequence[Sequence[float]], seed: int = 0) -> Estimate:
    """Return the mean of the groups' means. Groups are runs with several training seeds, and values their queries.

    The interval is a bootstrap over groups and, within each, over values.
    """
    if not groups or not all(len(group) for group in groups):
        raise ValueError("a group without values: nothing can be estimated")
    data = [np.asarray(group, dtype=float) for group in groups]
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(data), (RESAMPLES, len(data)))
    means = [np.mean([rng.choice(data[g], len(data[g])).mean() for g in row]) for row in drawn]
    low, high = np.percentile(means, [(1 - LEVEL) / 2 * 100, (1 + LEVEL) / 2 * 100])
    value = float(np.mean([group.mean() for group in data]))
    return Estimate(value, float(low), float(high), sum(map(len, data)))


def proportion(successes: float, trials: int) -> Estimate:
    """Return a share with the exact interval of Clopper and Pearson.

    Its form by the beta distribution takes half successes as well.
    """
    failures, tail = trials - successes, (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, successes, failures + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, failures)) if failures else 1.0
    return Estimate(successes / trials, low, high, trials)


def _bootstrap(data: np.ndarray, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for at in range(0, RESAMPLES, 1000):
        means[at : at + 1000] = data[rng.integers(0, len(data), (1000, len(data)))].mean(1)
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)
