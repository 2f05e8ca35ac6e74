"""An evaluation of a run's systems on the queries of a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from promptreel.config import BenchmarkTable, EvaluateStage, QueriesTable
from promptreel.errors import RunError, UnknownName, UserError
from promptreel.fingerprint import content_id
from promptreel.pipeline.pipeline import Pipeline
from promptreel.stages.evaluate import measure
from promptreel.store import Summary


def evaluate_file(pipeline: Pipeline, path: Path, systems: Sequence[str] | None, clips_per_prompt: int) -> Summary:
    """Compare systems of a run on the queries of a file, as its evaluation does; return a summary of it, with its cost.

    It pays only for results that no evaluation of a file of this name has stored: other systems, queries or clips.
    """
    recipe, run = pipeline.recipe, pipeline.run
    stage = next(iter(recipe.stages(EvaluateStage)), None)
    if stage is None:
        raise UserError("the recipe has no evaluate stage, which names the reward model and the metrics")
    trained = recipe.trained()
    known = {"raw", "base", *trained, *recipe.systems}
    chosen = list(systems or stage.systems)
    for name in chosen:
        if name not in known:
            raise UnknownName("system", name, known)
        if name in trained and not run.model(name).exists():
            raise RunError(f"{name!r} is not trained yet: run its stage first")
    table = BenchmarkTable(queries=QueriesTable(source=str(path)), clips_per_prompt=clips_per_prompt)
    adhoc = stage.model_copy(
        update={"name": f"evaluate:{path.name}", "systems": chosen, "benchmarks": {path.name: table}}
    )
    context = pipeline.context(stage.name)
    context.stage = adhoc
    asked = [[query.text, query.negative, query.options] for query in context.queries(table.queries)]
    mark = f":{content_id(asked, chosen, stage.ceiling, clips_per_prompt)[:12]}"
    own, began = adhoc.name + mark, time.monotonic()
    paid = run.records.renders(own)
    found = measure(adhoc, context, path.name, table, mark)
    return Summary(
        **dict(found),
        recipe=recipe.name,
        finished=True,
        systems=tuple(chosen),
        ceiling=stage.ceiling,
        renders={adhoc.name: run.records.renders(own) - paid},
        seconds={adhoc.name: round(time.monotonic() - began, 1)},
        failures=dict(+context.failures),
    )
