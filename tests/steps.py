"""Steps of a run of fakes, and engines that show how a step uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fakes import recipe

from promptreel.execution.batches import Progress, silent
from promptreel.execution.local_engine import LocalEngine
from promptreel.execution.step import Resources, Step
from promptreel.execution.writer import Writer
from promptreel.jobs import Finished, Job, Worker
from promptreel.pipeline import Pipeline
from promptreel.protocols import Engine
from promptreel.store import Run
from promptreel.types import Component, SamplingParams


def resources(run: Run, engine: Engine | None = None, progress: Progress = silent) -> Resources:
    """Return what the steps of a run of the recipe of fakes share."""
    return replace(Pipeline(recipe(), run).resources, engine=engine or LocalEngine(), progress=progress)


def step(run: Run, name: str, noise: str | None = None, engine: Engine | None = None) -> Step:
    """Return a step, as after a start of the process: engine and components are new."""
    return Step(resources(run, engine), name, noise)


def writer(batch_size: int = 64, attempts: int = 1, temperature: float = 1.0) -> Writer:
    llm = Component("llm", "fake")
    return Writer(llm, "brief", SamplingParams(temperature), batch_size=batch_size, attempts=attempts)


class Watched(LocalEngine):
    """Writes down what is submitted and cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.submitted: list[tuple[str, list[int]]] = []
        """Name of the worker's factory, and sizes of the batches, of each job."""
        self.cancelled: list[int] = []
        """Number of batches that each cancelled job had left."""

    def submit(
        self, factory: Callable[..., Worker], options: Mapping[str, Any], batches: Sequence[Sequence[Any]]
    ) -> Job:
        self.submitted.append((factory.__name__, [len(batch) for batch in batches]))
        return super().submit(factory, options, batches)

    def cancel(self, job: Job) -> None:
        if job.open:
            self.cancelled.append(len(job.open))
        super().cancel(job)


class TwoAtOnce(Watched):
    """An engine that is already at work on the next batch when one ends."""

    def cancel(self, job: Job) -> None:
        waiting = set(sorted(job.open)[1:])
        if waiting:
            self.cancelled.append(len(waiting))
        job.open -= waiting


class Backwards(Watched):
    """An engine whose batches finish in reverse order."""

    def finished(self, *jobs: Job) -> Iterator[Finished]:
        for job in reversed(jobs):
            while job.open:
                number = max(job.open)
                job.open.remove(number)
                yield self._outcome(job, number)
