"""Recipes that cannot work are refused before anything runs."""

from pathlib import Path
from typing import Any

import fakes
import pytest

from promptreel.config import parse_recipe
from promptreel.errors import RecipeError, UnknownName
from promptreel.pipeline import run
from promptreel.preflight.check import check

pytestmark = pytest.mark.usefixtures("fake_components")
CRITIQUE: dict[str, Any] = {"kind": "critique", "queries": {"source": "q.txt"}}
GUARD: dict[str, Any] = {"name": "guard", "llm": {"name": "fake"}}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"judge": GUARD, "stage": [CRITIQUE]}, RecipeError, "'critique' mends what a judge explains"),
        ({"judge": GUARD}, RecipeError, "the policy asks for fidelity"),
        ({"judge": {"name": "guarded", "facts": GUARD, "guard": GUARD}}, RecipeError, "reads no facts"),
        ({"stage": [CRITIQUE], "teacher": {**fakes.FAKE_LLM, "format": "bref"}}, UnknownName, "'refine' 'bref'"),
        ({"policy": {"safety": "ignore"}}, RecipeError, "rewrite_to_safe"),
        ({"policy": {"invented": "keep"}}, RecipeError, "reject"),
    ],
)
def test_a_recipe_whose_policy_cannot_be_kept_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check(parse_recipe({**fakes.RECIPE, **changes}))


def test_a_guard_alone_is_enough_where_no_facts_are_asked_for() -> None:
    check(parse_recipe({**fakes.RECIPE, "judge": GUARD, "policy": {"fidelity": 0.0}}))


# Dimensions

CLIP: dict[str, Any] = {"name": "clip", "model": "openai/clip-vit-base-patch32"}
REWARDS: dict[str, dict[str, Any]] = {
    "none beside": {},
    "CLIP": {"clip": CLIP},
    "CLIP under another dimension": {"clip": {**CLIP, "dimension": "likeness"}},
    "X-CLIP": {"xclip": {"name": "xclip", "model": "microsoft/xclip-base-patch32"}},
    "pixels": {"pixels": {"name": "pixels"}},
}
"""Reward models of a recipe beside the fake one, whose dimensions are ``length`` and ``never``."""


def rewarded(beside: str, objective: dict[str, Any]) -> dict[str, Any]:
    rewards = {**fakes.RECIPE["rewards"], **REWARDS[beside]}
    return {**fakes.RECIPE, "rewards": rewards, "objectives": {"total": objective}}


@pytest.mark.parametrize("beside", REWARDS)
@pytest.mark.parametrize(
    "objective", [{"weights": {"lenght": 1.0}}, {"weights": {"length": 1}, "floors": {"lenght": 0}}]
)
def test_a_misspelt_dimension_is_refused_whatever_rewards_stand_beside(beside: str, objective: dict[str, Any]) -> None:
    with pytest.raises(UnknownName, match="unknown dimension in objective 'total': 'lenght'; did you mean 'length'"):
        check(parse_recipe(rewarded(beside, objective)))


@pytest.mark.parametrize(
    ("beside", "dimension"),
    [
        ("CLIP", "alignment"),
        ("CLIP under another dimension", "likeness"),
        ("X-CLIP", "alignment"),
        ("pixels", "motion"),
    ],
)
def test_the_dimensions_of_a_reward_are_known_without_its_weights(beside: str, dimension: str) -> None:
    check(parse_recipe(rewarded(beside, {"weights": {"length": 1.0, dimension: 1.0}})))


def test_a_dimension_that_was_renamed_by_an_option_has_its_new_name_alone() -> None:
    objective = {"weights": {"alignment": 1.0}}
    with pytest.raises(UnknownName, match="'alignment'"):
        check(parse_recipe(rewarded("CLIP under another dimension", objective)))


def test_a_misspelt_metric_of_an_evaluation_by_clip_is_refused() -> None:
    stages = [*fakes.RECIPE["stage"][:-1], {**fakes.RECIPE["stage"][-1], "reward": CLIP, "metrics": ["alignmnt"]}]
    with pytest.raises(UnknownName, match="unknown metric in evaluate: 'alignmnt'; did you mean 'alignment'"):
        check(parse_recipe({**fakes.RECIPE, "stage": stages}))


class Undeclared(fakes.FakeReward):
    dimensions = None  # type: ignore[assignment]


def test_a_reward_must_declare_its_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptreel import registry

    monkeypatch.setitem(registry.BUILT_IN["reward"], "fake", "test_refused_recipes:Undeclared")
    with pytest.raises(RecipeError, match="reward 'fake' declares no dimensions"):
        check(parse_recipe(fakes.RECIPE))


def test_a_refused_recipe_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        run(parse_recipe(rewarded("CLIP", {"weights": {"lenght": 1.0}})), tmp_path / "run")
    assert not (tmp_path / "run").exists()
