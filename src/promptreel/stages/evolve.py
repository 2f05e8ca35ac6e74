"""The stage ``evolve``: the teacher improves the prompt of every query, round after round, by reward."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from promptreel import registry
from promptreel.config import EvolveStage, Recipe
from promptreel.execution.step import Step
from promptreel.execution.writer import Writer
from promptreel.moves import Measurement, Proposal
from promptreel.protocols import Search
from promptreel.stages.context import StageContext, StageResult, rejections
from promptreel.stages.cost import Cost, Count
from promptreel.types import Candidate, Query


def cost(stage: EvolveStage, recipe: Recipe, count: Count) -> Cost:
    children = stage.rounds * stage.children
    tried = 1 + children
    return Cost.per_query(stage, count(stage.queries), children, tried, tried * stage.clips_per_prompt)


def run(stage: EvolveStage, context: StageContext) -> StageResult:
    """Search for the best prompt of every query.

    A query that is harmful as typed is not rendered in round 0: it is counted under ``rejected``, the teacher begins
    without an example, and every accepted candidate beats it.
    """
    asked = context.admitted(context.queries(stage.queries), f"{stage.name}/0")
    search, objective, teacher = _search(stage, asked), context.objective(stage.objective), context.writer("teacher")
    found: dict[str, Candidate] = {}
    best: list[float] = []
    while move := search.ask():
        step = context.step(f"{stage.name}/{search.round}")
        proposed = _propose(step, teacher, move.proposals, search.round, found)
        found |= _measure(step, [*move.measurements, *proposed])
        found = {candidate.id: candidate for candidate in objective.rewarded(found.values())}
        search.tell(list(found.values()))
        best[search.round :] = [mean_best(asked, found.values())]
    candidates = _by_query(asked, found.values())
    return StageResult({"best_by_round": best, "rejected": rejections(candidates)}, candidates)


def mean_best(queries: Sequence[Query], candidates: Iterable[Candidate]) -> float:
    """Return the mean of the best reward so far, over the queries that have one; 0 if none has."""
    best: dict[Query, float] = dict.fromkeys(queries, -math.inf)
    for candidate in candidates:
        if candidate.reward is not None:
            best[candidate.query] = max(best[candidate.query], candidate.reward)
    found = [reward for reward in best.values() if reward > -math.inf]
    return sum(found) / len(found) if found else 0.0


def _search(stage: EvolveStage, queries: Sequence[Query]) -> Search:
    search: Search = registry.find("search", stage.search.name)(
        queries,
        rounds=stage.rounds,
        children=stage.children,
        context=stage.context,
        clips_per_prompt=stage.clips_per_prompt,
        **{name: value for name, value in stage.search if name != "name"},
    )
    return search


def _propose(
    step: Step, teacher: Writer, proposals: Sequence[Proposal], number: int, known: Collection[str]
) -> list[Measurement]:
    """Have the teacher write the children of every proposal; return those that are new for their query."""
    if not proposals:
        return []
    asked = [proposal for proposal in proposals for _ in range(proposal.count)]
    requests = [
        {
            "query": proposal.query.text,
            "history": [
                {"text": shown.text, "total": shown.reward or 0.0, "dimensions": shown.scores}
                for shown in proposal.history
            ],
        }
        for proposal in asked
    ]
    fresh: dict[str, Measurement] = {}
    for proposal, text in zip(asked, step.write(teacher, "propose", requests), strict=True):
        if text:
            child = Candidate(proposal.query, text, number)
            if child.id not in known:
                fresh.setdefault(child.id, Measurement(child, proposal.seed_indices, proposal.generator))
    return list(fresh.values())


def _measure(step: Step, measurements: Sequence[Measurement]) -> dict[str, Candidate]:
    """Try out candidates, those with the same seeds and generator together; return them by id."""
    measured = {m.candidate.id: m.candidate for m in measurements}
    groups: dict[tuple[tuple[int, ...], str], list[str]] = {}
    for m in measurements:
        groups.setdefault((m.seed_indices, m.generator), []).append(m.candidate.id)
    for (indices, generator), ids in groups.items():
        tried = step.try_out([measured[key] for key in ids], indices, generator)
        measured.update(zip(ids, tried, strict=True))
    return measured


def _by_query(queries: Sequence[Query], candidates: Collection[Candidate]) -> list[Candidate]:
    """Return candidates query by query, each query's in the order in which they were found."""
    grouped: dict[Query, list[Candidate]] = {query: [] for query in queries}
    for candidate in candidates:
        grouped[candidate.query].append(candidate)
    return [candidate for found in grouped.values() for candidate in found]
