"""The shipped recipes: each resolves without a model, and those that are compared cost the same."""

import sys
from pathlib import Path

import pytest

import promptreel
from promptreel.config import DPOStage, EvaluateStage, EvolveStage, Recipe, SampleStage, load_recipe
from promptreel.errors import UserError
from promptreel.preflight.check import check
from promptreel.preflight.cost import costs

NAMES = sorted(path.stem for path in (Path(promptreel.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_name_and_option_of_a_shipped_recipe_is_known(name: str) -> None:
    check(load_recipe(name)[0])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.metrics=['overal']", "unknown metric in evaluate: 'overal'; did you mean 'overall'"),
        ("evaluate.reward={name='pixels'}", "evaluate.reward is a reward of the recipe"),
        (
            "student.llm={name='endpoint', model='x'}",
            "stage 'sft' trains the student, and llm 'endpoint' cannot be trained here",
        ),
        ("teacher.llm.url='http://me:hunter2@host/v1'", "password in teacher.llm.url would be stored and shown"),
        ("teacher.llm.options={extra_headers={Authorization='x'}}", "extra_headers.Authorization would be stored"),
        ("evaluate.judge={name='llm', llm={name='endpoint', model='x', url='judge:8000'}}", "no URL of a server"),
        ("teacher.llm.quantization={load_in_4bit=true}", "the quantization of the teacher needs bitsandbytes"),
        (
            "judge={name='guarded', facts={name='llm', llm={name='local', model='x', quantization={a=1}}}, "
            "guard={name='tiny-oracle'}}",
            "the quantization of the judge needs bitsandbytes",
        ),
    ],
)
def test_a_mistake_in_the_last_stage_costs_nothing(
    override: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[check.__module__], "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        check(load_recipe("tiny", [override])[0])


def renders(recipe: Recipe) -> int:
    """Return the number of clips for training, at most."""
    stages, _ = costs(recipe)
    training = {stage.name for stage in recipe.stage if isinstance(stage, EvolveStage | SampleStage)}
    return sum(stage.renders or 0 for stage in stages if stage.name in training)


def test_the_recipes_of_the_tiny_world_that_are_compared_render_as_much() -> None:
    assert len({renders(load_recipe(name)[0]) for name in ("tiny", "tiny_vpo", "tiny_promptreel")}) == 1


@pytest.mark.parametrize("name", ["tiny_vpo", "tiny_promptreel"])
def test_a_student_of_a_fallible_judge_is_measured_by_another(name: str) -> None:
    recipe, _ = load_recipe(name)
    (evaluate,) = recipe.stages(EvaluateStage)
    assert (recipe.judge.name, recipe.judge.model_extra) == ("tiny-judge", {"errors": 0.1})
    assert evaluate.judge.name == "tiny-oracle"
    sizes = {name: (table.queries.take, table.clips_per_prompt) for name, table in evaluate.benchmarks.items()}
    assert sizes["tiny-unsafe"] == sizes["tiny-safe"] == (1000, 0)


def test_vpo_lets_a_text_pair_replace_the_video_pair_of_its_query() -> None:
    for name in ("vpo", "tiny_vpo"):
        (dpo,) = load_recipe(name)[0].stages(DPOStage)
        assert dpo.exclusive
        assert dpo.pairs == ["critique-dpo", "pairs"]


ROUNDS = {"tiny": 2, "tiny_promptreel": 3, "tiny_demo": 3, "tiny_quick": 3}
"""Rounds of preference training of each recipe."""


@pytest.mark.parametrize(("name", "rounds"), ROUNDS.items())
def test_rounds_of_training_have_queries_of_their_own(name: str, rounds: int) -> None:
    recipe, _ = load_recipe(name)
    check(recipe)
    stages = {stage.name: stage for stage in recipe.stage}
    samples, trainings = list(recipe.stages(SampleStage)), list(recipe.stages(DPOStage))
    before = ["sft", *(f"dpo-{number}" for number in range(1, rounds))]
    assert [stage.student for stage in samples] == [stage.student for stage in trainings] == before
    for sample, dpo in zip(samples, trainings, strict=True):
        assert {stages[name].samples for name in dpo.pairs} == {sample.name}
    taken = [stage.queries for stage in recipe.stage if isinstance(stage, EvolveStage | SampleStage)]
    ends = [table.skip + table.take for table in taken]
    assert all(end <= table.skip for end, table in zip(ends, taken[1:], strict=False))


@pytest.mark.parametrize("name", ["tiny_promptreel", "tiny_demo", "tiny_quick"])
def test_the_last_student_is_measured_plain_and_checked(name: str) -> None:
    recipe, _ = load_recipe(name)
    (evaluate,) = recipe.stages(EvaluateStage)
    *_, last = recipe.stages(DPOStage)
    assert recipe.systems["checked"].student == last.name
    assert evaluate.systems[-2:] == [last.name, "checked"]
    assert f"local:runs/demo/models/{last.name}\n" in (Path(__file__).parents[1] / "README.md").read_text()


def test_costs_count_every_draw_of_a_checked_system() -> None:
    recipe, _ = load_recipe("tiny_promptreel", ["evaluate.systems=['raw', 'dpo-3', 'checked']"])
    *_, asked = costs(recipe)[0]
    assert asked.queries is not None
    assert asked.completions == asked.queries * (1 + recipe.systems["checked"].attempts + 1)  # and the ceiling
    assert asked.verdicts == asked.queries * (4 + recipe.systems["checked"].attempts)


@pytest.mark.parametrize("name", ["tiny_demo", "tiny_quick"])
def test_the_demos_are_the_full_recipe_at_a_smaller_size(name: str) -> None:
    demo, full = load_recipe(name)[0], load_recipe("tiny_promptreel")[0]
    assert [(stage.name, stage.kind) for stage in demo.stage] == [(stage.name, stage.kind) for stage in full.stage]
    for small, large in zip(demo.stages(SampleStage), full.stages(SampleStage), strict=True):
        assert small.queries.take < large.queries.take
    for small, large in zip(costs(demo)[0], costs(full)[0], strict=True):
        assert (small.renders or 0) <= (large.renders or 0)
    assert demo.judge.model_extra == {"errors": 0.1, "attempts": 4}
