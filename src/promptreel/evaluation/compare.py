"""Systems against each other on the same queries and the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptreel.evaluation import stats
from promptreel.scoring import mean
from promptreel.types import Query, Scores


@dataclass(frozen=True)
class Row:
    """What one system did with one query. ``None`` is missing: it could not be had or judged."""

    text: str
    metrics: Mapping[str, float | None]
    """Of the held-out judge, averaged over the seeds whose clips could be had."""
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
    by_seed: tuple[Scores, ...] = ()
    """What ``metrics`` are means of, one for each seed in the order that all systems share; empty where its clip could
    not be had. Systems are compared on the seeds that all of them have."""
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
                pairs = _paired([results[a], results[b]], metric)
                if pairs:
                    rate = stats.win_rate([x for x, _ in pairs.values()], [y for _, y in pairs.values()])
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
    order = ["raw", *(system for system in results if system != "raw")]
    queries = _paired([results[system] for system in order], metric)
    if not queries:
        return []
    values = dict(zip(order, np.array(list(queries.values())).T, strict=True))
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


def _paired(systems: Sequence[Mapping[Query, Row]], metric: str) -> dict[Query, list[float]]:
    """By query, the value of each system on the seeds that all of them have, where there are any."""
    found = {}
    for query in systems[0]:
        if all(query in by_query for by_query in systems):
            by_seed = zip(*(by_query[query].by_seed for by_query in systems), strict=False)  # none where not rendered
            values = [[scores.get(metric) for scores in seed] for seed in by_seed]
            if whole := [row for row in values if None not in row]:
                found[query] = [mean(column) for column in zip(*whole, strict=True)]
    return found
