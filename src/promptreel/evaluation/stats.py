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
    if len(a) != len(b):
        raise ValueError(f"paired samples must have one length, got {len(a)} and {len(b)}")
    outcomes = (np.sign(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)) + 1) / 2
    if len(outcomes) == 0:
        raise ValueError("no queries: nothing can be compared")
    value = float(outcomes.mean())
    if (outcomes == outcomes[0]).all():
        return proportion(float(outcomes.sum()), len(outcomes))
    low, high = _bootstrap(outcomes, seed)
    return Estimate(value, low, high, len(outcomes))


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
