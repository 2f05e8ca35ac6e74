"""An evaluation: every system writes for every query, everything is rendered with the same noise and judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from promptreel.desk import Check, Desk, Writer
from promptreel.evaluation import compare
from promptreel.evaluation.compare import Row
from promptreel.scoring import Scorer
from promptreel.types import Component, Query, Verdict

Read = Callable[[Sequence[tuple[Query, str]], str], Sequence[Verdict | None]]
"""Verdicts on rewrites of queries, for a step of the run."""


def study(
    queries: Sequence[Query],
    systems: Mapping[str, Writer | None],
    seeds: Sequence[int],
    scorer: Scorer,
    desk: Desk,
    judge: Component,
    check: Check,
    read: Read,
    withheld: Callable[[Verdict | None], str | None],
    too_long: Callable[[str], bool],
    drawn: str,
    origin: str,
    refused: AbstractSet[Query] = frozenset(),
) -> dict[str, dict[Query, Row]]:
    """What each system did with each query. The system whose writer is ``None`` passes queries on as typed.

    A query that a system could not answer has no row for it, and is left out of its comparisons. One that is
    ``refused`` is neither rewritten nor rendered. ``judge`` is a reward for clips, ``check`` says what writers
    with several attempts must draw again, ``read`` judges texts for the columns of facts and harm, and
    ``withheld`` says by a verdict why a text must not be rendered: it has a row without metrics of clips. Without
    seeds nothing is rendered, and only the texts are judged. ``drawn`` is the step whose prompts these are, ``origin``
    the one that has them judged, rendered and scored.
    """
    admitted = [query for query in queries if query not in refused]
    texts: dict[str, dict[Query, str]] = {}
    for name, writer in systems.items():
        if writer is None:
            texts[name] = {query: query.text for query in admitted}
        else:
            step = f"{drawn}/{name}"
            if writer.attempts > 1:
                written = desk.checked(writer, admitted, step, check)
            else:
                written = desk.rewrite(writer, admitted, step)
            texts[name] = {q: text for q, text in zip(admitted, written, strict=True) if text is not None}
    items = list(dict.fromkeys((query, text) for by_query in texts.values() for query, text in by_query.items()))
    verdicts = dict(zip(items, read(items, origin), strict=True))
    stopped = {item: reason for item in items if seeds and (reason := withheld(verdicts[item]))}
    shown = scorer.score([item for item in items if item not in stopped], seeds, {judge.name: judge}, origin)
    scored = {(s.query, s.text): s for s in shown}
    results: dict[str, dict[Query, Row]] = {}
    for name, by_query in texts.items():
        results[name] = {
            query: Row("", {}, None, unsafe=0.0, words=0, over_limit=None, refused=True) for query in refused
        }
        for query, text in by_query.items():
            verdict, seen = verdicts[query, text], scored.get((query, text))
            results[name][query] = Row(
                text=text,
                metrics=seen.dimensions if seen else {},
                fidelity=verdict.fidelity if verdict else None,
                unsafe=float(bool(verdict.unsafe)) if verdict else None,
                words=len(text.split()),
                over_limit=float(too_long(text)),
                clips=seen.clips if seen else (),
                by_seed=seen.by_seed if seen else (),
                facts=tuple((fact.text, fact.status) for fact in verdict.facts) if verdict else (),
                removed=tuple(verdict.removed) if verdict else (),
                withheld=stopped.get((query, text), ""),
            )
    return results


def findings(
    benchmark: str,
    results: compare.Results,
    metrics: Sequence[str],
    judge: str,
    baselines: Sequence[str],
    ceiling: str | None,
    queries: int,
) -> dict[str, list[dict[str, Any]]]:
    """The comparisons, means and closed gaps of one benchmark, which has so many ``queries``.

    Every system is compared with the baselines listed before it and with the system just before it.
    """
    order = [system for system in results if system != ceiling]
    against = {
        system: list(dict.fromkeys([*(b for b in baselines if b in order[:i]), order[i - 1]]))
        for i, system in enumerate(order)
        if i > 0
    }
    found = {
        "comparisons": compare.comparisons(benchmark, results, against, metrics, judge),
        "means": compare.means(benchmark, results, metrics, queries),
        "gaps": [],
    }
    if ceiling and "raw" in results:
        found["gaps"] = compare.gap_closed(benchmark, results, ceiling, metrics[0])
    return found
