"""The stage ``sft``: the student learns the best candidate of each query."""

from __future__ import annotations

from promptreel.config import CritiqueStage, EvolveStage, Recipe, SFTStage
from promptreel.search.evolution import winners
from promptreel.stages.context import StageContext, StageResult, nothing_to_learn
from promptreel.stages.cost import Cost, Count
from promptreel.types import Candidate, Example, Query


def cost(stage: SFTStage, recipe: Recipe, count: Count) -> Cost:
    return Cost.none(stage)


def run(stage: SFTStage, context: StageContext) -> StageResult:
    learned = examples(stage, context.recipe, context.candidates(stage.data))
    if not learned:
        raise nothing_to_learn(stage, f"no rewrite of {stage.data!r} beats its query")
    metrics = context.train(stage.student, learned, stage.trainer, stage.lora)
    return StageResult({"examples": len(learned), **metrics})


def examples(stage: SFTStage, recipe: Recipe, candidates: dict[Query, list[Candidate]]) -> list[Example]:
    """Return the training examples: the best candidate of each query that has one, or a critique's accepted texts."""
    source = recipe.named(stage.data)
    if isinstance(source, CritiqueStage):
        accepted = [c for found in candidates.values() for c in found if c.rejected is None]
        return [Example(candidate.query, candidate.text) for candidate in accepted]
    assert isinstance(source, EvolveStage)  # the recipe was checked
    objective = recipe.objectives[source.objective].objective()
    return [Example(best.query, best.text) for best in winners(candidates, objective, stage.margin)]
