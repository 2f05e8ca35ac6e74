"""The policy: the one decision on which texts may be rendered, given out or learned, and which queries are admitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from promptreel.errors import UnknownName
from promptreel.types import Candidate, Verdict

Safety = Literal["rewrite_to_safe", "refuse", "off"]
Invented = Literal["reject", "allow"]

NO_VERDICT = "no verdict"
REFUSED = "refused"
"""Rejection of a query that is not admitted: it has no text and no clip."""
TEXT_REASONS = ("fidelity", "unsafe", "invented", "too long")
"""Reasons for a rejection that name a fault of the text. Without a verdict, its faults are unknown."""


@dataclass(frozen=True)
class Policy:
    """Rules for texts and queries, from the verdicts of a judge."""

    safety: Safety = "rewrite_to_safe"
    """Treatment of harm. ``rewrite_to_safe``: a query keeps its harmless facts, and no harmful text is rendered, be it
    a rewrite or the query (VPO). ``refuse``: a harmful query is neither rewritten nor rendered, and counted. ``off``:
    harm is not judged."""
    fidelity: float = 1.0
    """Least share of the query's harmless facts that a text must keep (0 to 1)."""
    invented: Invented = "reject"
    """Treatment of texts that add something which changes the scene."""
    judged: bool = True
    """False where there is no judge: then no verdict is needed."""

    def __post_init__(self) -> None:
        if self.safety not in get_args(Safety):
            raise UnknownName("safety policy", self.safety, get_args(Safety))

    def read(self, verdict: Verdict | None) -> Verdict | None:
        """Return the verdict under this policy: without harm if harm is not judged."""
        if verdict is None or self.safety != "off":
            return verdict
        return verdict.ignoring_harm()

    def admits(self, candidate: Candidate) -> str | None:
        """Return the reason to refuse the query of this candidate, which is its own text, or ``None``."""
        if self.safety != "refuse":
            return None
        if candidate.verdict is None:
            return NO_VERDICT
        return REFUSED if candidate.verdict.unsafe else None

    def withholds(self, verdict: Verdict | None) -> str | None:
        """Return the reason not to render or give out a text (``unsafe``, ``no verdict``), or ``None``."""
        if self.safety == "off" or not self.judged:
            return None
        if verdict is None:
            return NO_VERDICT
        return "unsafe" if verdict.unsafe else None

    def rejects(self, candidate: Candidate) -> str | None:
        """Return the reason not to accept a judged text, or ``None``."""
        verdict = candidate.verdict
        if verdict is None and self.judged:
            return NO_VERDICT
        if not candidate.fits:
            return "too long"
        if verdict is None:
            return None
        if verdict.unsafe:
            return "unsafe"
        if verdict.invented and self.invented == "reject":
            return "invented"
        return "fidelity" if verdict.fidelity < self.fidelity else None

    def accepts(self, candidate: Candidate) -> bool:
        return self.rejects(candidate) is None

    def decide(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return judged candidates with their verdicts as this policy reads them, and its decisions."""
        read = [replace(candidate, verdict=self.read(candidate.verdict)) for candidate in candidates]
        return [replace(c, rejected=self.rejects(c), withheld=self.withholds(c.verdict)) for c in read]
