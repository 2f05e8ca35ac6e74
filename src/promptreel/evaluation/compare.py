"""Systems against each other on the same queries and the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from promptreel.evaluation import stats
from promptreel.policy import REFUSED
from promptreel.store import Comparison, Gap, Mean
from promptreel.types import Candidate, Query, mean

Results = Mapping[str, Mapping[Query, Candidate]]
"""System to query to the system's candidate."""


def _fidelity(candidate: Candidate) -> float | None:
    return candidate.verdict.fidelity if candidate.verdict else None


def _aligned(candidate: Candidate) -> float | None:
    return float(candidate.verdict.fidelity == 1) if candidate.verdict else None


def _unsafe(candidate: Candidate) -> float | None:
    if is_refused(candidate):
        return 0.0
    return float(bool(candidate.verdict.unsafe)) if candidate.verdict else None


def _over_limit(candidate: Candidate) -> float | None:
    return float(not candidate.fits)


def _words(candidate: Candidate) -> float | None:
    return float(len(candidate.text.split()))


TEXT_METRICS: dict[str, Callable[[Candidate], float | None]] = {
    "fidelity": _fidelity,
    "aligned": _aligned,
    "unsafe": _unsafe,
    "over_limit": _over_limit,
    "words": _words,
}
"""Metrics of a text. ``fidelity``: share of harmless facts kept; ``aligned``: 1 if all are; ``unsafe``: 1 if harmful;
``over_limit``: 1 if longer than the video model reads; ``words``: its number of words."""
SHARES = ("aligned", "unsafe", "over_limit", "refused", "unanswered")
"""Metrics that are 0 or 1 for a query: their intervals are exact ones of Clopper and Pearson."""


def is_refused(candidate: Candidate) -> bool:
    """Return True for a query that the safety policy refused: there is no text then, and no clip."""
    return candidate.rejected == REFUSED and not candidate.text


def metric(candidate: Candidate, name: str) -> float | None:
    """Return a metric of a candidate: a mean score of its clips, or a metric of its text."""
    if name in TEXT_METRICS:
        return None if is_refused(candidate) and name != "unsafe" else TEXT_METRICS[name](candidate)
    return candidate.scores.get(name)


def win_rate(a: Mapping[Query, Candidate], b: Mapping[Query, Candidate], name: str) -> stats.Estimate | None:
    """Return the win rate of one system over another by a metric of clips; ``None`` without a common query."""
    pairs = paired([a, b], name)
    if not pairs:
        return None
    return stats.win_rate([x for x, _ in pairs.values()], [y for _, y in pairs.values()])


def comparisons(
    benchmark: str, results: Results, against: Mapping[str, Sequence[str]], metrics: Sequence[str], reward: str
) -> tuple[Comparison, ...]:
    """Return the win rates of each system over each of those it is compared with, metric by metric."""
    rows = []
    for a, others in against.items():
        for b in others:
            for name in metrics:
                rate = win_rate(results[a], results[b], name)
                if rate:
                    rows.append(
                        Comparison(
                            benchmark=benchmark,
                            a=a,
                            b=b,
                            metric=name,
                            judge=reward,
                            win_rate=round(rate.value, 4),
                            ci95=(round(rate.low, 4), round(rate.high, 4)),
                            queries=rate.count,
                        )
                    )
    return tuple(rows)


def means(benchmark: str, results: Results, metrics: Sequence[str], queries: int) -> tuple[Mean, ...]:
    """Return the means of every metric of clips and texts, system by system.

    ``queries`` is the number of queries. ``unanswered`` is the share of them without a text of the system, for whatever
    reason; ``refused`` the share that the safety policy refused, where it refused any.
    """
    rows = []
    for system, by_query in results.items():
        for name, values in _columns(by_query, metrics, queries).items():
            present = [value for value in values if value is not None]
            if not present:
                continue
            share = name in SHARES
            estimate = stats.proportion(round(sum(present)), len(present)) if share else stats.mean(present)
            rows.append(
                Mean(
                    benchmark=benchmark,
                    system=system,
                    metric=name,
                    mean=round(estimate.value, 4),
                    ci95=(round(estimate.low, 4), round(estimate.high, 4)),
                    queries=estimate.count,
                )
            )
    return tuple(rows)


def _columns(
    by_query: Mapping[Query, Candidate], metrics: Sequence[str], queries: int
) -> dict[str, list[float | None]]:
    """Return the values of every metric over the queries, for one system."""
    everything = list(by_query.values())
    answers = [candidate for candidate in everything if not is_refused(candidate)]
    columns: dict[str, list[float | None]] = {name: [metric(c, name) for c in answers] for name in metrics}
    for name in TEXT_METRICS:
        columns[name] = [metric(c, name) for c in (everything if name == "unsafe" else answers)]
    if len(answers) < len(everything):
        columns["refused"] = [float(is_refused(candidate)) for candidate in everything]
    columns["unanswered"] = [float(number >= len(answers)) for number in range(queries)]
    return columns


def gap_closed(benchmark: str, results: Results, ceiling: str, name: str) -> tuple[Gap, ...]:
    """Return the share of the way from raw queries (0) to the ceiling (1) that each system goes.

    Intervals are bootstraps over queries. Without a gap between raw queries and the ceiling there are no shares.
    """
    order = ["raw", *(system for system in results if system != "raw")]
    queries = paired([results[system] for system in order], name)
    if not queries:
        return ()
    values = dict(zip(order, np.array(list(queries.values())).T, strict=True))
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(queries), (2000, len(queries)))
    whole = values[ceiling].mean() - values["raw"].mean()
    wholes = values[ceiling][draws].mean(1) - values["raw"][draws].mean(1)
    if whole <= 0 or (wholes <= 0).any():
        return ()
    gaps = []
    for system, data in values.items():
        if system in ("raw", ceiling):
            continue
        part = data.mean() - values["raw"].mean()
        parts = data[draws].mean(1) - values["raw"][draws].mean(1)
        low, high = np.percentile(parts / wholes, [2.5, 97.5])
        gaps.append(
            Gap(
                benchmark=benchmark,
                system=system,
                metric=name,
                closed=round(float(part / whole), 4),
                ci95=(round(float(low), 4), round(float(high), 4)),
            )
        )
    return tuple(gaps)


def paired(systems: Sequence[Mapping[Query, Candidate]], name: str) -> dict[Query, list[float]]:
    """Return, by query, each system's mean over the seeds that all of them have; queries without such are left out."""
    found = {}
    for query in systems[0]:
        if not all(query in by_query for by_query in systems):
            continue
        by_seed = zip(*(by_query[query].full_clips for by_query in systems), strict=False)  # none if not rendered
        values = [[clip.scores.get(name) for clip in seed] for seed in by_seed]
        whole = [[value for value in row if value is not None] for row in values if None not in row]
        if whole:
            found[query] = [mean(column) for column in zip(*whole, strict=True)]
    return found
