"""Reward-guided evolution of prompts (Prompt-A-Video, arXiv 2412.15156, stage 1), as ask and tell.

Round 0 measures the raw query, where it may be rendered. In each further round the teacher sees the query and the best
candidates so far with their scores, and proposes children. All queries move together, so that proposals and renders
come in large batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from promptreel.moves import Ask, Measurement, Proposal
from promptreel.objective import Objective
from promptreel.types import Candidate, Query


class Rounds:
    """The papers' schedule: the same rounds and children for every query, never stopping early.

    Every candidate is measured with all ``clips_per_prompt`` seeds. The teacher sees the ``context`` best.
    """

    def __init__(
        self, queries: Sequence[Query], rounds: int, children: int, context: int, clips_per_prompt: int = 1
    ) -> None:
        self.queries = list(dict.fromkeys(queries))
        self.rounds, self.children, self.context = rounds, children, context
        self.seed_indices = tuple(range(clips_per_prompt))
        self.round = -1
        self._candidates: dict[Query, list[Candidate]] = {}

    def ask(self) -> Ask:
        if self.round >= self.rounds or not self.queries:
            return Ask()
        self.round += 1
        if self.round == 0:
            typed = [Candidate.as_typed(query) for query in self.queries]
            return Ask(measurements=tuple(Measurement(candidate, self.seed_indices) for candidate in typed))
        return Ask(proposals=tuple(self._proposal(query) for query in self.queries))

    def tell(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = {query: [] for query in self.queries}
        for candidate in candidates:
            self._candidates[candidate.query].append(candidate)

    def _proposal(self, query: Query) -> Proposal:
        return Proposal(query, self.best(query), self.children, self.seed_indices)

    def best(self, query: Query) -> tuple[Candidate, ...]:
        """Return the ``context`` best candidates so far, best first; the earlier one first among equals."""
        rewarded = [candidate for candidate in self._candidates[query] if candidate.reward is not None]
        return tuple(sorted(rewarded, key=lambda candidate: -(candidate.reward or 0.0))[: self.context])


def winners(candidates: Mapping[Query, Sequence[Candidate]], objective: Objective, margin: float) -> list[Candidate]:
    """Return the best candidate of each query that clears all floors and beats the raw query by more than ``margin``.

    A raw query without a reward, harmful or not rendered, is beaten by every candidate. A query without such a
    candidate is left out.
    """
    chosen = []
    for measured in candidates.values():
        raw = next((candidate.reward for candidate in measured if candidate.round == 0), None)
        good = [
            candidate
            for candidate in measured
            if candidate.round > 0
            and candidate.reward is not None
            and (raw is None or candidate.reward > raw + margin)
            and objective.clears(candidate)
        ]
        if good:
            chosen.append(max(good, key=lambda candidate: candidate.reward or 0.0))
    return chosen
