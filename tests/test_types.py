"""The nouns: identified by their content, and read back as they were written."""

import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptreel.types import (
    Attachment,
    Candidate,
    Fact,
    Failure,
    Message,
    Query,
    RenderRequest,
    SamplingParams,
    ScoredClip,
    Verdict,
    distinct,
    mean,
    mean_scores,
)

BALL = Query("a red ball")


# Queries


def test_a_query_is_its_text_what_to_avoid_and_its_shape() -> None:
    """Whatever else was typed changes its row alone, by which runs and reports tell queries apart."""
    assert Query("a").id == Query("a").id
    wide = Query("a", options=(("aspect", "16:9"),))
    assert len({Query("a").id, Query("b").id, Query("a", "b").id, wide.id}) == 4
    moving = Query("a", options=(("motion", "3"),))
    assert moving.id == Query("a").id
    assert moving.row_id != Query("a").row_id
    assert Query("a", options=(("aspect", "1:1"), ("aspect", "16:9"))).id == wide.id  # the last one counts


def test_attachments_are_part_of_a_query_by_content_and_role() -> None:
    """An id is as it was before there were any, where there are none."""
    frame = Attachment("first_frame", "ab" * 32, "/somewhere/a.png")
    plain, attached = Query("a"), Query("a", attachments=(frame,))
    assert len({q.id for q in (plain, attached, Query("a", attachments=(replace(frame, role="image"),)))}) == 3
    assert len({q.row_id for q in (plain, attached, Query("a", attachments=(frame, frame)))}) == 3
    moved = Query("a", attachments=(replace(frame, uri="https://elsewhere/b.png"),))
    assert (moved.id, moved.row_id) == (attached.id, attached.row_id)
    assert plain.id == Query("a", attachments=()).id


def test_a_clip_is_the_generator_the_prompt_the_negative_prompt_the_seed_and_the_shape() -> None:
    request = RenderRequest("a ball", "", 1)
    ids = {
        request.clip_id("g"),
        request.clip_id("h"),
        RenderRequest("a box", "", 1).clip_id("g"),
        RenderRequest("a ball", "blur", 1).clip_id("g"),
        RenderRequest("a ball", "", 2).clip_id("g"),
        RenderRequest("a ball", "", 1, "16:9").clip_id("g"),
    }
    assert len(ids) == 6


def test_a_failure_of_the_server_is_transient() -> None:
    reasons = ["connection", "timeout", "status 503", "reply", "render"]
    assert [reason for reason in reasons if Failure(reason).transient] == reasons[:3]


# Sampling


def test_a_seed_belongs_to_a_conversation_and_not_to_those_beside_it() -> None:
    a, b = ([Message(role="user", content=text)] for text in "ab")
    alone = SamplingParams(0.7, seed=3).each([a])
    among = SamplingParams(0.7, seed=3).each([b, a, a])
    assert among[1] == alone[0] != SamplingParams(0.7, seed=4).each([a])[0]
    assert len({row.seed for row in among}) == 3
    assert {row.temperature for row in among} == {0.7}


# Verdicts


def test_verdicts_count_what_is_kept_and_name_what_is_not() -> None:
    verdict = Verdict((Fact("red", "kept"), Fact("left", "changed"), Fact("small", "lost")), ("gory",), ("a dog",))
    assert verdict.fidelity == pytest.approx(1 / 3)
    assert verdict.problems == ["changed: left", "lost: small", "invented: a dog", "unsafe: gory"]
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert Verdict(()).fidelity == 1.0
    with pytest.raises(ValueError, match="kept, lost or changed"):
        Fact("red", "fine")


def test_a_harmful_fact_is_no_fact_to_keep_unless_harm_is_not_judged() -> None:
    verdict = Verdict((Fact("red", "kept"), Fact("blood", "lost", "violence", True), Fact("gun", "kept", "", True)))
    assert verdict.fidelity == 1.0
    assert verdict.removed == ["blood (violence)"]
    assert verdict.problems == []
    assert verdict.ignoring_harm().fidelity == pytest.approx(2 / 3)
    assert Verdict((), ("gory",)).ignoring_harm().unsafe == ()


# Candidates


def test_a_candidate_is_known_by_its_query_and_text() -> None:
    assert Candidate(BALL, "x").id == Candidate(BALL, "x", 3, reward=1.0).id
    assert len({Candidate(BALL, "x").id, Candidate(BALL, "y").id, Candidate(Query("a box"), "x").id}) == 3
    assert Candidate.as_typed(BALL).text == str(Candidate.as_typed(BALL)) == "a red ball"
    assert [c.round for c in distinct([Candidate(BALL, "x", 1), Candidate(BALL, "y"), Candidate(BALL, "x", 2)])] == [
        1,
        0,
    ]


def test_scores_of_a_candidate_are_means_over_its_full_clips() -> None:
    """Clips of other generators and fidelities do not count, and a missing score is left out."""
    clips = (
        ScoredClip(0, "a", {"x": 1.0, "y": None, "z": None}),
        ScoredClip(1, None, failure="render"),
        ScoredClip(2, "b", {"x": 2.0, "y": 5.0, "z": None}),
        ScoredClip(0, "c", {"x": 99.0}, generator="quick"),
        ScoredClip(0, "d", {"x": 99.0}, fidelity="preview"),
    )
    candidate = Candidate(BALL, "x", clips=clips)
    assert candidate.full_clips == clips[:3]
    assert candidate.scores == {"x": 1.5, "y": 5.0, "z": None}
    assert Candidate(BALL, "x").scores == {}
    assert mean_scores([]) == {}


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.randoms())
def test_a_mean_does_not_depend_on_the_order_of_its_values(values: list[float], chance) -> None:
    shuffled = list(values)
    chance.shuffle(shuffled)
    assert mean(shuffled) == mean(values)


def test_the_problems_of_a_candidate_include_its_length() -> None:
    verdict = Verdict((Fact("red", "lost"), Fact("blood", "lost", "violence", True)))
    candidate = Candidate(BALL, "x", verdict=verdict, fits=False)
    assert candidate.problems == ["lost: red", "too long"]
    assert candidate.removed == ["blood (violence)"]
    assert (Candidate(BALL, "x").problems, Candidate(BALL, "x").removed) == ([], [])


numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
scores = st.dictionaries(st.text(max_size=3), numbers, max_size=3)
clips = st.builds(ScoredClip, st.integers(0, 9), st.none() | st.text(max_size=3), scores, st.text(max_size=3))
facts = st.builds(Fact, st.text(), st.sampled_from(["kept", "lost", "changed"]), st.text(max_size=3), st.booleans())
words = st.lists(st.text(max_size=5), max_size=2).map(tuple)
verdicts = st.builds(Verdict, st.lists(facts, max_size=3).map(tuple), words, words)
reasons = st.none() | st.sampled_from(["unsafe", "no verdict", "fidelity"])
candidates = st.builds(
    Candidate,
    st.just(BALL),
    st.text(),
    st.integers(0, 9),
    st.none() | verdicts,
    st.none() | st.integers(0, 999),
    st.booleans(),
    reasons,
    reasons,
    st.lists(clips, max_size=3).map(tuple),
    numbers,
)


@given(candidates)
def test_a_candidate_is_read_back_as_it_was_written(candidate: Candidate) -> None:
    assert Candidate.from_json(BALL, json.loads(json.dumps(candidate.to_json()))) == candidate
    assert pickle.loads(pickle.dumps(candidate)) == candidate  # between processes
