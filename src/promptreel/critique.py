"""Draft, verdict, refinement (VPO, arXiv 2503.20491): until the verdict passes or the budget ends.

As ask and tell, like evolution: the state is what was told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from promptreel.types import Pair, Query, Verdict


@dataclass(frozen=True)
class Draft:
    """One version of a prompt, with what the judge said of it (``None``: it could not tell)."""

    text: str
    verdict: Verdict | None
    too_long: bool = False
    """Whether the video model would not read all of it."""

    @property
    def problems(self) -> list[str]:
        """What to mend, one phrase each."""
        return [*(self.verdict.problems if self.verdict else []), *(["too long"] if self.too_long else [])]


class Critique:
    """The drafts of many queries on their way through the judge.

    A draft passes when its verdict keeps at least ``fidelity`` of the harmless facts, invents nothing and finds
    no harm, and the video model reads all of it. Others are refined at most ``rounds`` times.
    """

    def __init__(self, rounds: int, fidelity: float = 1.0) -> None:
        self.rounds, self.fidelity = rounds, fidelity
        self.history: dict[tuple[Query, str], list[Draft]] = {}

    def tell(self, drafts: Mapping[tuple[Query, str], Draft]) -> None:
        """Add the latest version of each draft; a draft is known by its query and its first text."""
        for key, draft in drafts.items():
            self.history.setdefault(key, []).append(draft)

    def stopped(self, draft: Draft) -> str | None:
        """Why a draft does not pass, as the gate names it; ``None`` for one that does."""
        verdict = draft.verdict
        if verdict is None:
            return "no verdict"
        if draft.too_long:
            return "too long"
        if verdict.unsafe:
            return "unsafe"
        if verdict.invented:
            return "invented"
        return "fidelity" if verdict.fidelity < self.fidelity else None

    def passes(self, draft: Draft) -> bool:
        return self.stopped(draft) is None

    def ask(self) -> list[tuple[tuple[Query, str], Draft]]:
        """The drafts to refine now: judged, not passed, and with budget left.

        A draft without a verdict is not refined: nobody knows what is wrong with it.
        """
        return [
            (key, versions[-1])
            for key, versions in self.history.items()
            if versions[-1].verdict is not None and not self.passes(versions[-1]) and len(versions) <= self.rounds
        ]

    def accepted(self) -> dict[Query, list[str]]:
        """The texts that passed, by query: supervised data."""
        texts: dict[Query, list[str]] = {}
        for (query, _), versions in self.history.items():
            if self.passes(versions[-1]) and versions[-1].text not in texts.setdefault(query, []):
                texts[query].append(versions[-1].text)
        return {query: found for query, found in texts.items() if found}

    def refinements(self, per_query: int | None = 1) -> list[Pair]:
        """A refined text that passed, over a text that it refines: ``text_refined`` pairs.

        The margin is the number of problems mended; at most ``per_query`` for a query (VPO takes one), widest
        first.
        """
        made = [
            Pair(query, versions[-1].text, earlier.text, "text_refined", float(len(earlier.problems)))
            for (query, _), versions in self.history.items()
            if len(versions) > 1 and self.passes(versions[-1])
            for earlier in versions[:-1]
            if earlier.verdict is not None and earlier.text != versions[-1].text
        ]
        by_query: dict[Query, list[Pair]] = {}
        for pair in sorted(made, key=lambda pair: -pair.margin):
            by_query.setdefault(pair.query, []).append(pair)
        return [pair for query in self.queries() for pair in by_query.get(query, [])[:per_query]]

    def queries(self) -> list[Query]:
        """Every query that has a draft, in order."""
        return list(dict.fromkeys(query for query, _ in self.history))
