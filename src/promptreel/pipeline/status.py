"""What of a run is done, what is left, and about how long that will take."""

from __future__ import annotations

from dataclasses import dataclass

from promptreel.config import EvaluateStage, EvolveStage, QueriesTable, SampleStage
from promptreel.pipeline.stages import Pipeline


@dataclass(frozen=True)
class StageStatus:
    name: str
    kind: str
    state: str
    """``new``, ``running`` (begun, and not done) or ``done``."""
    renders: int
    planned: int
    """Renders at most: the gate, repetitions and what is in the cache save some."""
    seconds: float
    seconds_left: float | None
    """An estimate from the stages before it; ``None`` while there is nothing to go by."""


def status(pipeline: Pipeline) -> list[StageStatus]:
    """The state of every stage, in order.

    What a render takes, with everything around it, is taken from the rendering stages so far; what a
    training takes, from the trainings so far.
    """
    rows = []
    spent = {"render": [0.0, 0.0], "train": [0.0, 0.0]}
    for stage in pipeline.recipe.stage:
        state, seconds, _ = pipeline.run.database.stage(stage.name) or ("new", 0.0, {})
        renders, planned = pipeline.run.database.renders(stage.name), _planned(pipeline, stage)
        kind = "render" if planned else "train" if stage.kind in ("sft", "dpo") else "data"
        left: float | None = 0.0
        if state != "done" and kind != "data":
            time, units = spent[kind]
            units_left = max(planned - renders, 0) if kind == "render" else 1
            left = time / units * units_left if units else None
        if kind != "data" and (state == "done" or (kind == "render" and renders)):
            spent[kind][0] += seconds
            spent[kind][1] += renders if kind == "render" else 1
        rows.append(StageStatus(stage.name, stage.kind, state, renders, planned, seconds, left))
    return rows


def _planned(pipeline: Pipeline, stage: object) -> int:
    def count(table: QueriesTable) -> int:
        return table.take or len(pipeline.queries(table))

    if isinstance(stage, EvolveStage):
        return count(stage.queries) * (1 + stage.rounds * stage.children) * stage.seeds
    if isinstance(stage, SampleStage):
        return count(stage.queries) * stage.candidates * stage.seeds
    if isinstance(stage, EvaluateStage):
        systems = len(stage.systems) + bool(stage.ceiling)
        return sum(count(table.queries) * table.seeds * systems for table in stage.benchmarks.values())
    return 0
