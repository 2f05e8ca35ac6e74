"""The stage ``evolve`` on fakes: what it stores of its rounds."""

from pathlib import Path

import pytest
from fakes import recipe

from promptreel.pipeline import run
from promptreel.stages.evolve import mean_best
from promptreel.store import Run
from promptreel.types import Candidate, Query


def test_the_best_reward_so_far_is_averaged_over_queries_that_have_one() -> None:
    ball, box, star = Query("a ball"), Query("a box"), Query("a star")
    found = [Candidate(ball, "x", 0, reward=1.0), Candidate(ball, "y", 1, reward=3.0), Candidate(box, "z", reward=-1.0)]
    assert mean_best([*found, Candidate(star, "s", rejected="unsafe")]) == pytest.approx((3.0 - 1.0) / 2)
    assert mean_best([]) == 0.0


def test_the_best_reward_is_stored_round_by_round_and_never_falls(place: Path) -> None:
    summary = run(recipe(), place, until="evolve")
    best = summary.stages["evolve"]["best_by_round"]
    assert len(best) == 3
    assert best == sorted(best)
    with Run(place, writable=False) as opened:
        found = opened.records.candidates("evolve")
    assert best[-1] == mean_best(found)
    assert best[0] == mean_best([candidate for candidate in found if candidate.round == 0])


def test_candidates_are_stored_query_by_query_in_the_order_of_their_rounds(place: Path) -> None:
    run(recipe(), place, until="evolve")
    with Run(place, writable=False) as opened:
        found = opened.records.candidates("evolve")
    order = [(candidate.query.text, candidate.round) for candidate in found]
    assert [text for text, _ in order] == sorted(
        [text for text, _ in order], key=["red ball", "blue box", "gory star"].index
    )
    assert all(
        later[1] >= earlier[1] for earlier, later in zip(order, order[1:], strict=False) if earlier[0] == later[0]
    )
    assert len({candidate.id for candidate in found}) == len(found)
