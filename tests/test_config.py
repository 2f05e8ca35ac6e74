"""Recipes are typed and closed: every shipped one parses, every mistake names its place and the cure."""

import json
from pathlib import Path

import pytest

from promptreel.config import EvolveStage, load_recipe, parse_recipe, same
from promptreel.errors import RecipeError

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_parses_by_path_and_by_name(path: Path) -> None:
    recipe, given = load_recipe(path)
    assert given == path.read_text()
    assert recipe == load_recipe(path.stem)[0]
    assert same(parse_recipe(json.loads(json.dumps(recipe.resolved()))).resolved(), recipe.resolved())


def test_there_are_recipes() -> None:
    assert "tiny" in {path.stem for path in RECIPES}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=3", "did you mean 'seed'"),
        ("evolve.rouns=2", "did you mean 'rounds'"),
        ("evolve.rounds=many", "evolve.rounds"),
        ("evolve.rounds=-1", "greater than or equal to 0"),
        ("sft.data=evlve", "did you mean 'evolve'"),
        ("sample-1.student=dpo-2", "stage 'sample-1' needs 'dpo-2'"),
        ("evolve.blend=totl", "did you mean 'total'"),
        ("student.formt=brief", "did you mean 'format'"),
        ("evaluate.benchmarks.tiny-test.sed=1", "did you mean 'seeds'"),
        ("dpo-1.name=sft", "two stages or systems are called 'sft'"),
        ("systems.checked={student='dpo-11'}", "system 'checked' needs 'dpo-11'; did you mean 'dpo-1'"),
        ("systems.checked={attempts=2}", "systems.checked: give either llm, a language model, or student"),
        ("dpo-1.kind=dop", "did you mean 'dpo'"),
        ("nonsense", "a.b=value"),
        ("name.deeper=1", "not a table"),
    ],
)
def test_a_mistake_names_its_place_and_the_cure(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("tiny", [override])


def test_overrides_reach_stages_by_name() -> None:
    recipe, _ = load_recipe("tiny", ["evolve.rounds=2", "evolve.queries.take=5", "seed=9", "name=mine"])
    (evolve,) = recipe.stages(EvolveStage)
    assert (evolve.rounds, evolve.queries.take, recipe.seed, recipe.name) == (2, 5, 9, "mine")


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'tiny'"):
        load_recipe("tniy")
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(broken)
