"""Pair rules on made-up scores: each query makes pairs, or is counted under the reason for which it makes none."""

from collections import Counter
from typing import Any

import pytest

from promptreel.errors import RecipeError, UnknownName
from promptreel.pairs import accepted, check_rule, dominance, margin_floors, merge, rule
from promptreel.types import Candidate, Pair, Query, ScoredClip

BALL, BOX = Query("a ball"), Query("a box")


def scored(text: str, value: float, **scores: float | None) -> Candidate:
    return Candidate(BALL, text, 1, clips=(ScoredClip(0, "clip", scores),), reward=value)


def rejected(text: str, reason: str) -> Candidate:
    return Candidate(BALL, text, 1, rejected=reason)


# Prompt-A-Video's rule


def test_margin_floors_pairs_the_top_with_what_it_clearly_beats() -> None:
    samples = {BALL: [scored("worst", 0.0), scored("best", 3.0), scored("second", 2.5), scored("middle", 1.2)]}
    drops = Counter[str]()
    pairs = margin_floors(samples, drops, floors={})
    assert [(p.chosen, p.rejected, round(p.margin, 1)) for p in pairs] == [
        ("best", "worst", 3.0),
        ("second", "worst", 2.5),
        ("best", "middle", 1.8),
    ]
    assert len(margin_floors(samples, drops, floors={}, per_query=1)) == 1
    assert not drops


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([scored("a", 1.0)], {}, "one candidate"),
        ([scored("a", 1.0), rejected("b", "unsafe")], {}, "one candidate"),
        ([scored("a", 1.0), scored("b", 0.0)], {}, "margin too small"),
        ([scored("a", 9.0, x=0.0), scored("b", 0.0, x=0.0)], {"floors": {"x": 1.0}}, "below a floor"),
        ([scored("a", 9.0, x=None), scored("b", 0.0)], {"floors": {"x": 1.0}}, "below a floor"),
        ([scored("word " * 200, 9.0), scored("b", 0.0)], {}, "too long"),
    ],
)
def test_a_query_without_a_pair_is_counted_under_its_reason(
    rows: list[Candidate], options: dict[str, Any], reason: str
) -> None:
    drops = Counter[str]()
    assert margin_floors({BALL: rows}, drops, **{"floors": {}, **options}) == []
    assert drops == {reason: 1}


# VPO's rule


def test_dominance_wants_no_dimension_worse_and_a_gap() -> None:
    a, b = scored("a", 3.0, x=1.0, y=1.0), scored("b", 2.0, x=1.0, y=0.0)
    c, near = scored("c", 1.0, x=2.0, y=0.5), scored("near", 2.8, x=1.0, y=0.9)
    drops = Counter[str]()
    assert [(p.chosen, p.rejected) for p in dominance({BALL: [b, a, c]}, drops, {})] == [("a", "b")]
    assert dominance({BALL: [a, c]}, drops, {}) == []
    assert dominance({BALL: [a, near]}, drops, {}) == []
    assert drops == {"no dominance": 1, "margin too small": 1}
    assert dominance({BALL: [a, c]}, drops, {}, dimensions=["y"])[0].margin == 2.0
    assert dominance({BALL: [a, c]}, drops, {}, tolerance={"x": 1.0})[0].margin == 2.0
    missing = scored("m", 0.0, x=0.0, y=None)
    assert dominance({BALL: [a, missing]}, drops, {}) == []


def test_dominance_chooses_nothing_below_a_floor() -> None:
    drops = Counter[str]()
    assert dominance({BALL: [scored("a", 3.0, x=1.0), scored("b", 1.0, x=0.0)]}, drops, {"x": 2.0}) == []
    assert drops == {"below a floor": 1}


# Pairs of texts


def test_a_text_that_the_policy_rejected_loses_against_the_most_similar_one_that_it_accepted() -> None:
    good = [scored("a red ball goes up", 1.0), scored("We see a ball of red", 2.0, x=0.0)]
    bad = [
        rejected("a red ball goes down", "fidelity"),
        rejected("We see a bloody ball of red", "unsafe"),
        rejected("nobody could judge it", "no verdict"),
    ]
    drops = Counter[str]()
    samples = {BALL: [*bad, *good], BOX: good}
    pairs = accepted(samples, drops, {})
    assert [(p.chosen, p.rejected) for p in pairs] == [(g.text, b.text) for g, b in zip(good, bad, strict=False)]
    assert drops == {"nothing rejected": 1}
    assert accepted(samples, drops, {"x": 1.0}) == []
    assert drops["nothing accepted"] == 2
    assert len(accepted(samples, drops, {}, per_query=1)) == 1
    assert accepted({BALL: [*bad, *bad, *good]}, drops, {}) == pairs  # a text that is said twice counts once


def test_texts_of_a_critique_make_pairs_by_what_they_say() -> None:
    """Nothing was rendered, so no candidate has a reward."""
    passed = [Candidate(BALL, "a red ball goes up"), Candidate(BALL, "We see a ball of red", 1)]
    bad = [rejected("a red ball goes down", "fidelity"), rejected("a dog", "invented")]
    pairs = accepted({BALL: [*bad, *passed]}, Counter[str](), {}, length=0.4)
    assert [(p.chosen, p.rejected) for p in pairs] == [(passed[0].text, b.text) for b in bad]
    longer = rejected("We see a red ball that goes down and down and down", "fidelity")
    drops = Counter[str]()
    assert accepted({BALL: [longer, *passed]}, drops, {}) == []
    assert drops == {"other lengths": 1}
    assert len(accepted({BALL: [longer, *passed]}, drops, {}, length=0.4)) == 1


# Rules by name


def test_rules_and_their_options_are_checked() -> None:
    with pytest.raises(UnknownName, match="did you mean 'margin_floors'"):
        rule("margin_floor")
    with pytest.raises(RecipeError, match="did you mean 'margin'"):
        check_rule("margin_floors", {"margn": 1})


def test_options_of_a_rule_are_checked_before_it_has_anything_to_do() -> None:
    check_rule("accepted", {"per_query": 2, "length": 1.0}, rendered=False)
    with pytest.raises(
        RecipeError, match="'dominance' compares clips, and a critique renders none: name accepted, or the "
    ):
        check_rule("dominance", {}, rendered=False)
    with pytest.raises(RecipeError, match="length is 85, and is a share between 0 and 1"):
        check_rule("accepted", {"length": 85})
    with pytest.raises(RecipeError, match="pair rule 'accepted': '<=' not supported"):
        check_rule("accepted", {"length": "0.85"})


def test_a_query_with_a_text_pair_drops_its_video_pair_unless_told_otherwise() -> None:
    text = [Pair(BALL, "a", "b", "text_refined", 1.0)]
    video = [Pair(BALL, "c", "d", "dominance", 1.0), Pair(BOX, "e", "f", "dominance", 1.0)]
    assert merge([text, video], exclusive=True) == [text[0], video[1]]
    assert merge([text, video], exclusive=False) == [*text, *video]
    flagged = [Pair(Query(BALL.text, options=(("motion", "3"),)), "c", "d", "dominance", 1.0)]
    assert merge([text, flagged], exclusive=True) == text
