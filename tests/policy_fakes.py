"""Writers, a judge and recipes for tests of the policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import fakes

from promptreel.config import Recipe, parse_recipe
from promptreel.store import Mean, Summary
from promptreel.types import Candidate, Completion, Failure, Message, SamplingParams, Verdict


class Mender:
    """A writer that leaves out the last word of a query, unless the query is about boxes.

    Asked to repair a draft, it repeats the query without "gory", and adds "mended".
    """

    heard: ClassVar[list[str]] = []
    """Last messages of all conversations."""

    def __init__(self, model: str = "mender") -> None:
        self.fingerprint = f"mender-{model}"

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        self.heard.extend(conversation[-1]["content"] for conversation in conversations)
        return [Completion(self._answer(conversation[-1]["content"])) for conversation in conversations]

    def _answer(self, asked: str) -> str:
        task, _, query = asked.splitlines()[0].partition(": ")
        words = query.split()
        if task.startswith("Repair"):
            return " ".join(word for word in words if word != "gory") + " mended"
        return " ".join(words if "box" in words else words[:-1])


class Fabulist(fakes.FakeLLM):
    """A writer that adds a dragon to every other text, and keeps all words of the query."""

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        found: list[Completion | Failure] = []
        for number, conversation in enumerate(conversations):
            query = conversation[-1]["content"].splitlines()[0].partition(": ")[2]
            found.append(Completion(f"{query} {'with a dragon' if number % 2 == 0 else 'alone'} take {number}"))
        return found


class DragonJudge(fakes.FakeJudge):
    """A judge that also reports an invention: a dragon."""

    def __init__(self) -> None:
        self.fingerprint = "judge-dragon"

    def _verdict(self, candidate: Candidate) -> Verdict:
        verdict = super()._verdict(candidate)
        return replace(verdict, invented=("a dragon",)) if "dragon" in candidate.text else verdict


MENDER = {"llm": {"name": "mender", "model": "mender"}, "format": "brief", "batch_size": 4}


def recipe_with(policy: dict[str, Any], **changes: Any) -> Recipe:
    """Return the recipe of fakes with another policy, and with other tables."""
    return parse_recipe({**fakes.RECIPE, **changes, "policy": {**fakes.RECIPE["policy"], **policy}})


def means(summary: Summary, metric: str) -> dict[str, Mean]:
    """Return the means of a metric, by system."""
    return {row.system: row for row in summary.means if row.metric == metric}
