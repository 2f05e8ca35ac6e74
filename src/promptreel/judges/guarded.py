"""A judge of facts and a judge of harm as one."""

from __future__ import annotations

from collections.abc import Sequence

from promptreel.protocols import Judge
from promptreel.types import Candidate, Verdict


class Guarded:
    """A judge of facts joined with a guard, each of which may find harm.

    A candidate has a verdict only if both judges give one.
    """

    def __init__(self, facts: Judge, guard: Judge) -> None:
        self.facts, self.guard = facts, guard
        self.fingerprint = f"guarded({facts.fingerprint},{guard.fingerprint})"

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        facts, harm = self.facts.judge(candidates), self.guard.judge(candidates)
        return [_joined(*both) for both in zip(facts, harm, strict=True)]


def _joined(facts: Verdict | None, harm: Verdict | None) -> Verdict | None:
    if facts is None or harm is None:
        return None
    return Verdict(facts.facts, (*facts.unsafe, *harm.unsafe), facts.invented)
