"""Stages on made-up components: what they store, what they skip, what they refuse."""

import json
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import QUERIES, recipe

from promptreel.errors import Interrupted, RunError, UnknownName, UserError
from promptreel.pipeline import Pipeline, run
from promptreel.pipeline.export import evaluate_file, export
from promptreel.pipeline.status import status
from promptreel.preflight.check import environment
from promptreel.store import Run


def test_a_run_leaves_everything_that_people_look_for(place: Path) -> None:
    summary = run(recipe(), "given", place)
    assert summary["finished"]
    assert (place / "recipe.toml").read_text() == "given"
    assert json.loads((place / "recipe.json").read_text())["name"] == "fake"
    assert json.loads((place / "summary.json").read_text()) == summary
    assert summary["systems"] == ["raw", "base", "other"]
    withheld = {"raw": 1, "base": 1, "other": 1}
    assert summary["benchmarks"] == {"mine": {"queries": 5, "seeds": 2, "not rendered": withheld}}
    assert {(row["a"], row["b"]) for row in summary["comparisons"]} == {
        ("base", "raw"), ("other", "raw"), ("other", "base"),
    }  # fmt: skip
    assert summary["renders"]["evolve"] > 3
    assert set(summary["seconds"]) == {"evolve", "sample", "pairs", "evaluate"}


def test_a_finished_run_does_nothing_again(place: Path) -> None:
    first = run(recipe(), "given", place)
    fakes.FakeGenerator.rendered.clear()
    fakes.FakeLLM.asked.clear()
    assert run(recipe(), "given", place) == first
    assert not fakes.FakeGenerator.rendered
    assert not fakes.FakeLLM.asked


def test_the_same_recipe_gives_the_same_summary(place: Path, tmp_path: Path) -> None:
    first, second = run(recipe(), "x", place), run(recipe(), "x", tmp_path / "other")
    first.pop("seconds")
    second.pop("seconds")
    assert first == second


def test_the_gate_comes_before_every_render(place: Path) -> None:
    """A rewrite of the query with an unsafe word keeps it, and so is never rendered; neither is the query."""
    run(recipe(), "x", place, until="evolve")
    assert not [text for text in fakes.FakeGenerator.rendered if "gory" in text]
    with Run(place) as opened:
        dropped = [row for query, row in opened.database.rewrites("evolve") if query.text == "gory star" and row.round]
        assert len(dropped) == 4
        assert {row.dropped for row in dropped} <= {"unsafe", "too long"}
        assert all(row.total is None for row in dropped)


def test_sft_and_dpo_queries_are_disjoint_slices(place: Path) -> None:
    run(recipe(), "x", place)
    with Run(place) as opened:
        evolved = {query.text for query, _ in opened.database.rewrites("evolve")}
        sampled = {query.text for query, _ in opened.database.rewrites("sample")}
    assert evolved == set(QUERIES[:3])
    assert sampled == set(QUERIES[3:])


def test_stages_keep_the_flags_of_their_own_queries(place: Path) -> None:
    """The same wish with other flags is the same to a judge, and not to whoever reads the run."""
    Path("q.txt").write_text("red ball -motion 3 --ar 16:9 -neg blur\nblue box\ntiny ring")
    Path("p.txt").write_text("red ball -motion 9 seed7 --ar 16:9 -neg blur\nblue box -gs 20")
    chosen = recipe(sample={"queries": {"source": "p.txt"}})
    run(chosen, "x", place, until="sample")
    with Run(place) as opened:
        pipeline = Pipeline(chosen, opened)
        for stage in chosen.stage[:2]:
            assert list(pipeline.kept(stage.name)) == pipeline.queries(stage.queries)


def test_candidates_share_their_noise(place: Path) -> None:
    run(recipe(), "x", place)
    seeds = {(b[0].seed) for b in fakes.FakeGenerator.batches if b}
    with Run(place) as opened:
        pipeline = Pipeline(recipe(), opened)
        assert pipeline.seeds("evolve", 1) == pipeline.seeds("evolve", 2)[:1]
        expected = {*pipeline.seeds("evolve", 1), *pipeline.seeds("sample", 1), *pipeline.seeds("evaluate/mine", 2)}
    assert seeds <= expected


def test_another_recipe_in_the_same_directory_is_refused(place: Path) -> None:
    run(recipe(), "x", place, until="evolve")
    with pytest.raises(RunError, match="another recipe"):
        run(recipe(evolve={"rounds": 1}), "x", place)


def test_stages_can_be_done_one_by_one(place: Path) -> None:
    summary = run(recipe(), "x", place, until="evolve")
    assert not summary["finished"]
    with Run(place) as opened:
        pipeline = Pipeline(recipe(), opened)
        with pytest.raises(RunError, match="needs 'sample', which is not done"):
            pipeline.do("pairs")
        assert pipeline.next_of("sample") == "sample"
        pipeline.do("sample")
        pipeline.do("pairs")
        assert export(pipeline, "pairs", place / "pairs.jsonl") == len(opened.database.pairs("pairs"))
        assert export(pipeline, "scores", place / "scores.jsonl") > 0
        rows = [json.loads(line) for line in (place / "pairs.jsonl").read_text().splitlines()]
        assert rows[0]["prompt"][0]["content"].startswith("Rewrite for video: ")
        assert rows[0]["chosen"][0]["role"] == "assistant"
        with pytest.raises(UnknownName, match="did you mean 'pairs'"):
            export(pipeline, "pears", place / "x.jsonl")


def test_an_evaluation_on_own_queries_costs_only_what_is_new(place: Path) -> None:
    run(recipe(), "x", place)
    Path("mine.txt").write_text("red ball\nnew thing\n")

    def evaluate(*systems: str) -> tuple[dict[str, Any], int]:
        """What an evaluation found, without its times, and how often anything was rendered for it."""
        fakes.FakeGenerator.rendered.clear()
        with Run(place) as opened:
            summary = evaluate_file(Pipeline(recipe(), opened), Path("mine.txt"), systems, 1)
        assert summary.pop("seconds").keys() == {"evaluate:mine.txt"}
        return summary, fakes.FakeGenerator.rendered.total()

    first, paid = evaluate("raw", "base")
    assert first["benchmarks"] == {"mine.txt": {"queries": 2, "seeds": 1}}
    assert {(row["a"], row["b"]) for row in first["comparisons"]} == {("base", "raw")}
    assert (first["renders"], paid) == ({"evaluate:mine.txt": 4}, 4)
    assert first["losses"] == {}
    again, paid = evaluate("raw", "base")
    assert (again, paid) == ({**first, "renders": {"evaluate:mine.txt": 0}}, 0)
    assert evaluate("raw", "base", "other")[1] == 2
    Path("mine.txt").write_text("red ball\nnew thing\nbroken thing\n")
    more, paid = evaluate("raw", "base")
    assert (more["renders"], paid) == ({"evaluate:mine.txt": 0}, 2)
    assert more["losses"] == {"render": 2}
    with Run(place) as opened:
        assert opened.database.evaluation("mine.txt") == {}  # which may be a benchmark of the recipe


def test_the_rows_of_an_edited_file_are_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(recipe(), "x", place)
    stored: list[str] = []
    with Run(place) as opened:
        add = opened.database.add_evaluation
        monkeypatch.setattr(
            opened.database, "add_evaluation", lambda name, *rest: (stored.append(name), add(name, *rest))
        )
        for text in ("red ball", "blue box"):
            Path("mine").write_text(text)
            evaluate_file(Pipeline(recipe(), opened), Path("mine"), ["raw"], 1)
        assert [[q.text for q in opened.database.evaluation(name)["raw"]] for name in stored] == [
            ["red ball"],
            ["blue box"],
        ]
        assert len(opened.database.evaluation("mine")["raw"]) == len(QUERIES)


def test_a_stage_is_asked_for_by_a_name_of_its_kind(place: Path) -> None:
    run(recipe(), "x", place, until="evolve")
    with Run(place) as opened:
        pipeline = Pipeline(recipe(), opened)
        assert pipeline.next_of("sample", "sample") == "sample"
        with pytest.raises(UnknownName, match="unknown sample stage 'evolve'; available: sample"):
            pipeline.next_of("sample", "evolve")
        with pytest.raises(UnknownName, match="unknown stage 'smaple'; did you mean 'sample'"):
            pipeline.do("smaple")


def test_losses_are_listed(place: Path) -> None:
    Path("q.txt").write_text("broken ball\nslow box\nred star\nblue ring\nfine cross")
    summary = run(recipe(), "x", place)
    assert summary["losses"]["render"] > 0
    assert summary["losses"]["timeout"] > 0


def test_too_few_queries_are_said_before_anything_is_paid(place: Path) -> None:
    with pytest.raises(UserError, match="has only 5"):
        run(recipe(evolve={"queries": {"source": "q.txt", "take": 9}}), "x", place)
    assert not fakes.FakeGenerator.rendered


def test_status_says_what_is_done_and_what_is_left(place: Path) -> None:
    run(recipe(), "x", place, until="evolve")
    with Run(place) as opened:
        rows = {row.name: row for row in status(Pipeline(recipe(), opened))}
    assert [row.state for row in rows.values()] == ["done", "new", "new", "new"]
    assert rows["evolve"].planned == 3 * (1 + 2 * 2)
    assert 0 < rows["evolve"].renders <= rows["evolve"].planned
    assert rows["sample"].planned == 6
    assert rows["sample"].seconds_left == pytest.approx(6 * rows["evolve"].seconds / rows["evolve"].renders)
    assert rows["evaluate"].planned == 5 * 2 * 3
    assert rows["pairs"].seconds_left == 0


def test_going_on_under_other_versions_is_warned_about(
    place: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(), "x", place, until="evolve")
    assert not caplog.messages
    began = environment(recipe())
    monkeypatch.setattr("promptreel.pipeline.environment", lambda recipe: {**began, "torch": "1.0", "threads": "7"})
    run(recipe(), "x", place, until="sample")
    run(recipe(), "x", place)
    assert sum("goes on with 1.0" in message for message in caplog.messages) == 2
    assert sum("goes on with 7" in message for message in caplog.messages) == 2
    with Run(place) as opened:
        assert opened.database.environments() == [began, {**began, "torch": "1.0", "threads": "7"}]


def test_a_report_that_raises_stops_the_run_with_everything_stored(place: Path) -> None:
    """As a signal does: the run goes on where it stopped and ends as an unbroken one."""
    whole = run(recipe(), "x", place.with_name("whole"))
    calls = 0

    def report(what: str, done: int, of: int) -> None:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise Interrupted("stop")

    for _ in range(60):
        fakes.FakeGenerator.rendered.clear()
        try:
            broken = run(recipe(), "x", place, report)
            break
        except Interrupted:
            continue
    for summary in (whole, broken):
        summary.pop("seconds")
    assert broken == whole


def test_an_export_into_no_directory_is_one_line(place: Path) -> None:
    run(recipe(), "x", place, until="sample")
    with Run(place) as opened, pytest.raises(UserError, match="there is no directory"):
        export(Pipeline(recipe(), opened), "scores", place / "no" / "scores.jsonl")


def test_a_stage_at_work_says_how_long_it_has_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was killed: what is left is estimated from it."""
    monkeypatch.setattr("promptreel.pipeline.stages.KEPT", 0.0)
    seen = []

    def look(what: str, done: int, whole: int) -> None:
        with Run(place, alone=False) as opened:
            seen.append(status(Pipeline(recipe(), opened))[0])

    run(recipe(), "x", place, look, until="evolve")
    assert seen[-1].state == "running"
    assert seen[-1].seconds > 0
    assert seen[-1].seconds_left is not None


def test_a_run_goes_into_no_directory_of_other_things(place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="holds other things than a run"):
        run(recipe(), "x", place)
    assert [path.name for path in place.iterdir()] == ["thesis.tex"]
