"""Reward-guided evolution of prompts (Prompt-A-Video, arXiv 2412.15156, stage 1), as ask and tell.

Generation 0 is the raw query, where it may be rendered. In each round the teacher sees the query and the best
rewrites so far with their scores, and proposes children. All queries move together, so that proposals and renders
come in large batches. The state is nothing but what was told: no disk, no model, no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptreel.scoring import clears
from promptreel.types import Candidate, Query


@dataclass(frozen=True)
class Ask:
    """A request to the teacher: children of a query, given the best so far, best first."""

    query: Query
    history: tuple[Candidate, ...]
    children: int


class Fixed:
    """The papers' schedule: the same number of rounds and children for every query, never stopping early."""

    def __init__(self, queries: Sequence[Query], rounds: int, children: int, context: int) -> None:
        self.rounds, self.children, self.context = rounds, children, context
        self.round = -1
        self.tried: dict[Query, list[Candidate]] = {query: [] for query in queries}

    def start(self) -> list[tuple[Query, str]]:
        """Generation 0: every query as it was typed."""
        return [(query, query.text) for query in self.tried]

    def ask(self) -> list[Ask]:
        """What to propose in the next round; empty when the search is over. Needs generation 0 told."""
        if self.round >= self.rounds:
            return []
        return [Ask(query, tuple(self.best(query)), self.children) for query in self.tried]

    def fresh(self, query: Query, text: str | None) -> bool:
        """Whether a proposal is a text that was not tried for this query before."""
        return text is not None and all(candidate.text != text for candidate in self.tried[query])

    def tell(self, results: Mapping[Query, Sequence[Candidate]]) -> None:
        """What became of generation 0, or of the children of the round that was asked."""
        for query, candidates in results.items():
            self.tried[query] += candidates
        self.round += 1

    def best(self, query: Query) -> list[Candidate]:
        """The ``context`` best rewrites so far, best first; the earlier one first among equals."""
        scored = [candidate for candidate in self.tried[query] if candidate.total is not None]
        return sorted(scored, key=lambda candidate: -(candidate.total or 0.0))[: self.context]

    def mean_best(self) -> float:
        """The mean of the best total so far, over the queries that have one."""
        tops = [found[0].total or 0.0 for query in self.tried if (found := self.best(query))]
        return sum(tops) / len(tops) if tops else 0.0


def winners(
    tried: Mapping[Query, Sequence[Candidate]], floors: Mapping[str, float], margin: float
) -> dict[Query, Candidate]:
    """The best rewrite of each query that clears all floors and beats the raw query by a margin.

    A query whose raw text has no score, since it is harmful or could not be rendered, has nothing to beat; one
    without such a rewrite is left out.
    """
    chosen = {}
    for query, candidates in tried.items():
        raw = next((c.total for c in candidates if c.round == 0), None)
        good = [
            c
            for c in candidates
            if c.round > 0
            and c.total is not None
            and (raw is None or c.total > raw + margin)
            and clears(c.dimensions, floors)
        ]
        if good:
            chosen[query] = max(good, key=lambda candidate: candidate.total or 0.0)
    return chosen
