"""Stages on made-up components: what they store, what they skip, what they refuse."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import QUERIES, recipe
from recipe_files import write_recipe

from promptreel import registry
from promptreel.config import Recipe, parse_recipe
from promptreel.errors import Interrupted, RecipeError, RunError, UnknownName, UserError
from promptreel.pipeline import Pipeline, begun_recipe, run
from promptreel.preflight.check import environment
from promptreel.store import BenchmarkSize, Run, Summary
from promptreel.types import Query


def plain(summary: Summary) -> dict[str, Any]:
    """Return a summary without its times."""
    return {key: value for key, value in summary.to_json().items() if key != "seconds"}


# A run


def test_a_run_leaves_everything_that_people_look_for(place: Path) -> None:
    summary = run(recipe(), place)
    assert summary.finished
    assert json.loads((place / "recipe.json").read_text()) == recipe().resolved()
    assert json.loads((place / "summary.json").read_text()) == summary.to_json()
    with Run(place, writable=False) as opened:
        assert opened.summary() == summary
    assert summary.systems == ("raw", "base", "other")
    withheld = {"raw": 1, "base": 1, "other": 1}
    assert summary.benchmarks == {"mine": BenchmarkSize(queries=5, clips_per_prompt=2, not_rendered=withheld)}
    assert {(row.a, row.b) for row in summary.comparisons} == {("base", "raw"), ("other", "raw"), ("other", "base")}
    assert summary.renders["evolve"] > 3
    assert list(summary.renders) == list(summary.seconds) == ["evolve", "sample", "pairs", "evaluate"]
    assert list(summary.stages) == ["evolve", "sample", "pairs"]


def test_a_finished_run_does_nothing_again(place: Path) -> None:
    first = run(recipe(), place)
    fakes.FakeGenerator.rendered.clear()
    fakes.FakeLLM.asked.clear()
    assert run(recipe(), place) == first
    assert not fakes.FakeGenerator.rendered
    assert not fakes.FakeLLM.asked


def test_the_same_recipe_gives_the_same_summary(place: Path, tmp_path: Path) -> None:
    assert plain(run(recipe(), place)) == plain(run(recipe(), tmp_path / "other"))


def test_a_recipe_is_given_as_a_file_with_overrides_or_as_an_object(place: Path, tmp_path: Path) -> None:
    given = write_recipe(Path("mine.toml"))
    summary = run("mine.toml", place, "evolve.rounds=1", "name=changed")
    assert (place / "recipe.toml").read_text() == given
    assert summary.recipe == "changed"
    begun = begun_recipe(place)
    assert begun.named("evolve").rounds == 1  # type: ignore[union-attr]
    assert plain(run(begun, place)) == plain(summary)
    other = run(recipe(evolve={"rounds": 1}), tmp_path / "other")
    assert {**plain(other), "recipe": "changed"} == plain(summary)
    assert "given as an object" in (tmp_path / "other" / "recipe.toml").read_text()
    with pytest.raises(RecipeError, match="did you mean 'rounds'"):
        run("mine.toml", tmp_path / "third", "evolve.roundz=1")
    assert not (tmp_path / "third").exists()


def test_overrides_of_an_object_are_refused(place: Path) -> None:
    with pytest.raises(UserError, match="overrides change a recipe in a file: change the Recipe"):
        run(recipe(), place, "evolve.rounds=1")


def test_the_policy_comes_before_every_render(place: Path) -> None:
    """A text for the query with an unsafe word keeps that word, so it is never rendered; neither is the query."""
    run(recipe(), place, until="evolve")
    assert not [text for text in fakes.FakeGenerator.rendered if "gory" in text]
    with Run(place) as opened:
        stored = opened.records.candidates("evolve")
    rejected = [c for c in stored if c.query.text == "gory star" and c.round]
    assert len(rejected) == 4
    assert {c.rejected for c in rejected} <= {"unsafe", "too long"}
    assert all(c.reward is None and not c.clips for c in rejected)


def test_slices_of_one_source_are_disjoint(place: Path) -> None:
    run(recipe(), place)
    with Run(place) as opened:
        evolved, sampled = ({c.query.text for c in opened.records.candidates(s)} for s in ("evolve", "sample"))
    assert evolved == set(QUERIES[:3])
    assert sampled == set(QUERIES[3:])


def test_stages_keep_the_flags_of_their_own_queries(place: Path) -> None:
    """The same wish with other flags is the same to a judge, and not to whoever reads the run."""
    Path("q.txt").write_text("red ball -motion 3 --ar 16:9 -neg blur\nblue box\ntiny ring")
    Path("p.txt").write_text("red ball -motion 9 seed7 --ar 16:9 -neg blur\nblue box -gs 20")
    chosen = recipe(sample={"queries": {"source": "p.txt"}})
    run(chosen, place, until="sample")
    with Run(place) as opened:
        pipeline = Pipeline(chosen, opened)
        for stage in chosen.stage[:2]:
            context = pipeline.context(stage.name)
            assert list(context.candidates(stage.name)) == context.queries(stage.queries)  # type: ignore[union-attr]


def test_candidates_share_their_noise(place: Path) -> None:
    run(recipe(), place)
    with Run(place) as opened:
        pipeline = Pipeline(recipe(), opened)
        evolve, sample = (pipeline.context(name).step() for name in ("evolve", "sample"))
        evaluate = pipeline.context("evaluate").step("evaluate/mine", noise="evaluate/mine")
    expected = {evolve.seed(0), sample.seed(0), evaluate.seed(0), evaluate.seed(1)}
    assert {request.seed for batch in fakes.FakeGenerator.batches for request in batch} == expected
    assert len(expected) == 4


def test_candidates_are_stored_with_everything_known_about_them(place: Path) -> None:
    Path("q.txt").write_text("broken ball\nblue box\nred ball")
    run(recipe(evolve={"clips_per_prompt": 2}, sample={"queries": {"source": "q.txt", "take": 2}}), place)
    with Run(place) as opened:
        stored = opened.records.candidates("evolve")
        ball = next(c for c in stored if c.text == "blue box")
        broken = next(c for c in stored if c.text == "broken ball")
        evaluated = opened.records.evaluation("mine")
    assert [(clip.seed_index, clip.generator, clip.fidelity) for clip in ball.clips] == [
        (0, "main", "full"),
        (1, "main", "full"),
    ]
    assert all(clip.clip and clip.scores["length"] is not None for clip in ball.clips)
    assert ball.reward == ball.scores["length"]
    assert ball.verdict
    assert ball.tokens
    assert [(clip.clip, clip.failure) for clip in broken.clips] == [(None, "render")] * 2
    assert broken.reward is None
    assert set(evaluated) == {"raw", "base", "other"}
    assert [query.text for query in evaluated["raw"]] == ["broken ball", "blue box", "red ball"]
    assert len(evaluated["base"][Query("red ball")].clips) == 2


def test_failures_are_listed(place: Path) -> None:
    Path("q.txt").write_text("broken ball\nslow box\nred star\nblue ring\nfine cross")
    summary = run(recipe(), place)
    assert summary.failures["render"] > 0
    assert summary.failures["timeout"] > 0
    with Run(place) as opened:
        assert opened.records.failure_details() == {"render": "broken"}


def test_a_finished_run_opened_to_look_at_stays_as_it_is_byte_for_byte(place: Path) -> None:
    """Also while its status, its rows and its summary are read."""
    run(recipe(), place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    with Run(place, writable=False) as opened:
        assert opened.records.candidates("evolve")
        assert opened.records.failures() == {}
        Pipeline(recipe(), opened).is_done("evaluate")
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


# Order


def test_another_recipe_in_the_same_directory_is_refused(place: Path) -> None:
    run(recipe(), place, until="evolve")
    with pytest.raises(RunError, match="another recipe"):
        run(recipe(evolve={"rounds": 1}), place)


def test_stages_can_be_done_one_by_one(place: Path) -> None:
    assert not run(recipe(), place, until="evolve").finished
    with Run(place) as opened:
        pipeline = Pipeline(recipe(), opened)
        with pytest.raises(RunError, match="needs 'sample', which is not done"):
            pipeline.do("pairs")
        assert pipeline.next_of("sample") == "sample"
        pipeline.do("sample")
        pipeline.do("pairs")
        pipeline.do("pairs")
        with pytest.raises(UserError, match="every sample stage is done: sample"):
            pipeline.next_of("sample")
        with pytest.raises(UserError, match="the recipe has no stage of kind 'dpo'"):
            pipeline.next_of("dpo")
        with pytest.raises(UnknownName, match="unknown stage 'smaple'; did you mean 'sample'"):
            pipeline.do("smaple")
        assert [record.state for record in opened.records.stages().values()] == ["done"] * 3
    assert plain(run(recipe(), place)) == plain(run(recipe(), place.with_name("whole")))


def test_one_stage_is_done_alone_if_its_inputs_are_there(place: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'sample'"):
        run(recipe(), place, stage="smaple")
    assert not place.exists()
    with pytest.raises(RunError, match="needs 'sample', which is not done"):
        run(recipe(), place, stage="pairs")
    summary = run(recipe(), place, stage="sample")
    assert list(summary.stages) == ["sample"]
    assert not summary.finished
    assert plain(run(recipe(), place)) == plain(run(recipe(), place.with_name("whole")))


def test_a_stage_may_be_done_before_one_that_was_stopped_half_way(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It judges queries that the other stage had planned to have judged, and had no time for."""
    monkeypatch.setattr("promptreel.execution.step.JUDGE_BATCH", 2)

    def stop(work: str, done: int, total: int) -> None:
        if (work, done) == ("evolve/0: judge", 2):
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        run(recipe(), place, progress=stop)
    with Run(place) as opened:
        pipeline = Pipeline(recipe(), opened)
        pipeline.do("evaluate")
    assert run(recipe(), place).finished


def test_too_few_queries_are_said_before_anything_is_paid_for(place: Path) -> None:
    with pytest.raises(UserError, match="has only 5"):
        run(recipe(evolve={"queries": {"source": "q.txt", "take": 9}}), place)
    assert not fakes.FakeGenerator.rendered


def test_a_run_goes_into_no_directory_of_other_things(place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other things than a run"):
        run(recipe(), place)
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]


def test_the_recipe_of_a_run_is_read_back_or_missed_in_one_line(place: Path) -> None:
    with pytest.raises(UserError, match="holds no run; begin one with  promptreel run RECIPE --out"):
        begun_recipe(place)
    run(recipe(), place, until="evolve")
    assert begun_recipe(place) == recipe()
    (place / "recipe.json").write_text("{")
    with pytest.raises(UserError, match=r"recipe\.json is damaged"):
        begun_recipe(place)


def test_going_on_under_other_versions_is_warned_about(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(), place, until="evolve")
    assert not caplog.messages
    began = environment(recipe())
    now = {**began, "torch": "1.0", "threads": "7"}
    monkeypatch.setattr(sys.modules["promptreel.pipeline.run"], "environment", lambda recipe: now)
    run(recipe(), place, until="sample")
    run(recipe(), place)
    assert sum("goes on with 1.0" in message for message in caplog.messages) == 2
    assert sum("goes on with 7" in message for message in caplog.messages) == 2
    with Run(place) as opened:
        assert opened.records.environments() == [began, now]


@pytest.mark.parametrize("every", [3])
def test_a_report_that_raises_stops_the_run_with_everything_stored(place: Path, every: int) -> None:
    """As a signal does: the run goes on where it stopped and ends as an unbroken one."""
    whole = run(recipe(), place.with_name("whole"))
    fakes.FakeGenerator.rendered.clear()
    calls = 0

    def report(work: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls % every == 0:
            raise Interrupted("stop")

    for _ in range(60):
        try:
            broken = run(recipe(), place, progress=report)
            break
        except Interrupted:
            continue
    assert plain(broken) == plain(whole)
    assert max(fakes.FakeGenerator.rendered.values()) <= 3  # once for each seed


# Parts that a recipe or a caller may replace


@pytest.mark.parametrize("name", ["local", "processes"])
def test_an_engine_is_chosen_by_name_and_has_the_threads_of_the_recipe(place: Path, name: str) -> None:
    data = {**recipe().resolved(), "engine": {"name": name, "resident": 2}, "threads": 3}
    with Run(place) as opened:
        engine = Pipeline(parse_recipe(data), opened).resources.engine
    assert type(engine) is registry.find("engine", name)
    assert (engine.resident, engine.threads) == (2, 3)  # type: ignore[attr-defined]


class Short:
    """A search for the prompts of the first few queries alone."""

    def __init__(self, queries: Sequence[Query], first: int, **options: Any) -> None:
        from promptreel.search.evolution import Rounds

        self.queries = queries[:first]
        self.rounds = Rounds(self.queries, **options)

    @property
    def round(self) -> int:
        return self.rounds.round

    def ask(self) -> Any:
        return self.rounds.ask()

    def tell(self, candidates: Sequence[Any]) -> None:
        self.rounds.tell([candidate for candidate in candidates if candidate.query in self.queries])


def test_a_search_is_chosen_by_name_with_options_of_its_own(place: Path) -> None:
    registry.register("search", "short", "test_pipeline:Short")
    summary = run(recipe(evolve={"search": {"name": "short", "first": 1}}), place, until="evolve")
    with Run(place) as opened:
        assert {c.query.text for c in opened.records.candidates("evolve")} == {QUERIES[0]}
    assert len(summary.stages["evolve"]["best_by_round"]) == 3


def with_training() -> Recipe:
    """Return the recipe of fakes with a student that can be trained."""
    student = {"llm": {"name": "local", "model": "package:promptreel.tiny/weights/base"}, "format": "brief"}
    sft = {"kind": "sft", "data": "evolve"}
    return parse_recipe({**fakes.RECIPE, "student": student, "stage": [fakes.RECIPE["stage"][0], sft]})


def test_a_training_method_may_be_replaced_and_its_model_is_published_whole(place: Path) -> None:
    learned: list[str] = []

    def train(job: Any, examples: Sequence[Any]) -> dict[str, float]:
        learned.extend(example.text for example in examples)
        (job.out / "model.safetensors").write_bytes(b"weights")
        return {"loss": 0.5}

    summary = run(with_training(), place, trainers={"sft": train})
    assert summary.stages["sft"] == {"examples": len(learned), "loss": 0.5}
    assert learned
    with Run(place) as opened:
        assert (opened.model("sft") / "model.safetensors").read_bytes() == b"weights"
        pipeline = Pipeline(with_training(), opened)
        student, base = pipeline.context("sft").writer("sft"), pipeline.context("sft").writer("base")
    assert student == replace(base, llm=replace(base.llm, options={"model": str(place / "models" / "sft")}))


def test_a_training_that_fails_publishes_nothing_and_the_stage_is_done_again(place: Path) -> None:
    def train(job: Any, examples: Sequence[Any]) -> dict[str, float]:
        (job.out / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(with_training(), place, trainers={"sft": train})
    assert not list((place / "models").iterdir())
    with Run(place) as opened:
        assert opened.records.stage("sft").state == "running"
    assert run(with_training(), place, trainers={"sft": lambda job, examples: {}}).finished
