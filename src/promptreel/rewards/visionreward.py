"""VisionReward's checklist for videos as data: its questions, their weights, and both published scales.

The figures and their sources are in ``visionreward.toml``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Question:
    """A yes-or-no question about a video; yes is better."""

    name: str
    number: int
    """Its place among VisionReward's 64 questions (1 to 64)."""
    asks: str
    """The question's text, with ``{query}`` where the query goes."""
    weight: float


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads((resources.files("promptreel.rewards") / "visionreward.toml").read_text(encoding="utf-8"))


@cache
def questions() -> tuple[Question, ...]:
    """Return the 29 questions with a weight, in VisionReward's order."""
    return tuple(Question(**entry) for entry in _data()["question"])


def weights() -> dict[str, float]:
    """Return the weight of each question, by name.

    An objective of answers as 0 and 1 with these weights gives rewards on VPO's scale.
    """
    return {question.name: question.weight for question in questions()}


def sum_of_yes(answers: Mapping[str, bool]) -> float:
    """Return the total on VPO's scale, 0 to about 6.28: the sum of the weights of all questions answered yes.

    Raises ``KeyError`` for a question without an answer.
    """
    return sum(question.weight * answers[question.name] for question in questions())


def signed_mean(answers: Mapping[str, bool]) -> float:
    """Return the total on VisionReward's scale, about -0.22 to 0.22: the mean of the weights, negative for a no."""
    return to_signed_mean(sum_of_yes(answers))


def to_signed_mean(total: float) -> float:
    """Convert a total from VPO's scale to VisionReward's. Both rank alike."""
    return (2 * total - sum(weights().values())) / len(questions())


def gap(scale: str = "sum_of_yes") -> float:
    """Return the threshold for a preference pair: the smallest difference of two totals that makes one.

    VPO uses 0.5 on the scale ``sum_of_yes``. The other scale is ``signed_mean``.

    Raises ``ValueError`` for another scale.
    """
    gaps = {"sum_of_yes": _data()["gap"], "signed_mean": 2 * _data()["gap"] / len(questions())}
    if scale not in gaps:
        raise ValueError(f"the scales are {' and '.join(gaps)}, not {scale!r}")
    return float(gaps[scale])
