"""Draft, verdict, refinement (VPO, arXiv 2503.20491): until the verdict passes or the budget ends.

Ask and tell, like a search: without disk, model or clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from promptreel.types import Candidate, Pair, Query


class Critique:
    """The drafts of many queries on their way through the judge, each with all its versions.

    A draft passes when the policy accepts it. Others are refined at most ``rounds`` times. A draft is known by the id
    of its first version.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.history: dict[str, list[Candidate]] = {}

    def tell(self, versions: Mapping[str, Candidate]) -> None:
        """Take the latest version of drafts, judged."""
        for key, version in versions.items():
            self.history.setdefault(key, []).append(version)

    def ask(self) -> dict[str, Candidate]:
        """Return the drafts to refine now: judged, rejected, and with budget left.

        A draft without a verdict is not refined: its faults are unknown.
        """
        return {
            key: versions[-1]
            for key, versions in self.history.items()
            if versions[-1].verdict is not None and versions[-1].rejected and len(versions) <= self.rounds
        }

    def accepted(self) -> list[Candidate]:
        """Return the last versions that passed, each text of a query once: supervised data."""
        last = [versions[-1] for versions in self.history.values()]
        return list({candidate.id: candidate for candidate in last if candidate.rejected is None}.values())

    def refinements(self, per_query: int | None = 1) -> list[Pair]:
        """Return pairs ``text_refined``: a refined text that passed, over a text that it refines.

        The margin is the number of problems mended. At most ``per_query`` pairs for a query (VPO takes one), widest
        first.
        """
        made: dict[Query, list[Pair]] = {query: [] for query in self._queries()}
        for versions in self.history.values():
            passed = versions[-1]
            if len(versions) == 1 or passed.rejected:
                continue
            for earlier in versions[:-1]:
                if earlier.verdict is not None and earlier.text != passed.text:
                    margin = float(len(earlier.problems))
                    made[passed.query].append(Pair(passed.query, passed.text, earlier.text, "text_refined", margin))
        widest_first = {query: sorted(pairs, key=lambda pair: -pair.margin) for query, pairs in made.items()}
        return [pair for pairs in widest_first.values() for pair in pairs[:per_query]]

    def versions(self) -> list[Candidate]:
        """Return every version of every draft, query by query."""
        ordered: dict[Query, list[Candidate]] = {query: [] for query in self._queries()}
        for versions in self.history.values():
            ordered[versions[0].query] += versions
        return [candidate for found in ordered.values() for candidate in found]

    def _queries(self) -> Iterable[Query]:
        """Return every query that has a draft, in order."""
        return dict.fromkeys(versions[0].query for versions in self.history.values())
