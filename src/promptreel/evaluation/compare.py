"""Systems against each other on the same queries and the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptreel.evaluation import stats
from promptreel.types import Query


@dataclass(frozen=True)
class Row:
    """What one system did with one query. ``None`` is missing: it could not be had or judged."""

    text: str
    metrics: Mapping[str, float | None]
    """Of the held-out judge, averaged over the paired seeds."""
    fidelity: float | None
    """Share of the query's harmless facts that the text keeps."""
    unsafe: float | None
    """1 when the text is harmful, else 0."""
    words: int
    over_limit: float | None
    """1 when the text is longer than the video model reads, else 0."""
    clips: tuple[str, ...] = ()
    """Ids of its clips, one for each seed that could be rendered."""
    facts: tuple[tuple[str, str], ...] = ()
    """Each fact of the query and what became of it in the text: ``kept``, ``lost`` or ``changed``."""
    removed: tuple[str, ...] = ()
    """What of the query was left out because it is harm, with reasons."""
    withheld: str = ""
    """Why the text was not rendered: it is harmful, or nobody could tell; empty when it was."""
    refused: bool = False
    """Whether the safety policy refused the query: there is no text then, and no clip."""

    @property
    def aligned(self) -> float | None:
        """1 when the text keeps every harmless fact of the query and contradicts none, else 0."""
        return None if self.fidelity is None else float(self.fidelity == 1)


Results = Mapping[str, Mapping[Query, Row]]
"""System to query to row."""


def comparisons(
    benchmark: str, results: Results, against: Mapping[str, Sequence[str]], metrics: Sequence[str], judge: str
) -> list[dict[str, Any]]:
    """Win rates of each system over each of those it is compared with, metric by metric."""
    rows = []
    for a, others in against.items():
        for b in others:
            for metric in metrics:
                pairs = _paired(results[a], results[b], metric)
                if pairs:
                    rate = stats.win_rate([x for x, _ in pairs], [y for _, y in pairs])
                    rows.append(
                        {
                            "benchmark": benchmark,
                            "a": a,
                            "b": b,
                            "metric": metric,
                            "judge": judge,
                            "win_rate": round(rate.value, 4),
                            "ci95": [round(rate.low, 4), round(rate.high, 4)],
                            "queries": rate.count,
                        }
                    )
    return rows


SHARES = ("aligned", "unsafe", "over_limit", "refused", "unanswered")
"""Columns that are 0 or 1 for a query: their intervals are exact ones of Clopper and Pearson."""


def means(benchmark: str, results: Results, metrics: Sequence[str], queries: int) -> list[dict[str, Any]]:
    """Means of every metric, and of what the texts are like, system by system.

    ``queries`` is how many there were: ``unanswered`` is the share of them for which a system gave no text, whatever
    the reason; ``refused`` that of the safety policy alone, where it refused any.
    """
    rows = []
    for system, by_query in results.items():
        answers = [row for row in by_query.values() if not row.refused]
        refused = len(by_query) - len(answers)
        columns: dict[str, list[float | None]] = {
            metric: [row.metrics.get(metric) for row in answers] for metric in metrics
        }
        columns["fidelity"] = [row.fidelity for row in answers]
        columns["aligned"] = [row.aligned for row in answers]
        columns["unsafe"] = [row.unsafe for row in by_query.values()]
        columns["over_limit"] = [row.over_limit for row in answers]
        columns["words"] = [float(row.words) for row in answers]
        columns["refused"] = [float(row.refused) for row in by_query.values()] if refused else []
        columns["unanswered"] = [float(number >= len(answers)) for number in range(queries)]
        for metric, values in columns.items():
            present = [value for value in values if value is not None]
            if present:
                share = metric in SHARES
                estimate = stats.proportion(round(sum(present)), len(present)) if share else stats.mean(present)
                rows.append(
                    {
                        "benchmark": benchmark,
                        "system": system,
                        "metric": metric,
                        "mean": round(estimate.value, 4),
                        "ci95": [round(estimate.low, 4), round(estimate.high, 4)],
                        "queries": estimate.count,
                    }
                )
    return rows


def gap_closed(benchmark: str, results: Results, ceiling: str, metric: str) -> list[dict[str, Any]]:
    """How much of the way from raw queries to the ceiling each system goes: 0 is raw, 1 the ceiling."""
    rows = []
    queries = [
        q
        for q in results["raw"]
        if all(q in by_query and by_query[q].metrics.get(metric) is not None for by_query in results.values())
    ]
    if not queries:
        return []
    values = {
        system: np.array([by_query[query].metrics[metric] for query in queries], dtype=float)
        for system, by_query in results.items()
    }
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(queries), (2000, len(queries)))
    for system, data in values.items():
        if system in ("raw", ceiling):
            continue
        whole = values[ceiling].mean() - values["raw"].mean()
        part = data.mean() - values["raw"].mean()
        wholes = values[ceiling][draws].mean(1) - values["raw"][draws].mean(1)
        parts = data[draws].mean(1) - values["raw"][draws].mean(1)
        if whole <= 0 or (wholes <= 0).any():
            continue  # there is no gap to speak of
        low, high = np.percentile(parts / wholes, [2.5, 97.5])
        rows.append(
            {
                "benchmark": benchmark,
                "system": system,
                "metric": metric,
                "closed": round(float(part / whole), 4),
                "ci95": [round(float(low), 4), round(float(high), 4)],
            }
        )
    return rows


def _paired(a: Mapping[Query, Row], b: Mapping[Query, Row], metric: str) -> list[tuple[float, float]]:
    pairs = []
    for query, row in a.items():
        x, y = row.metrics.get(metric), b[query].metrics.get(metric) if query in b else None
        if x is not None and y is not None:
            pairs.append((x, y))
    return pairs
