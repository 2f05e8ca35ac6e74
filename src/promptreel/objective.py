"""The objective: from scores on native scales to the one reward that a stage maximises."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from promptreel.types import Candidate, Scores


@dataclass(frozen=True)
class Objective:
    """A weighted sum of score dimensions, with floors."""

    weights: Mapping[str, float]
    floors: Mapping[str, float] = field(default_factory=dict)
    """Least value of a dimension. A candidate below any of these is never chosen."""

    def rewards(self, candidates: Sequence[Candidate]) -> list[float | None]:
        """Return the reward of each candidate of *one query*, which are all given, so that ranks are possible."""
        return [self.value(candidate.scores) for candidate in candidates]

    def value(self, scores: Scores) -> float | None:
        """Return the weighted sum of scores; ``None`` if one of them is missing."""
        parts = [(weight, scores.get(name)) for name, weight in self.weights.items()]
        if any(value is None for _, value in parts):
            return None
        return sum(weight * value for weight, value in parts if value is not None)

    def rewarded(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Return the candidates of any queries with their rewards; rejected ones have none."""
        by_query: dict[str, list[int]] = {}
        found = list(candidates)
        for place, candidate in enumerate(found):
            if candidate.rejected is None:
                by_query.setdefault(candidate.query.row_id, []).append(place)
        for places in by_query.values():
            values = self.rewards([found[place] for place in places])
            for place, value in zip(places, values, strict=True):
                found[place] = replace(found[place], reward=value)
        return found

    def clears(self, candidate: Candidate) -> bool:
        """Return True if every dimension with a floor is present and reaches it."""
        return clears(candidate.scores, self.floors)


def clears(scores: Scores, floors: Mapping[str, float]) -> bool:
    """Return True if every dimension with a floor is present and reaches it."""
    return all((value := scores.get(name)) is not None and value >= floor for name, floor in floors.items())
