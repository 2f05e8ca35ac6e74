"""Several runs in one database: each plans its own batches, and nobody pays for what another run has stored."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import recipe
from sqlalchemy import select

from promptreel.config import Recipe
from promptreel.pipeline import Pipeline, run
from promptreel.pipeline.status import status
from promptreel.store import Run, Summary
from promptreel.store.tables import batches

FIRST, MORE = recipe(), recipe(evolve={"queries": {"source": "q.txt", "take": 4}})
"""Two recipes that ask for much of the same."""


@pytest.fixture
def url(place: Path) -> str:
    return f"sqlite:///{place.parent / 'shared' / 'runs.db'}"


@pytest.fixture
def into(place: Path, url: str) -> Callable[[Recipe, str], Summary]:
    """Return a function that runs a recipe in a directory of its own and the shared database."""
    (place.parent / "shared").mkdir()
    return lambda recipe, name: run(recipe, place.with_name(name), database=url)


def values(summary: Summary) -> dict[str, Any]:
    """Return a summary without its times and the number of clips that were paid for."""
    return {key: value for key, value in summary.to_json().items() if key not in ("seconds", "renders")}


def rows(directory: Path, database: str | None = None) -> list[Any]:
    """Return everything that a run stored of its own."""
    with Run(directory, writable=False, database=database) as opened:
        records = opened.records
        candidates = [records.candidates(stage) for stage in ("evolve", "sample")]
        stages = [(r.name, r.state, r.output) for r in records.stages().values()]
        return [candidates, records.pairs("pairs"), records.evaluation("mine"), records.failures(), stages]


def test_the_same_recipe_finds_everything_and_pays_for_nothing(
    place: Path, url: str, into: Callable[[Recipe, str], Summary]
) -> None:
    first = into(FIRST, "one")
    fakes.FakeGenerator.rendered.clear()
    fakes.FakeLLM.asked.clear()
    second = into(FIRST, "two")
    assert not fakes.FakeGenerator.rendered
    assert not fakes.FakeLLM.asked
    assert values(first) == values(second)
    assert set(second.renders.values()) == {0}
    assert sum(first.renders.values()) > 0
    assert rows(place.with_name("one"), url) == rows(place.with_name("two"), url)
    with Run(place.with_name("two"), writable=False, database=url) as opened:
        assert opened.records.usage("evolve") == {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0}
        assert {row.renders for row in status(FIRST, opened)} == {0}
        with opened.database.reading() as connection:
            found = connection.execute(select(batches).where(batches.c.run == opened.records.run)).all()
    assert found
    assert all(row.cached and row.done for row in found)


def test_a_run_beside_another_is_as_it_would_be_alone(
    place: Path, url: str, into: Callable[[Recipe, str], Summary]
) -> None:
    """Its batches are its own: one of which a clip is new is rendered whole, and the others are found."""
    alone = run(MORE, place.with_name("alone"))
    of_alone = list(fakes.FakeGenerator.batches)
    into(FIRST, "one")
    fakes.FakeGenerator.batches.clear()
    beside = into(MORE, "two")
    assert values(beside) == values(alone)
    assert rows(place.with_name("two"), url) == rows(place.with_name("alone"))
    assert fakes.FakeGenerator.batches
    assert all(batch in of_alone for batch in fakes.FakeGenerator.batches)
    rendered = sum(len([r for r in batch if "broken" not in r.prompt]) for batch in fakes.FakeGenerator.batches)
    assert sum(beside.renders.values()) == rendered < sum(alone.renders.values())
    assert into(FIRST, "one").finished
    assert rows(place.with_name("one"), url)[0] != rows(place.with_name("two"), url)[0]


def test_clips_lie_beside_the_database_or_where_they_are_told_to(place: Path, url: str) -> None:
    (place.parent / "shared").mkdir()
    run(FIRST, place.with_name("one"), database=url)
    assert list((place.parent / "shared" / "clips").rglob("*.mkv"))
    assert not list(place.with_name("one").rglob("*.mkv"))
    other = place.parent / "elsewhere"
    run(FIRST, place.with_name("two"), clips=f"file://{other}")
    assert list(other.rglob("*.mkv"))
    assert not list(place.with_name("two").rglob("*.mkv"))


def test_a_run_goes_on_in_the_database_that_it_was_begun_in(
    place: Path, url: str, into: Callable[[Recipe, str], Summary]
) -> None:
    directory = place.with_name("one")
    run(FIRST, directory, database=url, until="evolve")
    assert not (directory / "run.db").exists()
    assert run(FIRST, directory).finished  # the run knows where it was begun
    assert into(FIRST, "one").finished
    assert not (directory / "run.db").exists()
    with Run(directory, writable=False) as opened:
        assert Pipeline(FIRST, opened).is_done("evaluate")
        assert opened.clips.url == str(place.parent / "shared" / "clips")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_two_runs_work_in_one_database_at_the_same_time(
    place: Path, url: str, into: Callable[[Recipe, str], Summary]
) -> None:
    whole = values(run(MORE, place.with_name("alone")))
    into(FIRST, "zero")  # the database is there
    processes = []
    for name in ("one", "two"):
        process = os.fork()
        if process == 0:
            code = 1
            try:
                code = int(values(into(MORE, name)) != whole)
            finally:
                os._exit(code)
        processes.append(process)
    assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes] == [0, 0]
    assert rows(place.with_name("one"), url) == rows(place.with_name("two"), url) == rows(place.with_name("alone"))
