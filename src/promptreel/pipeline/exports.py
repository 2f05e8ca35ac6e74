"""What a run made, for other uses: on other queries, as a plain model, as lines of data."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from promptreel.config import BenchmarkTable, CritiqueStage, DPOStage, EvaluateStage, PairsStage, QueriesTable, SFTStage
from promptreel.errors import RunError, UnknownName, UserError, importing
from promptreel.pipeline.stages import Pipeline
from promptreel.store.run import write_text
from promptreel.types import content_id


def evaluate_file(pipeline: Pipeline, path: Path, systems: Sequence[str] | None, seeds: int) -> dict[str, Any]:
    """Compare systems of this run on the queries of a file, as its evaluation does; a summary of it, with what it cost.

    It pays for what no evaluation of a file of this name has paid for: other systems, other queries, more seeds.
    """
    stage = next(iter(pipeline.recipe.stages(EvaluateStage)), None)
    if stage is None:
        raise UserError("the recipe has no evaluate stage, which says who judges and by what")
    trained = {s.name for s in pipeline.recipe.stage if isinstance(s, SFTStage | DPOStage)}
    for name in systems or []:
        known = {"raw", "base", *trained, *pipeline.recipe.systems}
        if name not in known:
            raise UnknownName("system", name, known)
    chosen = list(systems or stage.systems)
    for name in chosen:
        if name in trained and not pipeline.run.model(name).exists():
            raise RunError(f"{name!r} is not trained yet: run its stage first")
    table = BenchmarkTable(queries=QueriesTable(source=str(path)), seeds=seeds)
    adhoc = stage.model_copy(
        update={"name": f"evaluate:{path.name}", "systems": chosen, "benchmarks": {path.name: table}}
    )
    asked = [[query.text, query.negative, query.options] for query in pipeline.queries(table.queries)]
    mark = f":{content_id(asked, chosen, stage.ceiling, seeds)[:12]}"
    step, database = adhoc.name + mark, pipeline.run.database
    paid, began = database.renders(step), time.monotonic()
    pipeline.scorer.losses.clear()
    pipeline.desk.losses.clear()
    found = pipeline.evaluate(adhoc, mark)
    return {
        "systems": chosen,
        "ceiling": stage.ceiling,
        "renders": {adhoc.name: database.renders(step) - paid},
        "seconds": {adhoc.name: round(time.monotonic() - began, 1)},
        "losses": dict(+(pipeline.scorer.losses + pipeline.desk.losses)),
        **found,
    }


def merge(pipeline: Pipeline, stage: str | None, to: Path, dtype: str) -> str:
    """Write the student of a training stage, by default of the last one done, into ``to``; its name."""
    done = [
        s.name
        for s in pipeline.recipe.stage
        if isinstance(s, SFTStage | DPOStage) and pipeline.run.model(s.name).exists()
    ]
    if not done:
        raise RunError("no student is trained yet: run an sft or dpo stage first")
    if stage is not None and stage not in done:
        raise UnknownName("trained student", stage, done)
    with importing("writing a student"):
        from promptreel.training.merge import convert

    convert(pipeline.run.model(stage or done[-1]), to, dtype)
    return stage or done[-1]


def export(pipeline: Pipeline, what: str, to: Path) -> int:
    """Write what the run made as JSON lines: ``sft`` or ``pairs`` as TRL reads them, or ``scores``."""
    writers = {"sft": _sft_rows, "pairs": _pair_rows, "scores": _score_rows}
    if what not in writers:
        raise UnknownName("export", what, writers)
    if not to.absolute().parent.is_dir():
        raise UserError(f"there is no directory {to.parent} to write {to.name} into: make it first")
    rows = [json.dumps(row, ensure_ascii=False) for row in writers[what](pipeline)]
    write_text(to, "".join(f"{row}\n" for row in rows))
    return len(rows)


def _sft_rows(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    writer = pipeline.writer("base")
    for stage in pipeline.recipe.stages(SFTStage):
        for query, text in pipeline.best(stage):
            completion = [{"role": "assistant", "content": text}]
            yield {"prompt": writer.ask("rewrite", query=query.text), "completion": completion}


def _pair_rows(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    writer = pipeline.writer("base")
    sources = [s.name for s in pipeline.recipe.stage if isinstance(s, PairsStage | CritiqueStage)]
    for source in sources:
        for pair in pipeline.run.database.pairs(source):
            yield {
                "prompt": writer.ask("rewrite", query=pair.query.text),
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
                "rule": pair.rule,
                "margin": pair.margin,
            }


def _score_rows(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    for stage in pipeline.recipe.stage:
        for query, candidate in pipeline.run.database.rewrites(stage.name):
            yield {
                "stage": stage.name,
                "query": query.text,
                "rewrite": candidate.rewrite,
                "round": candidate.round,
                "total": candidate.total,
                "dropped": candidate.dropped,
                "dimensions": candidate.dimensions,
            }
