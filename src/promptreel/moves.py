"""Moves of a search: requests for new candidates, and for measurements of known ones."""

from __future__ import annotations

from dataclasses import dataclass

from promptreel.types import MAIN, Candidate, Query


@dataclass(frozen=True)
class Proposal:
    """A request for new candidates of a query, and the seeds to measure them with."""

    query: Query
    history: tuple[Candidate, ...]
    """Candidates that the teacher sees, best first."""
    count: int
    seed_indices: tuple[int, ...]
    generator: str = MAIN


@dataclass(frozen=True)
class Measurement:
    """A request to judge, render and score a candidate with some seeds of the stage's stream."""

    candidate: Candidate
    seed_indices: tuple[int, ...]
    generator: str = MAIN


@dataclass(frozen=True)
class Ask:
    """One move of a search. A move without proposals and measurements ends it."""

    proposals: tuple[Proposal, ...] = ()
    measurements: tuple[Measurement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.proposals or self.measurements)
