"""The stage ``dpo``: the student learns preferences."""

from __future__ import annotations

from promptreel.config import DPOStage, Recipe
from promptreel.pairs import merge
from promptreel.stages.context import StageContext, StageResult, nothing_to_learn
from promptreel.stages.cost import Cost, Count
from promptreel.store import Run
from promptreel.types import Pair


def cost(stage: DPOStage, recipe: Recipe, count: Count) -> Cost:
    return Cost.none(stage)


def run(stage: DPOStage, context: StageContext) -> StageResult:
    pairs = learned(stage, context.run)
    if not pairs:
        raise nothing_to_learn(stage, f"no pairs in {', '.join(stage.pairs)}")
    return StageResult({"pairs": len(pairs), **context.train(stage.student, pairs, stage.trainer, stage.lora)})


def learned(stage: DPOStage, run: Run) -> list[Pair]:
    """Return the pairs that the stage trains on, also for exports."""
    return merge([run.records.pairs(name) for name in stage.pairs], stage.exclusive)
