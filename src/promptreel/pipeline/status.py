"""The state of a run: stages done and left, and about how long the rest will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from promptreel.config import QueriesTable, Recipe, TrainingStage
from promptreel.preflight.cost import count_queries
from promptreel.stages import KINDS
from promptreel.store import Run


@dataclass(frozen=True)
class StageStatus:
    name: str
    kind: str
    state: str
    """``new``, ``running`` (begun, and at work), ``stopped`` (begun, and no process works on it) or ``done``."""
    renders: int
    planned: int | None
    """Renders at most: the policy, repetitions and stored clips save some. ``None`` is unknown."""
    seconds: float
    seconds_left: float | None
    """An estimate from the stages before it and its own beginning; ``None`` while there is nothing to go by."""


def status(recipe: Recipe, run: Run) -> list[StageStatus]:
    """Return the state of every stage, in order. Nothing is written and no model is loaded.

    The time of a render, with everything around it, is taken from the rendering stages so far; that of a training, from
    the trainings so far.
    """
    records = run.records
    begun = records.stages()
    spent = {"render": [0.0, 0.0], "train": [0.0, 0.0]}
    rows = []
    for stage in recipe.stage:
        record = begun.get(stage.name)
        state, seconds = (record.state, record.seconds) if record else ("new", 0.0)
        if state == "running" and not run.is_at_work():
            state = "stopped"
        cost = KINDS[stage.kind].cost(stage, recipe, _count)
        renders, planned = records.renders(stage.name), cost.renders
        work = "render" if planned != 0 else "train" if isinstance(stage, TrainingStage) else "data"
        if work != "data" and seconds and (state == "done" or (work == "render" and renders)):
            spent[work][0] += seconds
            spent[work][1] += renders if work == "render" else 1
        units = 1 if work != "render" else None if planned is None else max(planned - renders, 0)
        left = _seconds_left(state, work, spent, units)
        if work == "data" and state != "done" and cost.completions:
            left = None
        rows.append(StageStatus(stage.name, stage.kind, state, renders, planned, seconds, left))
    return rows


def _count(table: QueriesTable) -> int | None:
    return table.take or count_queries(table)


def _seconds_left(state: str, work: str, spent: Mapping[str, list[float]], units_left: int | None) -> float | None:
    if state == "done" or work == "data":
        return 0.0
    seconds, units = spent[work]
    return seconds / units * units_left if units and units_left is not None else None
