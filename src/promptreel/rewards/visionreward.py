"""VisionReward's checklist for videos as data: what is asked, what an answer weighs, and both published scales.

The facts and their sources are in ``visionreward.toml``.
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
    """One yes-or-no question; yes is better."""

    name: str
    number: int
    """Its place among VisionReward's 64 (1 to 64)."""
    asks: str
    """``{query}`` stands for what the person typed."""
    weight: float


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads((resources.files("promptreel.rewards") / "visionreward.toml").read_text(encoding="utf-8"))


@cache
def questions() -> tuple[Question, ...]:
    """The 29 questions that weigh anything, in VisionReward's order."""
    return tuple(Question(**entry) for entry in _data()["question"])


def weights() -> dict[str, float]:
    """Question to weight: a blend of answers as 0 and 1 with these weights is a total on VPO's scale."""
    return {question.name: question.weight for question in questions()}


def sum_of_yes(answers: Mapping[str, bool]) -> float:
    """The total on VPO's scale: the weights of what is answered yes, 0 to about 6.28. All must be answered."""
    return sum(question.weight * answers[question.name] for question in questions())


def signed_mean(answers: Mapping[str, bool]) -> float:
    """The total on VisionReward's own scale: the mean of the weights, negative for a no; about -0.22 to 0.22."""
    return to_signed_mean(sum_of_yes(answers))


def to_signed_mean(total: float) -> float:
    """A total on VPO's scale as one on VisionReward's: both rank alike."""
    return (2 * total - sum(weights().values())) / len(questions())


def gap(scale: str = "sum_of_yes") -> float:
    """What a preference pair's totals must differ by (VPO: 0.5), on the scale ``sum_of_yes`` or ``signed_mean``."""
    on = {"sum_of_yes": _data()["gap"], "signed_mean": 2 * _data()["gap"] / len(questions())}
    if scale not in on:
        raise ValueError(f"the scales are {' and '.join(on)}, not {scale!r}")
    return float(on[scale])
