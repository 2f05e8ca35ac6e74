"""The cost of a stage: an upper bound of everything it asks for, known before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from promptreel.config import QueriesTable, Stage

Count = Callable[[QueriesTable], int | None]
"""Number of queries in a slice; ``None`` where nothing can be known without fetching or reading."""


@dataclass(frozen=True)
class Cost:
    """Upper bounds: the policy, repetitions and stored results save some. ``None`` is unknown."""

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    queries: int | None = 0
    completions: int | None = 0
    """Prompts that language models write."""
    verdicts: int | None = 0
    """Texts that the judge reads."""
    renders: int | None = 0

    @classmethod
    def none(cls, stage: Stage) -> Cost:
        """Return the cost of a stage that asks for nothing."""
        return cls(stage.name, getattr(stage, "kind", ""), tuple(stage.inputs))

    @classmethod
    def per_query(
        cls, stage: Stage, queries: int | None, completions: int = 0, verdicts: int = 0, renders: int = 0
    ) -> Cost:
        """Return the cost of a stage that asks for so much of everything for each query."""

        def times(each: int) -> int | None:
            return each and (None if queries is None else queries * each)

        of = cls.none(stage)
        return cls(of.name, of.kind, of.inputs, queries, times(completions), times(verdicts), times(renders))

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.name,
            self.kind,
            self.inputs,
            _sum(self.queries, other.queries),
            _sum(self.completions, other.completions),
            _sum(self.verdicts, other.verdicts),
            _sum(self.renders, other.renders),
        )


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b
