"""Batches are planned from the ledger, submitted at once, and stored whole as they finish."""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import fakes
import pytest
from sqlalchemy import delete, select
from steps import Backwards, TwoAtOnce, Watched, resources, step, writer

from promptreel import registry
from promptreel.errors import Interrupted, RunError
from promptreel.execution.batches import silent
from promptreel.execution.step import Resources, Step
from promptreel.protocols import Engine
from promptreel.store import Run
from promptreel.store.tables import batches, clips
from promptreel.types import Candidate, Clip, Component, Failure, Query, RenderRequest

BALL, BOX = Query("red ball"), Query("blue box")
TEN = [RenderRequest(f"prompt {n}", "", 1) for n in range(10)]


def texts(of: Sequence[Sequence[RenderRequest]]) -> list[list[str]]:
    return [[request.prompt.removeprefix("prompt ") for request in batch] for batch in of]


def lose(run: Run, requests: Sequence[RenderRequest]) -> None:
    """Take clips out of the database, as if the process had been killed before it stored them."""
    with run.database.writing() as connection:
        connection.execute(delete(clips).where(clips.c.id.in_([r.clip_id("generator-fake") for r in requests])))


def ledger(run: Run) -> list[tuple[str, str, int, str, str | None, bool, bool]]:
    with run.database.reading() as connection:
        columns = [batches.c[name] for name in ("step", "kind", "number", "part", "halved", "done", "cached")]
        rows = connection.execute(select(*columns).where(batches.c.run == run.records.run).order_by(*columns[:4])).all()
    return [tuple(row) for row in rows]  # type: ignore[misc]


# Plans


def test_a_step_submits_each_kind_of_work_once(run: Run) -> None:
    engine = Watched()
    made = step(run, "evolve/1", engine=engine)
    proposed = made.write(writer(2), "rewrite", [{"query": "red ball"}] * 5)
    made.try_out([Candidate(BALL, text, 1) for text in proposed if text], [0, 1])
    assert engine.submitted == [
        ("llm_worker", [2, 2, 1]),
        ("judge_worker", [5]),
        ("render_worker", [4, 4, 2]),
        ("reward_worker", [10]),
    ]
    made.try_out([Candidate(BALL, text, 1) for text in proposed if text], [0, 1])
    assert len(engine.submitted) == 4  # everything was found


def test_a_resumed_step_computes_the_same_batches(run: Run) -> None:
    """Without the clips that an earlier step has, and whatever was stored of its own."""
    step(run, "earlier").render(TEN[2:4])
    fakes.FakeGenerator.batches.clear()
    step(run, "step").render(TEN)
    assert texts(fakes.FakeGenerator.batches) == [["0", "1", "4", "5"], ["6", "7", "8", "9"]]
    lose(run, TEN[8:9])
    fakes.FakeGenerator.batches.clear()
    step(run, "step").render(TEN)
    assert texts(fakes.FakeGenerator.batches) == [["6", "7", "8", "9"]]


def test_a_step_that_asks_for_more_keeps_its_batches_and_adds_others(run: Run) -> None:
    made = step(run, "step")
    made.render(TEN[:3])
    made.render(TEN)
    assert texts(fakes.FakeGenerator.batches) == [["0", "1", "2"], ["3", "4", "5", "6"], ["7", "8", "9"]]
    lose(run, TEN)
    step(run, "step").render(TEN)
    assert texts(fakes.FakeGenerator.batches[3:]) == texts(fakes.FakeGenerator.batches[:3])


def test_an_item_that_a_stopped_step_left_goes_over_to_the_next_that_needs_it(run: Run) -> None:
    """As in an evaluation of a file between two sittings of a run."""
    step(run, "first").render(TEN[:8])
    lose(run, TEN[4:8])
    fakes.FakeGenerator.batches.clear()
    found = step(run, "second").render(TEN[6:])
    assert len(found) == 4
    step(run, "first").render(TEN[:8])
    assert texts(fakes.FakeGenerator.batches) == [["6", "7", "8", "9"], ["4", "5"]]


def test_results_are_the_same_whatever_batch_ends_first(run: Run, tmp_path: Path) -> None:
    asked = [Candidate(BALL, f"red ball {n}", 1) for n in range(10)]
    with Run(tmp_path / "other") as other:
        assert step(run, "s").try_out(asked, [0]) == step(other, "s", engine=Backwards()).try_out(asked, [0])
        assert ledger(run) == ledger(other)


def test_a_result_that_was_stored_before_stays_as_it_was(run: Run) -> None:
    """A batch of which one clip was lost is rendered whole; the other clips keep their first results."""
    step(run, "step").render(TEN[:4])
    lose(run, TEN[:1])
    with run.database.writing() as connection:
        connection.execute(clips.update().values(fps=5.0))
    first = step(run, "step").render(TEN[:4])
    assert list(first.values()) == [8.0, 5.0, 5.0, 5.0]
    assert step(run, "step").render(TEN[:4]) == first


def test_progress_counts_items_of_the_step_that_are_stored(run: Run) -> None:
    step(run, "earlier").render(TEN[:2])
    told: list[tuple[str, int, int]] = []
    shared = resources(run, progress=lambda *given: told.append(given))
    Step(shared, "step").render(TEN)
    assert told == [("step: render", 0, 8), ("step: render", 4, 8), ("step: render", 8, 8)]
    lose(run, TEN[6:7])
    told.clear()
    Step(shared, "step").render(TEN)
    assert told == [("step: render", 4, 8), ("step: render", 8, 8)]


# Stops


class Signal:
    """A progress callback that stops the run after so many reports."""

    def __init__(self, reports: int) -> None:
        self.left = reports

    def __call__(self, *given: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted("stop")


@pytest.mark.parametrize("reports", range(4))
def test_an_interruption_keeps_the_batches_that_are_stored(run: Run, reports: int) -> None:
    engine = Watched()
    made = resources(run, engine, Signal(reports))
    with pytest.raises(Interrupted):
        Step(made, "step").render(TEN)
    assert len(fakes.FakeGenerator.batches) == reports
    assert engine.cancelled == ([3 - reports] if 0 < reports < 3 else [])
    step(run, "step").render(TEN)
    assert fakes.FakeGenerator.rendered.total() == 10


class Breaking(fakes.FakeGenerator):
    """A generator that cannot render some prompts, and would not render any others after that."""

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        if any(request.prompt == "prompt 4" for request in requests):
            raise OSError("the weights are gone")
        return super().render(requests)


def using(run: Run, generator: str, engine: Engine | None = None) -> Resources:
    """Return resources whose generator is one of this file."""
    registry.register("generator", generator.lower(), f"test_batches:{generator}")
    found = resources(run, engine)
    found.generators["main"] = Component("generator", generator.lower())  # type: ignore[index]
    return found


def test_an_error_that_every_batch_would_meet_stops_the_step_and_what_is_stored_stays(run: Run) -> None:
    engine = Watched()
    with pytest.raises(RunError, match="generator 'breaking' cannot be used: OSError: the weights are gone"):
        Step(using(run, "Breaking", engine), "step").render(TEN)
    assert engine.cancelled == [1]
    assert texts(fakes.FakeGenerator.batches) == [["0", "1", "2", "3"]]
    step(run, "step").render(TEN)
    assert fakes.FakeGenerator.rendered.total() == 10


@pytest.mark.parametrize("cause", ["error", "signal"])
def test_batches_at_work_are_stored_before_a_step_stops(run: Run, cause: str) -> None:
    more = [*TEN, *(RenderRequest(f"prompt {n}", "", 1) for n in range(10, 20))]
    engine = TwoAtOnce()
    shared = using(run, "Breaking" if cause == "error" else "Cramped", engine)
    shared.progress = Signal(2) if cause == "signal" else silent
    with pytest.raises(RunError if cause == "error" else Interrupted):
        Step(shared, "step").render(more)
    first, second, third = ["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8", "9", "10", "11"]
    assert texts(fakes.FakeGenerator.batches) == ([first, third] if cause == "error" else [first, second, third])
    assert engine.cancelled == [2]
    step(run, "step").render(more)
    assert fakes.FakeGenerator.rendered.total() == 20


# Halving


class Cramped(fakes.FakeGenerator):
    """A generator whose memory is enough for so many clips, none of which may be large."""

    largest: ClassVar[int] = 99

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        if len(requests) > self.largest or any("large" in request.prompt for request in requests):
            self.batches.append(list(requests))
            raise MemoryError(f"no room for {len(requests)} clips")
        if any("raise" in request.prompt for request in requests):
            raise ZeroDivisionError("division by zero")
        return super().render(requests)


@pytest.fixture
def cramped(run: Run, monkeypatch: pytest.MonkeyPatch) -> Resources:
    monkeypatch.setattr(Cramped, "largest", 3)
    return using(run, "Cramped")


def test_a_batch_that_memory_is_too_small_for_is_halved_and_a_resumed_run_halves_it_too(
    run: Run, cramped: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    Step(cramped, "step").render(TEN)
    wholes, halves = [["0", "1", "2", "3"], ["4", "5", "6", "7"]], [["0", "1"], ["2", "3"], ["4", "5"], ["6", "7"]]
    assert texts(fakes.FakeGenerator.batches) == [*wholes, ["8", "9"], *halves]
    assert [(number, part, halved, done) for _, _, number, part, halved, done, _ in ledger(run)] == [
        (0, "", "memory", False),
        (0, "0", None, True),
        (0, "1", None, True),
        (1, "", "memory", False),
        (1, "0", None, True),
        (1, "1", None, True),
        (2, "", None, True),
    ]
    assert run.records.renders("step") == 10
    lose(run, [TEN[0], TEN[5]])
    monkeypatch.setattr(Cramped, "largest", 99)
    fakes.FakeGenerator.batches.clear()
    Step(using(run, "Cramped"), "step").render(TEN)
    assert texts(fakes.FakeGenerator.batches) == [["0", "1"], ["4", "5"]]


def test_a_clip_that_finds_no_room_while_others_do_fails_alone(run: Run, cramped: Resources) -> None:
    asked = [RenderRequest(prompt, "", 1) for prompt in ("red ball", "large ball", "blue box", "tiny ring")]
    for _ in range(2):  # once stored, it stays
        made = Step(cramped, "step")
        failed = {r.prompt: found for r, found in made.render(asked).items() if isinstance(found, Failure)}
        assert failed == {"large ball": Failure("memory", "MemoryError: no room for 1 clips")}
        assert +made.failures == {"memory": 1}
    assert fakes.FakeGenerator.rendered.total() == 3


def test_a_clip_that_raises_fails_alone(run: Run, cramped: Resources) -> None:
    found = Step(cramped, "step").render([RenderRequest(p, "", 1) for p in ("a", "b", "raise", "c")])
    assert [f if isinstance(f, float) else f.reason for f in found.values()] == [8.0, 8.0, "render", 8.0]
    assert {row[4] for row in ledger(run)} == {None, "memory", "render"}


def test_a_model_that_no_memory_is_enough_for_is_no_fault_of_its_clips(
    run: Run, cramped: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stored of it, so a run with more room plans and renders as an unbroken one."""
    monkeypatch.setattr(Cramped, "largest", 0)
    with pytest.raises(RunError, match=r"no memory for render, not even for one at a time .*no room for 1 clips"):
        Step(cramped, "step").render(TEN)
    assert ledger(run) == []
    fakes.FakeGenerator.batches.clear()
    monkeypatch.setattr(Cramped, "largest", 99)
    Step(using(run, "Cramped"), "step").render(TEN)
    assert [len(batch) for batch in fakes.FakeGenerator.batches] == [4, 4, 2]


class Latents:
    """Something large that a batch holds."""


class Holding(fakes.FakeGenerator):
    alive: ClassVar[list[int]] = []
    made: ClassVar[list[weakref.ref[Latents]]] = []

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        self.alive.append(sum(ref() is not None for ref in self.made))
        latents = Latents()
        self.made.append(weakref.ref(latents))
        if len(requests) > 1:
            raise MemoryError("no room")
        return super().render(requests)


def test_nothing_of_a_batch_is_in_memory_while_its_halves_are_at_work(run: Run) -> None:
    Step(using(run, "Holding"), "step").render(TEN[:4])
    assert Holding.alive == [0] * 7
