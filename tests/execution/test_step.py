"""A step turns work into stored results: everything is paid for once, and what cannot be had is counted."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import fakes
import pytest
from steps import resources, step, writer

from promptreel import registry
from promptreel.errors import RunError
from promptreel.execution.step import Step
from promptreel.execution.workers import UNREADABLE
from promptreel.policy import NO_VERDICT
from promptreel.store import Run
from promptreel.store.records import Records
from promptreel.types import Candidate, Clip, Completion, Component, Failure, Query, RenderRequest, Scores

BALL, BOX, GORY = Query("red ball"), Query("blue box"), Query("gory star")
RED_BALL = Candidate(BALL, "red ball", round=1)


# Clips and scores


def test_a_candidate_is_rendered_with_every_seed_and_its_scores_are_averaged(run: Run) -> None:
    made = step(run, "evolve/0")
    (measured,) = made.measure([RED_BALL], [0, 3])
    brightness = [float((8 * 7 + made.seed(index)) % 256) for index in (0, 3)]
    assert [(clip.seed_index, clip.scores["length"]) for clip in measured.clips] == list(
        zip([0, 3], brightness, strict=True)
    )
    assert measured.scores == {"length": pytest.approx(sum(brightness) / 2), "never": None}
    assert all(clip.clip in run.clips for clip in measured.clips if clip.clip)


def test_the_same_clip_and_score_are_paid_for_once(run: Run) -> None:
    asked = [RED_BALL, Candidate(BOX, "red ball", round=1), RED_BALL]
    first = step(run, "evolve/0", noise="n").measure(asked, [1])
    again = step(run, "sample", noise="n").measure(asked, [1])
    assert [c.scores for c in first] == [c.scores for c in again]
    assert fakes.FakeGenerator.rendered == {"red ball": 1}
    assert max(fakes.FakeReward.scored.values()) == 2  # once for each query
    assert run.records.renders("evolve") == 1
    assert run.records.renders("sample") == 0


def test_a_further_measurement_adds_clips_to_a_candidate(run: Run) -> None:
    made = step(run, "evolve/0")
    (measured,) = made.measure(made.measure([RED_BALL], [0]), [1, 2])
    assert [clip.seed_index for clip in measured.clips] == [0, 1, 2]
    assert fakes.FakeGenerator.rendered == {"red ball": 3}


def test_a_clip_that_cannot_be_rendered_has_a_reason_and_no_scores(run: Run) -> None:
    made = step(run, "evolve/0")
    broken, fine = made.measure([Candidate(BALL, "broken"), RED_BALL], [1, 2])
    assert broken.scores == {}
    assert [(clip.clip, clip.failure) for clip in broken.clips] == [(None, "render")] * 2
    assert fine.scores["length"] is not None
    assert +made.failures == {"render": 2}


def test_candidates_start_from_the_noise_of_the_stage_whatever_their_step(run: Run) -> None:
    stage, other = step(run, "evolve/1", noise="evolve"), step(run, "evolve/2", noise="evolve")
    assert [stage.seed(n) for n in range(3)] == [other.seed(n) for n in range(3)]
    assert stage.sub("evolve/1/again").seed(0) == stage.seed(0)
    assert len({step(run, name).seed(n) for name in ("evolve", "sample") for n in range(3)}) == 6


def test_a_candidate_that_the_policy_rejects_is_not_rendered(run: Run) -> None:
    """A query as typed is a baseline: that it is too long or unfaithful does not matter, its harm does."""
    made = step(run, "evolve/0")
    asked = [
        Candidate.as_typed(BALL),
        Candidate.as_typed(GORY),
        Candidate(BOX, "a dog", round=1),
        Candidate(BOX, "unreadable box", round=1),
        Candidate(BOX, "a blue box", round=1),
    ]
    tried = made.try_out(asked, [0])
    assert [c.rejected for c in tried] == [None, "unsafe as typed", "fidelity", NO_VERDICT, None]
    assert [c.withheld for c in tried] == [None, "unsafe", None, NO_VERDICT, None]
    assert [len(c.clips) for c in tried] == [1, 0, 0, 0, 1]
    assert set(fakes.FakeGenerator.rendered) == {"red ball", "a blue box"}
    assert +made.failures == {"verdict": 1}


class Twice(fakes.FakeReward):
    def __init__(self) -> None:
        self.fingerprint = "reward-twice"


def test_two_rewards_may_not_measure_a_dimension_of_one_name(run: Run) -> None:
    registry.register("reward", "twice", "test_step:Twice")
    rewards = {name: Component("reward", name) for name in ("fake", "twice")}
    with pytest.raises(RunError, match="two rewards measure 'length'"):
        step(run, "evolve/0").measure([RED_BALL], [0], rewards)


class Moody(fakes.FakeReward):
    """A reward model that fails at some clips, and describes the others."""

    def __init__(self) -> None:
        self.fingerprint = "reward-moody"

    def score(self, items: list[tuple[Query, Clip]]) -> list[Scores]:
        if any("cursed" in query.text for query, _ in items):
            raise KeyError("cursed")
        nan = float("nan")
        return [{"length": nan if "odd" in query.text else 1.0, "never": None} for query, _ in items]

    def explain(self, query: Query, clip: Clip) -> str:
        return f"a clip of {query.text}"


def test_a_clip_at_which_a_reward_fails_has_no_scores_and_the_others_have(run: Run) -> None:
    registry.register("reward", "moody", "test_step:Moody")
    made = step(run, "evolve/0")
    asked = [Candidate(Query(text), text) for text in ("cursed star", "odd ring", "red ball")]
    measured = made.measure(asked, [0], {"moody": Component("reward", "moody")})
    assert [c.scores["length"] for c in measured] == [None, None, 1.0]
    assert +made.failures == {"reward": 2}
    assert run.records.failure_details() == {"reward": "KeyError: 'cursed'"}
    ids = [clip.clip for c in measured for clip in c.clips if clip.clip]
    assert run.records.explanations(Query("red ball"), ids) == {ids[2]: "a clip of red ball"}


def test_a_clip_of_two_queries_is_described_for_each(run: Run) -> None:
    registry.register("reward", "moody", "test_step:Moody")
    asked = [Candidate(Query(text), "one prompt") for text in ("blue box", "red ball")]
    measured = step(run, "evolve/0").measure(asked, [0], {"moody": Component("reward", "moody")})
    (clip,) = {clip.clip for c in measured for clip in c.clips if clip.clip}
    for text in ("blue box", "red ball"):
        assert run.records.explanations(Query(text), [clip]) == {clip: f"a clip of {text}"}
    assert Records(run.database, "another run").explanations(Query("red ball"), [clip]) == {}


def test_a_damaged_clip_is_rendered_again_by_its_own_batch_before_it_is_scored(run: Run) -> None:
    asked = [Candidate(BALL, f"red ball {n}", round=1) for n in range(6)]
    made = step(run, "evolve/0")
    requests = [RenderRequest(c.text, "", made.seed(0)) for c in asked]
    made.render(requests)
    batches = list(fakes.FakeGenerator.batches)
    assert [len(batch) for batch in batches] == [4, 2]
    key = requests[1].clip_id("generator-fake")
    path = run.clips._path(key)
    path.write_bytes(path.read_bytes()[:40])
    fakes.FakeGenerator.batches.clear()
    measured = made.measure(asked, [0])
    assert fakes.FakeGenerator.batches == [batches[0]]
    assert (run.clips.read(key).frames == (len("red ball 1") * 7 + made.seed(0)) % 256).all()
    assert measured[1].scores["length"] == run.clips.read(key).frames.mean()
    assert UNREADABLE not in made.failures


def test_a_video_model_that_changes_meanwhile_stops_the_run_before_its_clips_get_lost(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = step(run, "step")
    made.render([RenderRequest("blue box", "", 1)])
    made.resources.engine.release()  # as if another process went on, after a crash
    monkeypatch.setattr(fakes.FakeGenerator, "__init__", lambda self, profile: setattr(self, "fingerprint", "other"))
    with pytest.raises(RunError, match="changed while the run was at work"):
        made.render([RenderRequest("red ball", "", 1)])


def test_clips_of_another_generator_are_kept_apart(run: Run) -> None:
    shared = resources(run)
    shared.generators["quick"] = Component("generator", "fake", {"name": "quick"})  # type: ignore[index]
    made = Step(shared, "evolve/0")
    (measured,) = made.measure(made.measure([RED_BALL], [0], generator="quick"), [0])
    assert [clip.generator for clip in measured.clips] == ["quick", "main"]
    assert len({clip.clip for clip in measured.clips}) == 2
    assert measured.full_clips == measured.clips[1:]


# Verdicts


def test_a_verdict_is_asked_for_once_and_a_missing_one_is_counted(run: Run) -> None:
    made = step(run, "evolve/1")
    judged = made.judge([Candidate(BALL, text) for text in ("a red ball", "a ball", "unreadable")])
    assert [c.verdict.fidelity if c.verdict else None for c in judged] == [1.0, 0.5, None]
    assert [(c.tokens is not None, c.fits) for c in judged] == [(True, True)] * 3
    assert +made.failures == {"verdict": 1}
    step(run, "sample").judge([Candidate(BALL, "a ball")])
    assert fakes.FakeJudge.judged["a ball"] == 1


class Stern(fakes.FakeJudge):
    def __init__(self) -> None:
        self.fingerprint = "judge-stern"

    def judge(self, candidates: list[Candidate]) -> list[None]:
        return [None for _ in candidates]


def test_a_step_may_have_a_judge_of_its_own(run: Run) -> None:
    registry.register("judge", "stern", "test_step:Stern")
    made = step(run, "evaluate/mine")
    made.judge([RED_BALL])
    (judged,) = made.sub("evaluate/mine", Component("judge", "stern")).judge([RED_BALL])
    assert judged.verdict is None
    assert fakes.FakeJudge.judged["red ball"] == 1


# Completions


def test_completions_come_in_planned_batches_seeded_by_content(run: Run, tmp_path: Path) -> None:
    asked = [{"query": query} for query in ("red ball", "blue box", "red ball", "slow one")]
    made = step(run, "sample/0")
    first = made.write(writer(2), "rewrite", asked)
    assert first[0] != first[2]
    assert first[3] is None
    assert +made.failures == {"timeout": 1}
    seeds = [seed for batch in fakes.FakeLLM.asked for seed in batch]
    assert [len(batch) for batch in fakes.FakeLLM.asked] == [2, 2]
    assert len(set(seeds)) == 4
    assert step(run, "sample/0").write(writer(2), "rewrite", asked) == first
    assert len(fakes.FakeLLM.asked) == 2
    assert step(run, "later").write(writer(2), "rewrite", asked) != first
    with Run(tmp_path / "other") as other:
        step(other, "sample/0").write(writer(4), "rewrite", [*asked, {"query": "more"}])
    assert fakes.FakeLLM.asked[-2][:4] == seeds  # whatever else is asked at once


def test_drafts_for_one_query_differ_however_they_are_batched(run: Run) -> None:
    for size in (1, 2):
        drafts = step(run, f"sample/{size}").write(writer(size), "rewrite", [{"query": "red ball"}] * 4)
        assert len(set(drafts)) == 4


def test_a_completion_keeps_its_usage_and_a_failed_one_its_reason(run: Run) -> None:
    """Also the completions that a step finds in the store."""
    conversations = [writer().ask("rewrite", query=text) for text in ("red ball", "slow box", "blue box")]
    first = step(run, "sample/0").complete(writer(3), conversations)
    assert first[1] == Failure("timeout")
    assert isinstance(first[0], Completion)
    assert (first[0].prompt_tokens, first[0].completion_tokens, first[0].cost) == (3, 2, 0.1)
    assert step(run, "sample/0").complete(writer(3), conversations) == first
    assert run.records.usage("sample") == {"prompt_tokens": 6, "completion_tokens": 4, "cost": pytest.approx(0.2)}
    assert run.records.usage("evolve") == {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0}


class Away(fakes.FakeLLM):
    """A server that does not answer, or not every request."""

    silent: ClassVar[str] = ""

    def complete(self, *given: object) -> list[Completion | Failure]:
        found = super().complete(*given)  # type: ignore[arg-type]
        return [Failure("connection", "refused") if self.silent in getattr(r, "text", "") else r for r in found]


def test_a_server_that_answers_nothing_stops_the_run_and_nothing_is_stored(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register("llm", "away", "test_step:Away")
    away = replace(writer(2), llm=Component("llm", "away"))
    asked = [{"query": query} for query in ("red ball", "blue box")]
    with pytest.raises(RunError, match="the same command goes on from here"):
        step(run, "sample/0").write(away, "rewrite", asked)
    monkeypatch.setattr(Away, "silent", "box")
    made = step(run, "sample/0")
    texts = made.write(away, "rewrite", asked)
    assert [text is None for text in texts] == [False, True]
    assert +made.failures == {"connection": 1}
