"""An evaluation on queries of one's own costs only what is new, and keeps out of the recipe's own benchmarks."""

from collections.abc import Sequence
from pathlib import Path

import fakes
import pytest
from fakes import QUERIES, recipe

from promptreel.errors import RunError, UnknownName, UserError
from promptreel.pipeline import Pipeline, run
from promptreel.pipeline.evaluate_file import evaluate_file
from promptreel.store import BenchmarkSize, Run, Summary


def evaluate(place: Path, systems: Sequence[str], file: str = "mine.txt") -> tuple[Summary, int]:
    """Return what an evaluation found, without its times, and how often anything was rendered for it."""
    fakes.FakeGenerator.rendered.clear()
    with Run(place) as opened:
        summary = evaluate_file(Pipeline(recipe(), opened), Path(file), systems, 1)
    assert summary.seconds.keys() == {f"evaluate:{file}"}
    return summary.model_copy(update={"seconds": {}}), fakes.FakeGenerator.rendered.total()


def test_only_what_is_new_is_paid_for(place: Path) -> None:
    run(recipe(), place)
    Path("mine.txt").write_text("red ball\nnew thing\n")
    first, paid = evaluate(place, ["raw", "base"])
    assert first.benchmarks == {"mine.txt": BenchmarkSize(queries=2, clips_per_prompt=1)}
    assert {(row.a, row.b) for row in first.comparisons} == {("base", "raw")}
    assert (first.renders, paid) == ({"evaluate:mine.txt": 4}, 4)
    assert first.failures == {}
    again, paid = evaluate(place, ["raw", "base"])
    assert (again, paid) == (first.model_copy(update={"renders": {"evaluate:mine.txt": 0}}), 0)
    assert evaluate(place, ["raw", "base", "other"])[1] == 2
    Path("mine.txt").write_text("red ball\nnew thing\nbroken thing\n")
    more, paid = evaluate(place, ["raw", "base"])
    assert (more.renders, paid) == ({"evaluate:mine.txt": 0}, 2)
    assert more.failures == {"render": 2}
    with Run(place) as opened:
        assert opened.records.evaluation("mine.txt") == {}  # which may be a benchmark of the recipe
        assert opened.records.failures() == {}


def test_the_run_itself_stays_as_it_was(place: Path) -> None:
    whole = run(recipe(), place)
    Path("mine.txt").write_text("red ball\nbroken thing\n")
    evaluate(place, ["raw", "base"])
    assert run(recipe(), place) == whole


def test_the_rows_of_an_edited_file_are_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(recipe(), place)
    stored: list[str] = []
    with Run(place) as opened:
        add = opened.records.add_evaluation
        monkeypatch.setattr(opened.records, "add_evaluation", lambda name, rows: (stored.append(name), add(name, rows)))
        for text in ("red ball", "blue box"):
            Path("mine").write_text(text)
            evaluate_file(Pipeline(recipe(), opened), Path("mine"), ["raw"], 1)
        rows = [opened.records.evaluation(name)["raw"] for name in stored]
        assert [[query.text for query in row] for row in rows] == [["red ball"], ["blue box"]]
        assert len(opened.records.evaluation("mine")["raw"]) == len(QUERIES)


def test_it_may_come_before_the_evaluation_of_the_recipe(place: Path) -> None:
    whole = run(recipe(), place.with_name("whole"))
    run(recipe(), place, until="pairs")
    Path("mine.txt").write_text("red ball\nnew thing\n")
    evaluate(place, ["raw", "base"])
    broken = run(recipe(), place)
    assert broken.comparisons == whole.comparisons
    assert broken.means == whole.means


def test_a_system_that_is_not_there_is_one_clear_error(place: Path) -> None:
    run(recipe(), place, until="evolve")
    Path("mine.txt").write_text("red ball")
    with pytest.raises(UnknownName, match="unknown system 'bse'; did you mean 'base'"):
        evaluate(place, ["raw", "bse"])
    with_sft = fakes.parse_recipe({**recipe().resolved(), "stage": [*_stages(), {"kind": "sft", "data": "evolve"}]})
    with Run(place) as opened:
        with pytest.raises(RunError, match="'sft' is not trained yet"):
            evaluate_file(Pipeline(with_sft, opened), Path("mine.txt"), ["raw", "sft"], 1)
        without = fakes.parse_recipe({**recipe().resolved(), "stage": _stages()[:1]})
        with pytest.raises(UserError, match="no evaluate stage"):
            evaluate_file(Pipeline(without, opened), Path("mine.txt"), None, 1)


def _stages() -> list[dict[str, object]]:
    return [stage.model_dump() for stage in recipe().stage]
