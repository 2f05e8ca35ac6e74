"""Recipes are typed and closed: every shipped one parses, every mistake names its place and the cure."""

import json
from pathlib import Path

import pytest

import promptreel
from promptreel.config import EvolveStage, load_recipe, parse_recipe, same
from promptreel.errors import RecipeError

RECIPES = sorted((Path(promptreel.__file__).parent / "recipes").glob("*.toml"))


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
        ("evolve.objective=totl", "did you mean 'total'"),
        ("student.formt=brief", "did you mean 'format'"),
        ("evaluate.benchmarks.tiny-test.clip_per_prompt=1", "did you mean 'clips_per_prompt'"),
        ("dpo-1.name=sft", "two stages or systems are called 'sft'"),
        ("systems.checked={student='dpo-11'}", "system 'checked' needs 'dpo-11'; did you mean 'dpo-1'"),
        ("systems.checked={attempts=2}", "systems.checked: give either llm, a language model, or student"),
        ("dpo-1.kind=dop", "did you mean 'dpo'"),
        ("evaluate.ceiling=canonicl", "did you mean 'canonical'"),
        ("evaluate.baselines=['rew']", "evaluate.baselines: no system 'rew'; did you mean 'raw'"),
        ("evaluate.metrics=[]", "evaluate.metrics: List should have at least 1 item"),
        ("evaluate.systems=['evolve']", "cannot work with 'evolve', which is of kind 'evolve'; available: base, c"),
        ("pairs-1.samples=evolve", "cannot work with 'evolve', which is of kind 'evolve'; available: sample-1$"),
        ("dpo-1.pairs=['sample-1']", "cannot work with 'sample-1', which is of kind 'sample'; available: pairs-1$"),
        ("dpo-1.pairs=[]", "dpo-1.pairs: List should have at least 1 item"),
        ("sample-1.student=evolve", "cannot work with 'evolve', which is of kind 'evolve'; available: base"),
        ("sft.student=canonical", "cannot work with 'canonical', which is of kind 'system'; available: base$"),
        ("nonsense", "a.b=value"),
        ("name.deeper=1", "not a table"),
    ],
)
def test_a_mistake_names_its_place_and_the_cure(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe("tiny", [override])


def test_stages_are_a_list_whatever_is_set(tmp_path: Path) -> None:
    (tmp_path / "one.toml").write_text('[stage]\nkind = "evolve"\nrounds = 2')
    for overrides in ([], ["evolve.rounds=1"]):
        with pytest.raises(RecipeError, match=r"begin each with \[\[stage\]\]"):
            load_recipe(tmp_path / "one.toml", overrides)


def test_no_two_evaluations_have_a_benchmark_of_one_name() -> None:
    data = load_recipe("tiny")[0].resolved()
    data["stage"].append({**data["stage"][-1], "name": "again"})
    with pytest.raises(RecipeError, match="stages 'evaluate' and 'again' have a benchmark 'tiny-test'"):
        parse_recipe(data)


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
