"""Batches of one kind of work: planned from the ledger, submitted at once, stored whole as they finish."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptreel.errors import RenderError, RunError
from promptreel.jobs import Finished, Job, Worker
from promptreel.protocols import Engine
from promptreel.store.content import Content
from promptreel.store.ledger import Batch, Ledger, Plan
from promptreel.types import Failure

Progress = Callable[[str, int, int], None]
"""Called after every stored batch with the name of the work, the items done, and the items in all.

It may raise, such as ``Interrupted``, to stop the run: batches at work are stored before it stops.
"""


def silent(work: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass
class Work:
    """A kind of work on items, and the worker that does it."""

    kind: str
    """Name in the ledger: ``complete``, ``judge``, ``render`` or ``score NAME``."""
    content: type[Content]
    fingerprint: str
    """Fingerprint of the component that does it."""
    size: int
    """Items in a batch at most."""
    factory: Callable[..., Worker]
    options: Mapping[str, Any]
    items: Mapping[str, Any]
    """Content id of the result to the item that is asked for."""
    failed: Callable[[Failure], Any] = lambda failure: failure
    """Result to store for an item that failed even alone."""
    check: Callable[[Batch, Sequence[Any]], Sequence[Any]] = lambda batch, results: results
    """Called with the results of a batch before they are stored; it returns them, repaired, or raises."""


@dataclass
class _BatchState:
    """The state of one planned batch whose parts are at work."""

    whole: Batch
    halved: dict[Batch, str] = field(default_factory=dict)
    """Parts that could not be done and are not recorded yet, with the reasons."""
    failed: dict[Batch, Failure] = field(default_factory=dict)
    """Single items for which memory did not suffice."""


class Execution:
    """The execution of one kind of work in a step."""

    def __init__(self, engine: Engine, ledger: Ledger, step: str, work: Work, report: Callable[[int, int], None]):
        self.engine, self.ledger, self.step, self.work, self.report = engine, ledger, step, work, report
        self.jobs: list[tuple[Job, list[Batch]]] = []
        self.states: dict[int, _BatchState] = {}
        self.unmet: list[tuple[_BatchState, Batch, Failure]] = []
        """Single items for which memory did not suffice, until another item shows that it can."""
        self.stopped: Exception | None = None
        """Error for which no more batches are begun."""

    def results(self) -> dict[str, Any]:
        """Return the results of all items, by id, after the missing ones were worked on and stored.

        Raises the error of the progress callback, ``RunError`` if not even single items fit into memory, and the first
        error of a worker that is no ``RenderError``: each once the batches at work are stored.
        """
        work = self.work
        plan = self.ledger.plan(self.step, work, list(work.items))
        left = plan.left
        if not left:
            self.ledger.commit(plan)
            return plan.known
        self.total = sum(len(batch.ids) for batch in plan.batches)
        self.done = self.total - sum(len(part.ids) for part in left)
        self.states = {batch.number: _BatchState(batch) for batch in plan.batches}
        self._report()
        if not self.stopped:
            self._submit(left)
            for finished in self._finished():
                try:
                    self._take(plan, finished)
                except Exception as error:  # noqa: BLE001 - raised below, once the batches at work are stored
                    self._stop(error)
                self._report()
        if self.unmet and not self.stopped:
            self.stopped = self._no_memory(self.unmet[0][2])
        if self.stopped:
            raise self.stopped
        return plan.known

    def _submit(self, parts: list[Batch]) -> None:
        items = [[self.work.items[key] for key in part.ids] for part in parts]
        self.jobs.append((self.engine.submit(self.work.factory, self.work.options, items), parts))

    def _finished(self) -> Iterator[Finished]:
        """Yield finished batches, also of jobs that are submitted meanwhile."""
        while jobs := [job for job, _ in self.jobs if job.open]:
            yield next(self.engine.finished(*jobs))

    def _stop(self, error: Exception) -> None:
        """Begin no more batches; those at work are still waited for and stored."""
        self.stopped = self.stopped or error
        for job, _ in self.jobs:
            self.engine.cancel(job)

    def _report(self) -> None:
        try:
            self.report(self.done, self.total)
        except Exception as error:  # noqa: BLE001 - raised once the batches at work are stored
            self._stop(error)

    def _take(self, plan: Plan, finished: Finished) -> None:
        parts = next(parts for job, parts in self.jobs if job is finished.job)
        part = parts[finished.number]
        state = self.states[part.number]
        if finished.error is None:
            items = [self.work.items[key] for key in part.ids]
            if len(finished.results) != len(items):
                raise RunError(f"{self.work.kind}: {len(finished.results)} results came for {len(items)} items")
            self._store(plan, state, part, self.work.check(part, finished.results), items)
        elif not isinstance(finished.error, RenderError):
            raise finished.error
        elif len(part.ids) > 1:
            state.halved[part] = finished.error.reason
            if not self.stopped:
                self._submit(list(part.halves))
        else:
            failure = Failure(finished.error.reason, str(finished.error))
            if failure.reason != "memory":
                self._store_failure(plan, state, part, failure)
            elif part.part:
                state.failed[part] = failure
                self._check_memory(plan, state, failure)
            else:
                self.unmet.append((state, part, failure))

    def _check_memory(self, plan: Plan, state: _BatchState, failure: Failure) -> None:
        """Raise if memory sufficed for no item of a batch; store the failures once it did for another one."""
        if len(state.failed) == len(state.whole.ids):
            raise self._no_memory(failure)
        if any(key in plan.known for key in state.whole.ids):
            self._store_failures(plan, state)

    def _no_memory(self, failure: Failure) -> RunError:
        return RunError(
            f"there is no memory for {self.work.kind}, not even for one at a time ({failure.detail}): make room, or "
            "load the model smaller, and the same command goes on from here"
        )

    def _store(self, plan: Plan, state: _BatchState, part: Batch, results: Sequence[Any], items: Sequence[Any]) -> None:
        self.ledger.commit(plan, part, items, results, state.halved)
        state.halved.clear()
        self.done += len(part.ids)
        self._store_failures(plan, state)
        while self.unmet:
            self._store_failure(plan, *self.unmet.pop())

    def _store_failures(self, plan: Plan, state: _BatchState) -> None:
        while state.failed:
            part, failure = state.failed.popitem()
            self._store_failure(plan, state, part, failure)

    def _store_failure(self, plan: Plan, state: _BatchState, part: Batch, failure: Failure) -> None:
        self._store(plan, state, part, [self.work.failed(failure)], [self.work.items[part.ids[0]]])
