"""The state of a run: stages done and left, and about how long the rest will take."""

from pathlib import Path

import pytest
from fakes import recipe

from promptreel.pipeline import run
from promptreel.pipeline.status import StageStatus, status
from promptreel.store import Run


def test_status_says_what_is_done_and_what_is_left(place: Path) -> None:
    run(recipe(), place, until="evolve")
    with Run(place, writable=False) as opened:
        rows = {row.name: row for row in status(recipe(), opened)}
    assert [row.state for row in rows.values()] == ["done", "new", "new", "new"]
    assert rows["evolve"].planned == 3 * (1 + 2 * 2)
    assert 0 < rows["evolve"].renders <= rows["evolve"].planned
    assert rows["sample"].planned == 6
    assert rows["sample"].seconds_left == pytest.approx(6 * rows["evolve"].seconds / rows["evolve"].renders)
    assert rows["evaluate"].planned == 5 * 2 * 3
    assert rows["pairs"].seconds_left == 0


def test_a_stage_at_work_says_how_long_it_has_taken(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was killed: what is left is estimated from it."""
    monkeypatch.setattr("promptreel.execution.step.KEPT", 0.0)
    seen: list[StageStatus] = []

    def look(work: str, done: int, total: int) -> None:
        with Run(place, writable=False) as opened:
            seen.append(status(recipe(), opened)[0])

    run(recipe(), place, progress=look, until="evolve")
    assert seen[-1].state == "running"
    assert seen[-1].seconds > 0
    assert seen[-1].seconds_left is not None
    seconds = [row.seconds for row in seen]
    assert seconds == sorted(seconds)


def test_the_time_of_a_stage_is_stored_only_now_and_then(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptreel.execution.step.KEPT", 3600.0)
    seen: set[float] = set()

    def look(work: str, done: int, total: int) -> None:
        with Run(place, writable=False) as opened:
            seen.add(opened.records.stage("evolve").seconds)

    run(recipe(), place, progress=look, until="evolve")
    assert seen == {0.0}
