"""Stage kinds at work: one file each, with ``cost`` and ``run``. Their tables are in ``promptreel.config.stages``."""

from __future__ import annotations

from typing import Any, Protocol

from promptreel.stages import critique, dpo, evaluate, evolve, pairs, sample, sft
from promptreel.stages.context import StageContext, StageResult
from promptreel.stages.cost import Cost, Count


class StageKind(Protocol):
    """The two functions of a stage kind's file."""

    cost: Any
    """``cost(stage, recipe, count) -> Cost``"""
    run: Any
    """``run(stage, context) -> StageResult``"""


KINDS: dict[str, StageKind] = {
    "evolve": evolve,
    "critique": critique,
    "sft": sft,
    "sample": sample,
    "pairs": pairs,
    "dpo": dpo,
    "evaluate": evaluate,
}
"""Every stage kind, by name."""

__all__ = ["KINDS", "Cost", "Count", "StageContext", "StageKind", "StageResult"]
