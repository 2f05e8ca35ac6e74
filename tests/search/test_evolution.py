"""The papers' schedule on made-up rewards: every query in every round, with the best so far to learn from."""

from collections.abc import Sequence

from promptreel.objective import Objective
from promptreel.search.evolution import Rounds, winners
from promptreel.types import Candidate, Query, ScoredClip

BALL, BOX = Query("a ball"), Query("a box")


def rated(query: Query, text: str, reward: float | None, round: int = 1, **scores: float) -> Candidate:
    return Candidate(query, text, round, clips=(ScoredClip(0, "clip", scores),), reward=reward)


def shown(search: Rounds) -> list[list[str]]:
    """Return the texts that the teacher sees of each query in the next round."""
    return [[candidate.text for candidate in proposal.history] for proposal in search.ask().proposals]


def test_queries_as_typed_are_measured_first_each_once() -> None:
    search = Rounds([BALL, BOX, BALL], rounds=1, children=3, context=2, clips_per_prompt=2)
    move = search.ask()
    assert search.round == 0
    assert [(m.candidate, m.seed_indices) for m in move.measurements] == [
        (Candidate.as_typed(BALL), (0, 1)),
        (Candidate.as_typed(BOX), (0, 1)),
    ]
    assert not move.proposals


def test_every_query_is_asked_for_in_every_round_and_the_best_are_shown() -> None:
    search = Rounds([BALL, BOX], rounds=2, children=3, context=2)
    search.ask()
    typed = [rated(BALL, "a ball", 1.0, 0), rated(BOX, "a box", 1.0, 0)]
    search.tell(typed)
    move = search.ask()
    assert [(p.query, p.count, p.seed_indices) for p in move.proposals] == [(BALL, 3, (0,)), (BOX, 3, (0,))]
    assert not move.measurements
    assert [[c.text for c in p.history] for p in move.proposals] == [["a ball"], ["a box"]]
    children = [rated(BALL, "b", 3.0), rated(BALL, "c", 2.0), rated(BALL, "d", None), rated(BALL, "e", 2.0)]
    search.tell([*typed, *children])
    assert shown(search) == [["b", "c"], ["a box"]]
    assert search.round == 2
    search.tell([*typed, *children])
    assert not search.ask()
    assert not search.ask()
    assert search.round == 2


def test_all_rewards_are_given_anew_each_time() -> None:
    """An objective by rank may turn the order round when another candidate comes."""
    search = Rounds([BALL], rounds=3, children=1, context=1)
    search.ask()
    search.tell([rated(BALL, "a ball", 1.0, 0)])
    search.ask()
    search.tell([rated(BALL, "a ball", 1.0, 0), rated(BALL, "b", 2.0)])
    assert shown(search) == [["b"]]
    search.tell([rated(BALL, "a ball", 3.0, 0), rated(BALL, "b", 2.0)])
    assert shown(search) == [["a ball"]]


def test_a_query_without_a_rewarded_candidate_begins_without_an_example() -> None:
    search = Rounds([BALL], rounds=1, children=1, context=2)
    search.ask()
    search.tell([rated(BALL, "a ball", None, 0)])
    assert shown(search) == [[]]


def test_without_rounds_only_the_queries_are_measured_and_without_queries_nothing_is() -> None:
    search = Rounds([BALL], rounds=0, children=1, context=1)
    assert search.ask().measurements
    assert not search.ask()
    assert not Rounds([], rounds=3, children=1, context=1).ask()


def best(candidates: Sequence[Candidate], floors: dict[str, float], margin: float) -> list[str]:
    found: dict[Query, list[Candidate]] = {}
    for candidate in candidates:
        found.setdefault(candidate.query, []).append(candidate)
    return [winner.text for winner in winners(found, Objective({}, floors), margin)]


def test_a_winner_beats_the_raw_query_by_the_margin_and_clears_the_floors() -> None:
    ball = [rated(BALL, "a ball", 1.0, 0), rated(BALL, "dim", 5.0, x=0.1), rated(BALL, "good", 2.0, x=0.9)]
    box = [rated(BOX, "a box", 1.9, 0), rated(BOX, "close", 2.0, x=0.9)]
    assert best([*ball, *box], {"x": 0.5}, 0.5) == ["good"]
    assert best([*ball, *box], {}, 0.0) == ["dim", "close"]


def test_a_raw_query_without_a_reward_is_beaten_by_every_candidate() -> None:
    """A harmful query is not rendered."""
    assert best([rated(BALL, "a ball", None, 0), rated(BALL, "b", -9.0), rated(BALL, "c", None)], {}, 5.0) == ["b"]
    assert best([rated(BALL, "a ball", 9.0, 0)], {}, 0.0) == []
