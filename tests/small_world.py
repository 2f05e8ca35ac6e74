"""A run on true clips of the tiny world, without any weights, for tests of reports.

Its video model draws the facts that a prompt states, sharp only if the prompt says so; its writers state more or less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from promptreel import registry
from promptreel.config import Recipe, parse_recipe
from promptreel.fingerprint import content_seed
from promptreel.tiny import world
from promptreel.tiny.text_oracle import parse
from promptreel.tiny.wording import caption, complete
from promptreel.types import Clip, Completion, Failure, Message, RenderRequest, SamplingParams


class WorldGenerator:
    """A generator that draws the stated facts, and invents the others from the noise. Prompts with "broken" fail."""

    batch_size = 16

    def __init__(self, profile: str = "tiny") -> None:
        self.fingerprint = "small-world"

    def render(
        self, requests: Sequence[RenderRequest], on_step: Callable[[int, int], None] | None = None
    ) -> list[Clip | Failure]:
        return [
            Failure("render", "broken on purpose") if "broken" in request.prompt else self._draw(request)
            for request in requests
        ]

    def _draw(self, request: RenderRequest) -> Clip:
        stated = {"quality": "poor", **parse(request.prompt).stated}
        if stated.get("motion") == "still":
            stated.pop("speed", None)
        scene = world.random_scene(np.random.default_rng(request.seed), **stated)
        return Clip(request.clip_id(self.fingerprint), world.render(scene, request.seed), world.FPS)


class Wordsmith:
    """A writer of the canonical caption with probability ``skill``, and of the query with a flourish otherwise."""

    def __init__(self, skill: float) -> None:
        self.skill = skill
        self.fingerprint = f"wordsmith-{skill}"

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        replies: list[Completion | Failure] = []
        for conversation, params in zip(conversations, sampling, strict=True):
            asked = conversation[-1]["content"].splitlines()[0].partition(": ")[2]
            rng = np.random.default_rng(content_seed(asked, params.seed))
            stated = {name: value for name, value in parse(asked).stated.items() if name != "quality"}
            if stated.get("motion") == "still":
                stated.pop("speed", None)
            skilled = bool(stated) and rng.random() < self.skill
            text = caption(complete(stated, rng)) if skilled else f"{asked}, dreamy mood"
            replies.append(Completion(text, 20, 20))
        return replies


def register(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(registry.BUILT_IN["generator"], "world", "small_world:WorldGenerator")
    patch.setitem(registry.BUILT_IN["llm"], "wordsmith", "small_world:Wordsmith")


def writer(skill: float) -> dict[str, Any]:
    return {"llm": {"name": "wordsmith", "skill": skill}, "format": "brief", "batch_size": 16}


def recipe(source: str, queries: int) -> Recipe:
    """Return a recipe: evolution, then an evaluation of four systems and the ceiling, on a file or data set."""
    return parse_recipe(
        {
            "name": "small-world",
            "profile": "tiny",
            "generator": {"name": "world"},
            "student": writer(0.1),
            "teacher": writer(0.5),
            "judge": {"name": "tiny-oracle"},
            "policy": {"fidelity": 0.5},
            "rewards": {"pixels": {"name": "pixels"}},
            "objectives": {"total": {"weights": {"sharpness": 2.0, "steadiness": 10.0, "cleanness": 10.0}}},
            "systems": {
                "half-trained": writer(0.5),
                "trained": writer(0.95),
                "canonical": {"llm": {"name": "tiny-canonical"}, "format": "brief"},
            },
            "stage": [
                {
                    "kind": "evolve",
                    "queries": {"source": "tiny-train", "take": 4},
                    "rounds": 2,
                    "children": 2,
                    "objective": "total",
                },
                {
                    "kind": "evaluate",
                    "systems": ["raw", "base", "half-trained", "trained"],
                    "ceiling": "canonical",
                    "benchmarks": {"mine": {"queries": {"source": source, "take": queries}, "clips_per_prompt": 1}},
                    "reward": {"name": "tiny-oracle"},
                    "metrics": ["overall", "facts"],
                },
            ],
        }
    )
