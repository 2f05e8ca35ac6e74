"""The summary of a run, from its records. Nothing is written and no model is loaded."""

from __future__ import annotations

from promptreel.config import EvaluateStage, Recipe
from promptreel.store import Findings, Run, Summary


def summarise(recipe: Recipe, run: Run) -> Summary:
    """Return the result of a run so far."""
    records = run.records
    begun = {name: record for name, record in records.stages().items() if name in {s.name for s in recipe.stage}}
    stages = {stage.name: begun[stage.name] for stage in recipe.stage if stage.name in begun}
    evaluations = list(recipe.stages(EvaluateStage))
    measured = {stage.name for stage in evaluations}
    findings = Findings()
    for name, record in stages.items():
        if name in measured and record.state == "done":
            findings += Findings.model_validate({**record.output})
    return Summary(
        **dict(findings),
        recipe=recipe.name,
        finished=len(stages) == len(recipe.stage) and all(record.state == "done" for record in stages.values()),
        systems=tuple(evaluations[-1].systems) if evaluations else (),
        ceiling=evaluations[-1].ceiling if evaluations else None,
        stages={name: dict(record.output) for name, record in stages.items() if name not in measured},
        renders={name: records.renders(name) for name in stages},
        seconds={name: round(record.seconds, 1) for name, record in stages.items()},
        failures=records.failures(),
    )
