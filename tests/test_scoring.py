"""The road from words to numbers: everything is paid for once, and batches never depend on what is missing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fakes
import pytest
from promptreel.execution.desk import Desk, Writer
from promptreel.execution.scoring import Scorer

from promptreel.errors import RunError
from promptreel.execution.local_engine import LocalEngine
from promptreel.store import Run
from promptreel.types import Component, Query, RenderRequest, SamplingParams

BALL, BOX, GORY = Query("red ball"), Query("blue box"), Query("gory star")
REWARDS = {"fake": Component("reward", "fake")}


@pytest.fixture
def run(tmp_path: Path, fake_components: None) -> Iterator[Run]:
    with Run(tmp_path) as opened:
        yield opened


def scorer(run: Run) -> Scorer:
    return Scorer(run, LocalEngine(), Component("generator", "fake"), Component("judge", "fake"))


def test_a_rewrite_is_rendered_with_every_seed_and_scores_are_averaged(run: Run) -> None:
    (scored,) = scorer(run).score([(BALL, "red ball")], [1, 3], REWARDS, "evolve/0")
    assert len(scored.clips) == 2
    assert scored.dimensions["length"] == pytest.approx((8 * 7 + 1 + 8 * 7 + 3) / 2)
    assert scored.dimensions["never"] is None
    assert [row["length"] for row in scored.by_seed] == [57.0, 59.0]


def test_the_same_thing_is_paid_for_once(run: Run) -> None:
    items = [(BALL, "red ball"), (BOX, "red ball"), (BALL, "red ball")]
    first = scorer(run).score(items, [1], REWARDS, "evolve/0")
    again = scorer(run).score(items, [1], REWARDS, "sample")
    assert [s.dimensions for s in first] == [s.dimensions for s in again]
    assert fakes.FakeGenerator.rendered == {"red ball": 1}
    assert max(fakes.FakeReward.scored.values()) == 2  # once for each query


def test_what_cannot_be_rendered_is_missing_and_counted(run: Run) -> None:
    made = scorer(run)
    broken, fine = made.score([(BALL, "broken"), (BALL, "red ball")], [1, 2], REWARDS, "evolve/0")
    assert broken.dimensions == {}
    assert broken.clips == ()
    assert fine.dimensions["length"] is not None
    assert +made.losses == {"render": 2}


def test_a_resumed_step_computes_the_same_batches(run: Run) -> None:
    requests = [RenderRequest(f"prompt {n}", "", 1) for n in range(10)]
    scorer(run).render(requests[2:4], "earlier")
    fakes.FakeGenerator.batches.clear()
    scorer(run).render(requests, "step")
    whole = list(fakes.FakeGenerator.batches)
    assert [len(batch) for batch in whole] == [4, 4]  # without what an earlier step has
    run.database.engine.dispose()
    with run.database.engine.begin() as connection:  # as if killed after the first batch
        from sqlalchemy import delete

        from promptreel.store.tables import clips

        lost = [request.clip_id("generator-fake") for request in whole[1]]
        connection.execute(delete(clips).where(clips.c.id.in_(lost)))
    fakes.FakeGenerator.batches.clear()
    scorer(run).render(requests, "step")
    assert fakes.FakeGenerator.batches == [whole[1]]


def test_verdicts_are_asked_for_once(run: Run) -> None:
    verdicts = scorer(run).judge([(BALL, "a red ball"), (BALL, "a ball"), (BALL, "unreadable")], "evolve/1")
    assert [v.fidelity if v else None for v in verdicts] == [1.0, 0.5, None]
    scorer(run).judge([(BALL, "a ball")], "sample")
    assert fakes.FakeJudge.judged["a ball"] == 1


def test_replies_come_in_planned_batches_seeded_by_content(run: Run, tmp_path: Path) -> None:
    writer = Writer(Component("llm", "fake"), "brief", SamplingParams(), batch_size=2)
    asked = [BALL, BOX, BALL, Query("slow one")]
    desk = Desk(run.database, LocalEngine())
    first = desk.rewrite(writer, asked, "sample")
    assert first[0] != first[2]
    assert first[3] is None
    assert desk.losses == {"timeout": 1}
    seeds = [seed for batch in fakes.FakeLLM.asked for seed in batch]
    assert [len(batch) for batch in fakes.FakeLLM.asked] == [2, 2]
    assert len(set(seeds)) == 4
    assert Desk(run.database, LocalEngine()).rewrite(writer, asked, "sample") == first
    assert len(fakes.FakeLLM.asked) == 2
    assert Desk(run.database, LocalEngine()).rewrite(writer, asked, "later") != first
    with Run(tmp_path / "other") as other:
        Desk(other.database, LocalEngine()).rewrite(replace(writer, batch_size=4), [*asked, Query("more")], "sample")
    assert fakes.FakeLLM.asked[-2][:4] == seeds  # whatever else is asked at once


def test_what_does_not_pass_is_drawn_again_and_warmer(run: Run) -> None:
    """The ball passes at the third attempt, the box loses a fact every time, and nothing harmless is drawn for gore."""
    steps: list[str] = []

    def check(items: list[tuple[Query, str]], step: str) -> list[str | None]:
        steps.append(step)
        reasons = {GORY: "unsafe", BOX: "fidelity", BALL: "fidelity" if len(steps) < 3 else None}
        return [reasons[query] for query, _ in items]

    cold = Writer(Component("llm", "fake"), "brief", SamplingParams(0.3), attempts=4)
    assert (cold.again().sampling.temperature, Writer(cold.llm).again().sampling.temperature) == (0.7, 1.0)
    desk = Desk(run.database, LocalEngine())
    ball, gory, box, slow = desk.checked(cold, [BALL, GORY, BOX, Query("slow")], "e", check)
    assert steps == ["e", "e/1", "e/2", "e/3"]
    assert [len(seeds) for seeds in fakes.FakeLLM.asked] == [4, 4, 4, 3]
    (third,) = desk.rewrite(cold.again(), [BALL], "e/2")
    assert ball == third
    assert box == desk.rewrite(cold, [BALL, GORY, BOX], "e")[2]
    assert (gory, slow) == (None, None)
    assert desk.losses == {"timeout": 4}  # what the policy withholds is no loss


def test_drafts_for_one_query_differ_however_they_are_batched(run: Run) -> None:
    for size in (1, 2):
        writer = Writer(Component("llm", "fake"), "brief", batch_size=size)
        assert len(set(Desk(run.database, LocalEngine()).rewrite(writer, [BALL] * 4, "sample"))) == 4


def test_what_is_withheld_is_never_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can judge the ball; gore is harmful at first, and then there is no reply."""
    monkeypatch.setattr(
        Desk, "rewrite", lambda self, w, asked, step: [None if q == GORY and step == "e/1" else "x" for q in asked]
    )
    reasons = {GORY: "unsafe", BALL: "no verdict"}
    desk = Desk(run.database, LocalEngine())
    writer = Writer(Component("llm", "fake"), "brief", attempts=2)
    assert desk.checked(writer, [GORY, BALL], "e", lambda items, step: [reasons[q] for q, _ in items]) == [None, None]
    assert not desk.losses


def test_the_engine_keeps_the_workers_used_last() -> None:
    built: list[str] = []

    def factory(name: str) -> object:
        built.append(name)
        return lambda batch: [f"{name}{item}" for item in batch]

    engine = LocalEngine(resident=2)
    assert list(engine.map(factory, {"name": "a"}, [1, 2, 3], 2)) == [["a1", "a2"], ["a3"]]
    for name in "abac":
        list(engine.map(factory, {"name": name}, [1], 1))
    assert built == ["a", "b", "c"]
    list(engine.map(factory, {"name": "b"}, [1], 1))
    assert built == ["a", "b", "c", "b"]


def test_a_video_model_that_changes_meanwhile_stops_the_run_before_its_clips_get_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scorer(run)
    made.render([RenderRequest("blue box", "", 1)], "step")
    made.engine = LocalEngine()  # another process, as after a crash
    monkeypatch.setattr(fakes.FakeGenerator, "__init__", lambda self: setattr(self, "fingerprint", "other weights"))
    with pytest.raises(RunError, match="changed while the run was at work"):
        made.render([RenderRequest("red ball", "", 1)], "step")


def test_a_clip_that_finds_no_room_while_others_do_is_lost_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none of a batch finds room, that is no fault of its clips: see test_faults."""
    render = fakes.FakeGenerator.render

    def cramped(self: fakes.FakeGenerator, requests: list[RenderRequest]) -> object:
        if len(requests) > 1 or "large" in requests[0].prompt:
            raise MemoryError("no room")
        return render(self, requests)

    monkeypatch.setattr(fakes.FakeGenerator, "render", cramped)
    asked = [RenderRequest(prompt, "", 1) for prompt in ("red ball", "large ball", "blue box", "tiny ring")]
    for _ in range(2):  # once stored, it stays
        made = scorer(run)
        assert [request.prompt for request, clip in made.render(asked, "step").items() if clip is None] == [
            "large ball"
        ]
        assert +made.losses == {"memory": 1}
    assert fakes.FakeGenerator.rendered.total() == 3
