"""The stage ``pairs``: candidates become preference pairs, by a named rule."""

from __future__ import annotations

from collections import Counter

from promptreel.config import PairsStage, Recipe, SampleStage
from promptreel.pairs import rule
from promptreel.stages.context import StageContext, StageResult
from promptreel.stages.cost import Cost, Count


def cost(stage: PairsStage, recipe: Recipe, count: Count) -> Cost:
    return Cost.none(stage)


def run(stage: PairsStage, context: StageContext) -> StageResult:
    """Pair the candidates of a stage. Those of a critique have no clips, and so no floors."""
    samples = context.candidates(stage.samples)
    drops: Counter[str] = Counter()
    sampled = context.recipe.named(stage.samples)
    floors = context.objective(sampled.objective).floors if isinstance(sampled, SampleStage) else {}
    pairs = rule(stage.rule.name)(samples, drops, **{"floors": floors, **stage.rule.options})
    return StageResult({"pairs": len(pairs), "queries": len(samples), "dropped": dict(drops)}, pairs=pairs)
