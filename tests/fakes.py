"""Components that obey the ports and cost nothing, to test what is between the ports.

They count what they are asked on the class, since engines build their own instances.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from promptreel.config import Recipe
from promptreel.recipes import parse_recipe
from promptreel.types import Clip, Fact, Failure, Message, Query, RenderRequest, Reply, Sampling, Scores, Verdict


class FakeGenerator:
    """Clips whose first pixel depends on the prompt and the seed; prompts with "broken" fail."""

    batch_size = 4
    rendered: ClassVar[Counter[str]] = Counter()
    batches: ClassVar[list[list[RenderRequest]]] = []

    def __init__(self, profile: str = "tiny", name: str = "fake") -> None:
        self.fingerprint = f"generator-{name}"

    def render(self, requests: Sequence[RenderRequest]) -> list[Clip | Failure]:
        self.batches.append(list(requests))
        results: list[Clip | Failure] = []
        for request in requests:
            self.rendered[request.prompt] += 1
            if "broken" in request.prompt:
                results.append(Failure("render", "broken"))
                continue
            frames = np.full((2, 16, 16, 3), (len(request.prompt) * 7 + request.seed) % 256, np.uint8)
            results.append(Clip(request.clip_id(self.fingerprint), frames, 8.0))
        return results


class FakeReward:
    """``length``: words of the prompt cannot be seen, so it scores brightness; ``never`` is always missing.

    ``held_out`` makes it another reward that measures the same: one that no stage trains on.
    """

    dimensions = ("length", "never")
    scored: ClassVar[Counter[str]] = Counter()

    def __init__(self, held_out: bool = False) -> None:
        self.fingerprint = f"reward-fake{held_out or ''}"

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        self.scored.update(clip.id for _, clip in items)
        return [{"length": float(clip.frames.mean()), "never": None} for _, clip in items]


class FakeJudge:
    """Every word of the query is a fact; "gory" is harm; a rewrite with "unreadable" has no verdict."""

    judged: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        self.fingerprint = "judge-fake"

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        self.judged.update(text for _, text in items)
        return [
            None
            if "unreadable" in text
            else Verdict(
                tuple(
                    Fact(word, "kept" if word in text.split() else "lost", harmful=word == "gory")
                    for word in query.text.split()
                ),
                ("gory",) if "gory" in text else (),
            )
            for query, text in items
        ]


class FakeLLM:
    """Answers with what it was asked, and something of the row and seed, so that no two replies are alike."""

    asked: ClassVar[list[list[int]]] = []
    """The seeds of each call."""

    def __init__(self, model: str = "fake") -> None:
        self.fingerprint = f"llm-{model}"

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        self.asked.append([sampling.seed for sampling in samplings])
        return [
            Failure("timeout")
            if "slow" in c[-1]["content"]
            else Reply(f"{c[-1]['content']} {'x' * row} s{samplings[row].seed % 97}", 3, 2, 0.1)
            for row, c in enumerate(conversations)
        ]


NAMES = {"generator": "FakeGenerator", "reward": "FakeReward", "judge": "FakeJudge", "llm": "FakeLLM"}
"""What is registered under the name ``fake``, by kind."""

FAKE_LLM = {"llm": {"name": "fake"}, "format": "brief", "batch_size": 4}
RECIPE: dict[str, Any] = {
    "name": "fake",
    "profile": "tiny",
    "generator": {"name": "fake"},
    "student": FAKE_LLM,
    "teacher": FAKE_LLM,
    "judge": {"name": "fake"},
    "gate": {"fidelity": 0.5},
    "rewards": {"fake": {"name": "fake"}},
    "blends": {"total": {"weights": {"length": 1.0}, "floors": {"length": 0.0}}},
    "systems": {"other": {"llm": {"name": "fake", "model": "other"}, "format": "brief"}},
    "stage": [
        {"kind": "evolve", "queries": {"source": "q.txt", "take": 3}, "rounds": 2, "children": 2, "blend": "total"},
        {
            "kind": "sample",
            "student": "base",
            "queries": {"source": "q.txt", "skip": 3, "take": 2},
            "candidates": 3,
            "blend": "total",
        },
        {"kind": "pairs", "samples": "sample", "rule": {"name": "margin_floors", "margin": 0.0}},
        {
            "kind": "evaluate",
            "systems": ["raw", "base", "other"],
            "benchmarks": {"mine": {"queries": {"source": "q.txt"}, "seeds": 2}},
            "judge": {"name": "fake", "held_out": True},
            "metrics": ["length"],
        },
    ],
}
QUERIES = ["red ball", "blue box", "gory star", "tiny ring", "green cross"]


def recipe(**changes: Any) -> Recipe:
    """The recipe of fakes, with the keys of its stages, by kind, or of itself changed."""
    data = copy.deepcopy(RECIPE)
    for stage in data["stage"]:
        stage.update(changes.get(stage["kind"], {}))
    data.update({key: value for key, value in changes.items() if key in data})
    return parse_recipe(data)
