"""Results of a run for other uses: a plain model, or lines of data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptreel.config import DPOStage, SFTStage
from promptreel.errors import RunError, UnknownName, UserError
from promptreel.extras import importing
from promptreel.pipeline.pipeline import Pipeline
from promptreel.stages.dpo import learned
from promptreel.stages.sft import examples
from promptreel.store.run import write_text
from promptreel.training.data import dpo_rows, sft_rows


def merge(pipeline: Pipeline, stage: str | None, to: Path, dtype: str) -> str:
    """Write the student of a training stage, by default of the last one done, into ``to``; return the stage's name."""
    run = pipeline.run
    done = [name for name in pipeline.recipe.trained() if run.model(name).exists()]
    if not done:
        raise RunError("no student is trained yet: run an sft or dpo stage first")
    if stage is not None and stage not in done:
        raise UnknownName("trained student", stage, done)
    with importing("writing a student"):
        from promptreel.training.merge import convert

    convert(run.model(stage or done[-1]), to, dtype)
    return stage or done[-1]


def export(pipeline: Pipeline, what: str, to: Path) -> int:
    """Write data of a run as JSON lines: ``sft`` or ``pairs`` as TRL reads them, or ``scores``; return their number."""
    writers = {"sft": _sft_rows, "pairs": _pair_rows, "scores": _score_rows}
    if what not in writers:
        raise UnknownName("export", what, writers)
    if not to.absolute().parent.is_dir():
        raise UserError(f"there is no directory {to.parent} to write {to.name} into: make it first")
    rows = [json.dumps(row, ensure_ascii=False) for row in writers[what](pipeline)]
    if not rows:
        raise RunError(f"the run has no {what} to export yet: do the stages that make them first")
    write_text(to, "".join(f"{row}\n" for row in rows))
    return len(rows)


def _sft_rows(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """Yield the examples that each SFT stage learns."""
    for stage in pipeline.recipe.stages(SFTStage):
        context = pipeline.context(stage.name)
        found = examples(stage, pipeline.recipe, context.candidates(stage.data))
        for row in sft_rows(context.writer(stage.student), found):
            yield {**row, "stage": stage.name}


def _pair_rows(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """Yield the pairs that each DPO stage learns, and those of stages that no DPO stage reads."""
    recipe, run = pipeline.recipe, pipeline.run
    trained = [(stage.name, stage.student, learned(stage, run)) for stage in recipe.stages(DPOStage)]
    read = {name for stage in recipe.stages(DPOStage) for name in stage.pairs}
    unread = [stage.name for stage in recipe.stage if stage.name not in read]
    for name, student, pairs in [*trained, *((name, "base", run.records.pairs(name)) for name in unread)]:
        rows = dpo_rows(pipeline.context(name).writer(student), pairs)
        for row, pair in zip(rows, pairs, strict=True):
            yield {**row, "rule": pair.rule, "margin": pair.margin, "stage": name}


def _score_rows(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    for stage in pipeline.recipe.stage:
        for candidate in pipeline.run.records.candidates(stage.name):
            yield {
                "stage": stage.name,
                "query": candidate.query.text,
                "text": candidate.text,
                "round": candidate.round,
                "reward": candidate.reward,
                "rejected": candidate.rejected,
                "scores": dict(candidate.scores),
            }
