"""A recipe at work in a run directory: its stages in order.

A stage that is done is not done again. One that was interrupted goes on at the first batch that is not stored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from promptreel import profiles, registry
from promptreel.config import AskingTable, ComponentTable, Recipe, TrainingStage
from promptreel.errors import RunError, UnknownName, UserError
from promptreel.execution.batches import Progress, silent
from promptreel.execution.step import Resources
from promptreel.execution.writer import Writer
from promptreel.package_files import locate
from promptreel.pipeline.summary import summarise
from promptreel.stages import KINDS, StageContext
from promptreel.stages.context import Trainer
from promptreel.store import Run, Summary
from promptreel.types import MAIN, SamplingParams, StageRecord

log = logging.getLogger(__name__)


class Pipeline:
    """One recipe at work in one run directory. Components are built when the first stage begins."""

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        progress: Progress = silent,
        trainers: Mapping[str, Trainer] | None = None,
    ) -> None:
        self.recipe, self.run = recipe, run
        self._progress, self._trainers = progress, trainers or {}
        self._stages = {stage.name: stage for stage in recipe.stage}
        self._inputs = {stage.name: recipe.inputs(stage) for stage in recipe.stage}
        self._warned = False

    def execute(self, until: str | None = None) -> Summary:
        """Do every stage that is not done yet, up to and including ``until``; return the summary so far."""
        for stage in self.recipe.stage:
            self.do(stage.name)
            if stage.name == until:
                break
        return self.summary()

    def do(self, name: str) -> None:
        """Do one stage, unless it is done.

        Raises ``RunError`` if an input of it is not done, and ``UnknownName`` for a stage that does not exist.
        """
        if name not in self._stages:
            raise UnknownName("stage", name, self._stages)
        stage, begun = self._stages[name], self.run.records.stages()
        if self._is_done(name, begun):
            return
        record = begun.get(name, StageRecord(name))
        if record.state == "done":
            log.warning("the model of stage %r is damaged: it is trained again", name)
        for needed in self._inputs[name]:
            if needed in self._stages and not self._is_done(needed, begun):
                raise RunError(f"stage {name!r} needs {needed!r}, which is not done: run it first")
        resources, records = self.resources, self.run.records
        self._warn_of_estimates()
        running = StageRecord(name, stage.kind, "running", record.seconds)
        records.put_stage(running)
        resources.stage, resources.began = running, time.monotonic()
        context = self.context(name)
        try:
            result = KINDS[stage.kind].run(stage, context)
        except BaseException:
            records.put_stage(replace(running, seconds=record.seconds + time.monotonic() - resources.began))
            raise
        finally:
            resources.stage = None
        seconds = record.seconds + time.monotonic() - resources.began
        output = {**result.output, **({"left_out": dict(context.left_out)} if context.left_out else {})}
        done = StageRecord(name, stage.kind, "done", seconds, output)
        records.finish_stage(done, result.candidates, result.pairs, context.failures, context.read)

    def _warn_of_estimates(self) -> None:
        """Warn once if tokens are not counted by the video model's own tokenizer."""
        if not self.resources.tokens.exact and not self._warned:
            log.warning(
                "the tokenizer of %s cannot be had: an estimate decides which prompts are too long", self.recipe.profile
            )
            self._warned = True

    def close(self) -> None:
        """End the engine's workers."""
        if "resources" in self.__dict__:
            self.resources.engine.close()

    def context(self, name: str) -> StageContext:
        """Return the run as a stage sees it."""
        return StageContext(self._stages[name], self.recipe, self.run, self.resources, self._trainers)

    @cached_property
    def resources(self) -> Resources:
        """Everything that the steps of the run share. Components are built, which loads no weights."""
        recipe = self.recipe
        generator = recipe.generator_component()
        resources = Resources(
            run=self.run,
            engine=registry.build(recipe.engine_component()),
            seed=recipe.seed,
            policy=recipe.policy.policy(),
            tokens=profiles.token_counter(recipe.profile, locate(generator.options.get("model"))),
            judge=recipe.judge.component("judge"),
            generators={MAIN: generator, **{name: recipe.generator_component(name) for name in recipe.generators}},
            rewards={name: table.component("reward") for name, table in recipe.rewards.items()},
            objectives={name: table.objective() for name, table in recipe.objectives.items()},
            writers=self._writers(),
            progress=self._progress,
        )
        written_by = [writer.llm for writer in resources.writers.values()]
        for component in [resources.judge, *resources.generators.values(), *resources.rewards.values(), *written_by]:
            resources.component(component)
        return resources

    def _writers(self) -> dict[str, Writer]:
        """Return the teacher, the base student and the systems that no stage trains."""
        recipe = self.recipe
        tables: dict[str, tuple[AskingTable, ComponentTable, int]] = {
            "teacher": (recipe.teacher, recipe.teacher.llm, 1),
            "base": (recipe.student, recipe.student.llm, 1),
        }
        tables |= {name: (table, table.llm, table.attempts) for name, table in recipe.systems.items() if table.llm}
        facts = profiles.load(recipe.profile).model_dump()
        return {
            name: Writer(
                llm.component("llm"),
                table.format,
                SamplingParams(**table.sampling.model_dump(), seed=recipe.seed),
                table.batch_size,
                facts,
                attempts,
            )
            for name, (table, llm, attempts) in tables.items()
        }

    def is_done(self, name: str) -> bool:
        """Return True if a stage is done, and the model that it trained, if any, is whole."""
        return self._is_done(name, self.run.records.stages())

    def _is_done(self, name: str, begun: Mapping[str, StageRecord]) -> bool:
        stage = self._stages[name]
        done = name in begun and begun[name].state == "done"
        return done and (not isinstance(stage, TrainingStage) or self.run.has_model(name))

    def next_of(self, kind: str) -> str:
        """Return the first stage of a kind that is not done. Raises ``UserError`` without one."""
        names = [stage.name for stage in self.recipe.stage if stage.kind == kind]
        if not names:
            raise UserError(f"the recipe has no stage of kind {kind!r}")
        left = [name for name in names if not self.is_done(name)]
        if not left:
            raise UserError(f"every {kind} stage is done: {', '.join(names)}")
        return left[0]

    def summary(self) -> Summary:
        """Return the result of the run so far, and write it as ``summary.json``."""
        summary = summarise(self.recipe, self.run)
        self.run.write_summary(summary)
        return summary
