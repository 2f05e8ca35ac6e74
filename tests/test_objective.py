"""The objective turns scores into one reward, and a missing score into none."""

from dataclasses import replace

from promptreel.objective import Objective, clears
from promptreel.types import Candidate, Query, ScoredClip

BALL, BOX = Query("a ball"), Query("a box")


def scored(query: Query, text: str, **scores: float | None) -> Candidate:
    return Candidate(query, text, 1, clips=(ScoredClip(0, "clip", scores),))


def test_a_missing_score_is_never_a_number() -> None:
    both = Objective({"a": 1.0, "b": 2.0})
    assert both.value({"a": 1.0, "b": None}) is None
    assert both.value({"a": 1.0}) is None
    assert both.value({"a": 1.0, "b": 2.0, "c": None}) == 5.0


def test_a_floor_asks_for_a_value_that_reaches_it() -> None:
    assert not clears({"a": None}, {"a": -99})
    assert not clears({}, {"a": -99})
    assert clears({"a": 0.0}, {"a": 0.0})
    assert clears({"a": None}, {})
    assert not Objective({}, {"a": 0.5}).clears(scored(BALL, "x", a=0.4))


def test_candidates_of_any_queries_get_their_rewards_in_place() -> None:
    made = [scored(BALL, "b", a=1.0), scored(BOX, "c", a=2.0), scored(BALL, "d", a=None), Candidate(BALL, "e")]
    rejected = replace(scored(BALL, "f", a=9.0), rejected="fidelity")
    rewarded = Objective({"a": 2.0}).rewarded([*made, rejected])
    assert [(candidate.text, candidate.reward) for candidate in rewarded] == [
        ("b", 2.0),
        ("c", 4.0),
        ("d", None),
        ("e", None),
        ("f", None),
    ]


class Ranked(Objective):
    """An objective by the rank among the candidates of a query."""

    def rewards(self, candidates):
        values = sorted(candidate.scores["a"] for candidate in candidates)
        return [float(values.index(candidate.scores["a"])) for candidate in candidates]


def test_an_objective_is_given_all_accepted_candidates_of_one_query_at_once() -> None:
    asked = [scored(BALL, "b", a=5.0), scored(BOX, "c", a=1.0), scored(BALL, "d", a=7.0)]
    assert [candidate.reward for candidate in Ranked({}).rewarded(asked)] == [0.0, 0.0, 1.0]
