"""Rows of a run come back as they were, in order, and apart from those of other runs in the same database."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import StatementError

from promptreel.queries import parse_query
from promptreel.store import Database, Records
from promptreel.types import Attachment, Candidate, Fact, Pair, Query, ScoredClip, StageRecord, Verdict

DONE = StageRecord("evolve", "evolve", "done", 2.5, {"best_by_round": [0.1, 0.2], "left_out": {"refused": 1}})
BALL = Query("red ball", "blur", (("aspect", "16:9"),), (Attachment("first_frame", "ab" * 32, "https://a.b/c.png"),))
VERDICT = Verdict((Fact("red", "kept"), Fact("gory", "lost", "it is harmful", True)), ("blood",), ("a dog",))


@pytest.fixture
def database() -> Iterator[Database]:
    with closing(Database("sqlite://")) as opened:
        yield opened


@pytest.fixture
def records(database: Database) -> Records:
    return Records(database, "one")


def finish(
    records: Records, found: Sequence[Candidate] = (), made: Sequence[Pair] = (), stage: str = "evolve", **counts: int
) -> None:
    records.finish_stage(replace(DONE, name=stage), found, made, counts, [])


def test_a_stage_is_new_then_running_then_done(records: Records) -> None:
    assert records.stages() == {}
    assert records.stage("evolve").state == "new"
    records.put_stage(StageRecord("evolve", "evolve", "running", 1.0))
    assert records.stage("evolve") == StageRecord("evolve", "evolve", "running", 1.0)
    finish(records)
    assert records.stages() == {"evolve": DONE}


def test_candidates_come_back_with_everything_known_about_them(records: Records) -> None:
    clips = (
        ScoredClip(0, "clip-0", {"x": 0.1 + 0.2, "never": None}),
        ScoredClip(1, None, failure="memory"),
        ScoredClip(0, "clip-1", {"x": 1.0}, generator="quick", fidelity="preview"),
    )
    found = [
        Candidate(BALL, "a red ball", 2, VERDICT, 17, False, "unsafe", "unsafe", clips, 0.25),
        Candidate.as_typed(Query("a box")),
        Candidate(Query("a box"), "a box 🐱", 1, Verdict(()), rejected="no verdict", reward=-0.0),
    ]
    finish(records, found)
    assert records.candidates("evolve") == found
    assert records.candidates("sample") == []
    stored = records.candidates("evolve")[0]
    assert stored.scores == {"x": 0.1 + 0.2, "never": None}  # without those of another generator
    assert stored.query.attachments[0].uri == "https://a.b/c.png"


def test_pairs_and_candidates_come_back_in_order(records: Records) -> None:
    queries = [Query("z"), Query("a")]
    pairs = [Pair(query, "good", bad, "margin_floors", 1.0) for query in queries for bad in ("y", "b")]
    candidates = [Candidate(query, text, 1) for query in queries for text in ("y", "b")]
    finish(records, candidates, pairs)
    assert records.pairs("evolve") == pairs
    assert records.candidates("evolve") == candidates


def test_evaluations_come_back_by_system_with_queries_in_order(records: Records) -> None:
    queries = [Query("z"), Query("a"), BALL]
    clip = ScoredClip(0, "clip", {"overall": 0.5})
    results = {
        "raw": {query: Candidate.as_typed(query) for query in queries},
        "base": {query: Candidate(query, "x", 0, VERDICT, clips=(clip,)) for query in queries[1:]},
    }
    records.add_evaluation("mine", results)
    found = records.evaluation("mine")
    assert found == results
    assert list(found["raw"]) == queries
    records.add_evaluation("mine", {"base": {BALL: Candidate(BALL, "other")}})
    assert records.evaluation("mine")["base"][BALL].text == "other"
    assert records.evaluation("yours") == {}


def test_failures_of_a_stage_are_replaced_and_not_added_up(records: Records) -> None:
    finish(records, reply=2, reward=0)
    finish(records, reply=3)
    finish(records, stage="sample", reply=1, timeout=2)
    assert records.failures() == {"reply": 4, "timeout": 2}


def test_versions_that_a_run_went_on_with_are_noted_once(records: Records) -> None:
    first, second = {"torch": "1"}, {"torch": "2"}
    for found in (first, first, second, first):
        records.note_environment(found)
    assert records.environments() == [first, second]


def test_rows_of_two_runs_in_one_database_are_apart(database: Database) -> None:
    one, two = Records(database, "one"), Records(database, "two")
    pair = Pair(BALL, "good", "bad", "accepted", 0.0)
    finish(one, [Candidate(BALL, "a red ball", reward=1.0)], [pair], reply=2)
    one.add_evaluation("mine", {"raw": {BALL: Candidate.as_typed(BALL)}})
    one.note_environment({"torch": "1"})
    assert (two.stages(), two.candidates("evolve"), two.pairs("evolve")) == ({}, [], [])
    assert (two.evaluation("mine"), two.failures(), two.environments()) == ({}, {}, [])
    finish(two, [Candidate(BALL, "a red ball", reward=2.0)])
    assert [c.reward for r in (one, two) for c in r.candidates("evolve")] == [1.0, 2.0]


def test_nothing_of_a_stage_is_stored_if_some_of_it_cannot_be(records: Records) -> None:
    with pytest.raises(StatementError, match="not JSON serializable"):
        records.finish_stage(replace(DONE, output={"x": object()}), [Candidate(BALL, "x")], [], {"reply": 1}, [BALL])
    assert records.candidates("evolve") == []
    assert records.failures() == {}


FLAGS = [
    "--ar 16:9", "-ar 9:16", "-neg blurry, extra limbs", "-motion 3", "-motion 9", "-gs 20", "-fps 24", "seed123",
    "seed 7", "--hd", "--style raw", "with sound", "https://a.b/c.png",
]  # fmt: skip
flags = st.lists(st.sampled_from(FLAGS), max_size=3).map(" ".join)
typed = st.builds("{} {} {}".format, st.sampled_from(["a red ball", "a box"]), flags, st.just("") | st.text(max_size=8))
parsed = typed.map(parse_query)
files = st.text("0123456789abcdef")
attached = st.lists(st.builds(lambda role, file: Attachment(role, file, f"/{file}"), st.just("image"), files))
built = st.builds(
    Query, st.text(), st.text(), st.lists(st.tuples(st.text(), st.text())).map(tuple), attached.map(tuple)
)


@given(st.lists(parsed | built, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_query_comes_back_as_it_was_typed(asked: list[Query]) -> None:
    """Flags and all, from whatever was stored of it, also where another stage asks for the same with other flags."""
    with closing(Database("sqlite://")) as database:
        records = Records(database, "one")
        for number, query in enumerate(asked):
            better = Candidate(query, "better", 1)
            finish(records, [better], [Pair(query, "good", "bad", "accepted", 0.0)], f"{number}")
            records.add_evaluation(f"{number}", {"base": {query: better}})
        stages = [f"{number}" for number in range(len(asked))]
        assert [candidate.query for stage in stages for candidate in records.candidates(stage)] == asked
        assert [pair.query for stage in stages for pair in records.pairs(stage)] == asked
        assert [query for stage in stages for query in records.evaluation(stage)["base"]] == asked
