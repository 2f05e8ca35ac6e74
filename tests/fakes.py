"""The recipe of fakes: a run of components that cost nothing."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from promptreel.config import Recipe, parse_recipe
from promptreel.testing import FakeGenerator, FakeJudge, FakeLLM, FakeReward
from promptreel.types import MAIN, Component

if TYPE_CHECKING:
    from promptreel.execution.step import Step
    from promptreel.store import Run

__all__ = ["NAMES", "QUERIES", "RECIPE", "FakeGenerator", "FakeJudge", "FakeLLM", "FakeReward", "recipe", "step"]

NAMES = {"generator": "FakeGenerator", "reward": "FakeReward", "judge": "FakeJudge", "llm": "FakeLLM"}
"""Classes registered under the name ``fake``, by kind."""

FAKE_LLM = {"llm": {"name": "fake"}, "format": "brief", "batch_size": 4}
RECIPE: dict[str, Any] = {
    "name": "fake",
    "profile": "tiny",
    "generator": {"name": "fake"},
    "student": FAKE_LLM,
    "teacher": FAKE_LLM,
    "judge": {"name": "fake"},
    "policy": {"fidelity": 0.5},
    "rewards": {"fake": {"name": "fake"}},
    "objectives": {"total": {"weights": {"length": 1.0}, "floors": {"length": 0.0}}},
    "systems": {"other": {"llm": {"name": "fake", "model": "other"}, "format": "brief"}},
    "stage": [
        {"kind": "evolve", "queries": {"source": "q.txt", "take": 3}, "rounds": 2, "children": 2, "objective": "total"},
        {
            "kind": "sample",
            "student": "base",
            "queries": {"source": "q.txt", "skip": 3, "take": 2},
            "candidates": 3,
            "objective": "total",
        },
        {"kind": "pairs", "samples": "sample", "rule": {"name": "margin_floors", "margin": 0.0}},
        {
            "kind": "evaluate",
            "systems": ["raw", "base", "other"],
            "benchmarks": {"mine": {"queries": {"source": "q.txt"}, "clips_per_prompt": 2}},
            "reward": {"name": "fake", "held_out": True},
            "metrics": ["length"],
        },
    ],
}
QUERIES = ["red ball", "blue box", "gory star", "tiny ring", "green cross"]


def recipe(**changes: Any) -> Recipe:
    """Return the recipe of fakes with changes: keys of its own, or, as ``kind={…}``, of all stages of a kind."""
    data = copy.deepcopy(RECIPE)
    for stage in data["stage"]:
        stage.update(changes.get(stage["kind"], {}))
    data.update({key: value for key, value in changes.items() if key in data})
    return parse_recipe(data)


def step(run: Run, name: str) -> Step:
    """Return a step of a run whose components are fakes."""
    from promptreel import profiles
    from promptreel.execution.local_engine import LocalEngine
    from promptreel.execution.step import Resources, Step

    made = recipe()
    resources = Resources(
        run=run,
        engine=LocalEngine(),
        seed=made.seed,
        policy=made.policy.policy(),
        tokens=profiles.token_counter(made.profile),
        judge=made.judge.component("judge"),
        generators={MAIN: Component("generator", "fake")},
        rewards={key: table.component("reward") for key, table in made.rewards.items()},
        objectives={key: table.objective() for key, table in made.objectives.items()},
        writers={},
    )
    return Step(resources, name)
