"""The stage ``evolve`` on fakes: what it stores of its rounds."""

from pathlib import Path

import pytest
from fakes import QUERIES, recipe

from promptreel.pipeline import run
from promptreel.stages.evolve import mean_best
from promptreel.store import Run
from promptreel.types import Candidate, Query


def test_the_best_reward_so_far_is_averaged_over_queries_that_have_one() -> None:
    ball, box, star = Query("a ball"), Query("a box"), Query("a star")
    found = [Candidate(ball, "x", 0, reward=1.0), Candidate(ball, "y", 1, reward=3.0), Candidate(box, "z", reward=-1.0)]
    found.append(Candidate(star, "s", rejected="unsafe"))
    assert mean_best([ball, box, star], found) == pytest.approx((3.0 - 1.0) / 2)
    assert mean_best([star], []) == 0.0


def test_the_best_reward_is_stored_round_by_round_and_never_falls(place: Path) -> None:
    summary = run(recipe(), place, until="evolve")
    best = summary.stages["evolve"]["best_by_round"]
    assert len(best) == 3
    assert best == sorted(best)
    with Run(place, writable=False) as opened:
        found = opened.records.candidates("evolve")
    queries = list(dict.fromkeys(candidate.query for candidate in found))
    assert best[-1] == mean_best(queries, found)
    assert best[0] == mean_best(queries, [candidate for candidate in found if candidate.round == 0])


def test_candidates_are_stored_query_by_query_in_the_order_of_their_rounds(place: Path) -> None:
    run(recipe(), place, until="evolve")
    with Run(place, writable=False) as opened:
        found = opened.records.candidates("evolve")
    order = [(QUERIES.index(candidate.query.text), candidate.round) for candidate in found]
    assert order == sorted(order)
    assert len({candidate.id for candidate in found}) == len(found)
