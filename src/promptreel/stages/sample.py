"""The stage ``sample``: candidates of a student are drawn, rendered and scored."""

from __future__ import annotations

from promptreel.config import Recipe, SampleStage
from promptreel.stages.context import StageContext, StageResult, rejections
from promptreel.stages.cost import Cost, Count


def cost(stage: SampleStage, recipe: Recipe, count: Count) -> Cost:
    drawn = stage.candidates
    return Cost.per_query(stage, count(stage.queries), drawn, drawn, drawn * stage.clips_per_prompt)


def run(stage: SampleStage, context: StageContext) -> StageResult:
    """Draw candidates, and try out those that the policy accepts."""
    drafts = context.drafts(stage.student, stage.queries, stage.candidates, stage.sampling)
    indices = range(stage.clips_per_prompt)
    measured = context.step().try_out(drafts, indices)
    candidates = context.objective(stage.objective).rewarded(measured)
    return StageResult({"candidates": len(drafts), "rejected": rejections(candidates)}, candidates)
