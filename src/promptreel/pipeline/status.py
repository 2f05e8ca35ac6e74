"""What of a run is done, what is left, and about how long that will take."""

from __future__ import annotations

from dataclasses import dataclass

from promptreel.config import QueriesTable
from promptreel.pipeline.plan import planned
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
    """An estimate from the stages before it and its own beginning; ``None`` while there is nothing to go by."""


def status(pipeline: Pipeline) -> list[StageStatus]:
    """The state of every stage, in order.

    What a render takes, with everything around it, is taken from the rendering stages so far; what a
    training takes, from the trainings so far.
    """

    def count(table: QueriesTable) -> int:
        return table.take or len(pipeline.queries(table))

    rows = []
    systems = pipeline.recipe.systems
    spent = {"render": [0.0, 0.0], "train": [0.0, 0.0]}
    for stage in pipeline.recipe.stage:
        state, seconds, _ = pipeline.run.database.stage(stage.name) or ("new", 0.0, {})
        renders, at_most = pipeline.run.database.renders(stage.name), planned(stage, count, systems).renders or 0
        kind = "render" if at_most else "train" if stage.kind in ("sft", "dpo") else "data"
        if kind != "data" and seconds and (state == "done" or (kind == "render" and renders)):
            spent[kind][0] += seconds
            spent[kind][1] += renders if kind == "render" else 1
        left = None if state != "done" and stage.kind == "critique" else 0.0
        if state != "done" and kind != "data":
            time, units = spent[kind]
            units_left = max(at_most - renders, 0) if kind == "render" else 1
            left = time / units * units_left if units else None
        rows.append(StageStatus(stage.name, stage.kind, state, renders, at_most, seconds, left))
    return rows
