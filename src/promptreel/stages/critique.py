"""The stage ``critique``: drafts are judged, and refined by the teacher until they pass."""

from __future__ import annotations

from dataclasses import replace

from promptreel.config import CritiqueStage, Recipe
from promptreel.critique import Critique
from promptreel.stages.context import StageContext, StageResult, rejections
from promptreel.stages.cost import Cost, Count
from promptreel.types import Candidate


def cost(stage: CritiqueStage, recipe: Recipe, count: Count) -> Cost:
    drafts = stage.candidates * (1 + stage.rounds)
    return Cost.per_query(stage, count(stage.queries), drafts, drafts)


def run(stage: CritiqueStage, context: StageContext) -> StageResult:
    """Draft, judge, and have the teacher refine rejected drafts."""
    work = Critique(stage.rounds)
    drafts = context.drafts(stage.student, stage.queries, stage.candidates, stage.sampling)
    versions = {draft.id: replace(draft, round=0) for draft in drafts}
    teacher = context.writer("teacher")
    number = 0
    while versions:
        judged = context.step(f"{stage.name}/{number}").judge(list(versions.values()))
        work.tell(dict(zip(versions, judged, strict=True)))
        asked = work.ask()
        number += 1
        requests = [
            {"query": draft.query.text, "draft": draft.text, "problems": draft.problems} for draft in asked.values()
        ]
        texts = context.step(f"{stage.name}/{number}").write(teacher, "refine", requests)
        versions = {
            key: Candidate(draft.query, text, number)
            for (key, draft), text in zip(asked.items(), texts, strict=True)
            if text
        }
    pairs, found = work.refinements(stage.per_query), work.versions()
    histories = work.history.values()
    output = {
        "drafts": len(drafts),
        "passed_at_once": sum(history[0].rejected is None for history in histories),
        "accepted": len(work.accepted()),
        "made_harmless": sum(bool(history[-1].removed) for history in histories),
        "rejected": rejections(found),
        "pairs": len(pairs),
    }
    return StageResult(output, found, pairs)
