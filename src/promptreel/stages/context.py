"""A run as its stages see it: queries, writers, objectives, steps, and the results of earlier stages."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from promptreel import queries, registry
from promptreel.config import AnyStage, QueriesTable, Recipe, SamplingTable
from promptreel.errors import RunError
from promptreel.execution.local_engine import set_threads
from promptreel.execution.step import Resources, Step
from promptreel.execution.writer import Writer
from promptreel.extras import importing
from promptreel.objective import Objective
from promptreel.package_files import locate
from promptreel.store import Run
from promptreel.types import Candidate, Component, Pair, Query, SamplingParams, distinct

log = logging.getLogger(__name__)

Trainer = Callable[[Any, Sequence[Any]], dict[str, float]]
"""A training method: it takes a ``TrainingJob`` and data, and returns metrics."""


@dataclass(frozen=True)
class StageResult:
    """Everything that a stage made."""

    output: dict[str, Any]
    """The stage's part of the run's summary."""
    candidates: Sequence[Candidate] = ()
    pairs: Sequence[Pair] = ()


@dataclass
class StageContext:
    """One stage at work in one run."""

    stage: AnyStage
    recipe: Recipe
    run: Run
    resources: Resources
    trainers: Mapping[str, Trainer] = field(default_factory=dict)
    """Training methods by stage kind, instead of the package's own."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Queries that the stage leaves out, by reason: duplicates, refusals."""
    read: list[Query] = field(default_factory=list)
    """Queries that the stage has read."""
    failures: Counter[str] = field(default_factory=Counter)
    """Results that its steps could not have, by reason."""

    # Steps

    def step(self, name: str = "", noise: str | None = None, judge: Component | None = None) -> Step:
        """Return the step of this name, by default the stage's. Noise seeds are those of the stage, unless named."""
        return Step(self.resources, name or self.stage.name, noise or self.stage.name, judge, self.failures)

    # Inputs

    def queries(self, table: QueriesTable) -> list[Query]:
        """Return the queries of a slice."""
        named: dict[str, Any] = {}
        if not Path(table.source).is_file():
            named = dict.fromkeys(registry.names("dataset"))
            if table.source in named:
                named[table.source] = registry.find("dataset", table.source)
        found = queries.read(
            table.source, table.skip, table.take, named, near=table.near, split=table.split, left_out=self.left_out
        )
        self.read += found
        return found

    def admitted(self, found: Sequence[Query], step: str) -> list[Query]:
        """Return the queries that the policy admits; others are counted as left out."""
        policy = self.resources.policy
        if policy.safety != "refuse":
            return list(found)
        judged = self.step(step).judge([Candidate.as_typed(query) for query in found])
        reasons = [policy.admits(candidate) for candidate in judged]
        self.left_out.update(reason for reason in reasons if reason)
        return [query for query, reason in zip(found, reasons, strict=True) if reason is None]

    def candidates(self, stage: str) -> dict[Query, list[Candidate]]:
        """Return the candidates that an earlier stage stored, by query, in order."""
        by_query: dict[Query, list[Candidate]] = {}
        for candidate in self.run.records.candidates(stage):
            by_query.setdefault(candidate.query, []).append(candidate)
        return by_query

    def objective(self, name: str) -> Objective:
        return self.resources.objectives[name]

    # Writers

    def writer(self, name: str) -> Writer:
        """Return the teacher, the base student, a further system, or the student that a stage trained."""
        known = self.resources.writers
        if name in known:
            return known[name]
        system = self.recipe.systems.get(name)
        if system and system.student:
            return replace(self.writer(system.student), attempts=system.attempts)
        base = known["base"]
        options = {key: value for key, value in base.llm.options.items() if key not in ("adapter", "revision")}
        return replace(base, llm=Component("llm", base.llm.name, {**options, "model": str(self.run.model(name))}))

    def drafts(self, student: str, table: QueriesTable, count: int, sampling: SamplingTable | None) -> list[Candidate]:
        """Return distinct candidates of a student for each admitted query, ``count`` draws each."""
        writer = self.writer(student)
        if sampling:
            params = SamplingParams(**sampling.model_dump(), seed=self.recipe.seed)
            writer = writer.with_sampling(params)
        name = self.stage.name
        admitted = self.admitted(self.queries(table), f"{name}/queries")
        asked = [query for query in admitted for _ in range(count)]
        texts = self.step(f"{name}/0").write(writer, "rewrite", [{"query": query.text} for query in asked])
        drawn = [Candidate(query, text, round=1) for query, text in zip(asked, texts, strict=True) if text]
        return distinct(drawn)

    # Training

    def train(self, student: str, data: Sequence[Any], trainer: dict[str, Any], lora: dict[str, Any]) -> dict[str, Any]:
        """Train a student on data by the method of the stage's kind and publish it; return its metrics."""
        with importing("training"):
            from promptreel.training.job import TrainingJob
            from promptreel.training.progress import StepReport
        stage, engine = self.stage, self.resources.engine
        writer = self.writer(student)
        options = writer.llm.options
        engine.release()
        set_threads(self.recipe.threads)
        with self.run.publishing(stage.name) as out:
            job = TrainingJob(
                student=locate(options["model"]),
                writer=writer,
                out=Path(out),
                seed=self.recipe.seed,
                adapter=locate(options.get("adapter")),
                revision=options.get("revision"),
                trainer=trainer,
                lora=lora,
                callbacks=[StepReport(self.resources.progress, stage.name)],
            )
            metrics = self._trainer()(job, data)
        engine.release()  # of the training itself, which refers to its model in circles
        return metrics

    def _trainer(self) -> Trainer:
        """Return the training method of the stage's kind: the function of that name in the module of that name."""
        kind = self.stage.kind
        if kind in self.trainers:
            return self.trainers[kind]
        with importing("training"):
            method: Trainer = getattr(import_module(f"promptreel.training.{kind}"), kind)
        return method


def rejections(candidates: Sequence[Candidate]) -> dict[str, int]:
    """Return the number of rejected candidates, by reason."""
    return dict(Counter(candidate.rejected for candidate in candidates if candidate.rejected))


def nothing_to_learn(stage: AnyStage, what: str) -> RunError:
    return RunError(f"{what}: {stage.name!r} has nothing to learn")
