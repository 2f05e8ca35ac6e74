"""VisionReward's published checklist: its figures, and its two scales."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptreel.objective import Objective
from promptreel.rewards import visionreward

NAMES = [question.name for question in visionreward.questions()]


def test_the_figures_are_the_published_ones() -> None:
    """29 of 64, with the sum and the largest weights that the two repositories have."""
    weights = visionreward.weights()
    assert len(weights) == 29
    assert sum(weights.values()) == pytest.approx(6.2772, abs=1e-4)
    assert max(weights, key=lambda name: weights[name]) == "asked_something"
    assert weights["asked_something"] == pytest.approx(1.1418, abs=1e-4)
    assert weights["asked_all"] == pytest.approx(0.9544, abs=1e-4)
    numbers = [question.number for question in visionreward.questions()]
    assert numbers == sorted(set(numbers))
    assert numbers[0] >= 1
    assert numbers[-1] <= 64
    assert {q.name for q in visionreward.questions() if "{query}" in q.asks} == {
        "asked_all", "asked_most", "asked_something",
    }  # fmt: skip


@given(st.lists(st.booleans(), min_size=29, max_size=29))
def test_the_two_scales_agree_with_an_objective_of_the_weights(said: list[bool]) -> None:
    answers = dict(zip(NAMES, said, strict=True))
    signed = sum(q.weight * (1 if answers[q.name] else -1) for q in visionreward.questions()) / 29
    assert visionreward.signed_mean(answers) == pytest.approx(signed)
    as_scores = {name: float(value) for name, value in answers.items()}
    assert Objective(visionreward.weights()).value(as_scores) == pytest.approx(visionreward.sum_of_yes(answers))


def test_the_gap_of_a_pair_is_the_same_on_both_scales() -> None:
    assert visionreward.gap() == 0.5
    assert visionreward.gap("signed_mean") == pytest.approx(0.0345, abs=1e-4)
    low, high = visionreward.to_signed_mean(1.0), visionreward.to_signed_mean(1.5)
    assert high - low == pytest.approx(visionreward.gap("signed_mean"))
    with pytest.raises(ValueError, match="sum_of_yes and signed_mean"):
        visionreward.gap("percent")
