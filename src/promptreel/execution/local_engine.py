"""The engine of one process: workers in this process, kept while they fit."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from promptreel.errors import PromptreelError, RenderError, RunError, UserError
from promptreel.extras import importing
from promptreel.faults import out_of_memory
from promptreel.fingerprint import content_id
from promptreel.jobs import Finished, Job, Worker


class LocalEngine:
    """Runs batches one after the other and keeps the ``resident`` workers used last, or as many as fit.

    Where memory runs out with several workers there, a batch is done again with its own alone, and from then on fewer
    are kept. With ``resident`` 1 no two models are ever loaded at once. Eight are enough for a round of evolution by
    a few rewards: it loads nothing twice. ``threads`` are torch's on the CPU; ``None`` takes all cores.
    """

    def __init__(self, resident: int = 8, threads: int | None = None) -> None:
        if resident < 1:
            raise UserError(f"resident is {resident}: an engine keeps at least the worker that is at work, so say 1")
        self.resident, self.threads = resident, threads
        self._workers: OrderedDict[str, Worker] = OrderedDict()

    def submit(
        self, factory: Callable[..., Worker], options: Mapping[str, Any], batches: Sequence[Sequence[Any]]
    ) -> Job:
        return Job(factory, options, batches)

    def finished(self, *jobs: Job) -> Iterator[Finished]:
        for job in jobs:
            while job.open:
                number = min(job.open)
                job.open.remove(number)
                yield self._outcome(job, number)

    def _outcome(self, job: Job, number: int) -> Finished:
        try:
            return Finished(job, number, self.run(job.factory, job.options, job.batches[number]))
        except RenderError as error:
            # A new one: the traceback of this one would hold the batch in memory while its halves are at work.
            return Finished(job, number, error=RenderError(str(error), error.reason))
        except Exception as error:  # noqa: BLE001 - the step decides what it means
            return Finished(job, number, error=error)

    def cancel(self, job: Job) -> None:
        job.open.clear()

    def release(self) -> None:
        self._workers.clear()
        _free_memory()

    def close(self) -> None:
        self._workers.clear()

    def run(self, factory: Callable[..., Worker], options: Mapping[str, Any], batch: Sequence[Any]) -> list[Any]:
        """Return the results of one batch, from the worker that the factory builds."""
        fits = self.resident
        while True:
            try:
                results = self._worker(factory, options)(batch)
            except Exception as error:
                key = _key(factory, options)
                others = len([name for name in self._workers if name != key])
                alone = others == 0
                if not out_of_memory(error) or (alone and isinstance(error, PromptreelError)):
                    raise
                if alone:
                    raise RunError(
                        f"a model and its batch do not fit ({error}): load it smaller, or ask less"
                    ) from error
                fits = max(others, 1)
            else:
                self.resident = fits
                return results
            self.release()  # only here is the error gone, and with it what its traceback holds

    def _worker(self, factory: Callable[..., Worker], options: Mapping[str, Any]) -> Worker:
        key = _key(factory, options)
        if key not in self._workers:
            set_threads(self.threads)
            if len(self._workers) >= self.resident:
                while len(self._workers) >= self.resident:
                    self._workers.popitem(last=False)
                _free_memory()
            self._workers[key] = factory(**options)
        self._workers.move_to_end(key)
        return self._workers[key]


def _key(factory: Callable[..., Worker], options: Mapping[str, Any]) -> str:
    return content_id(f"{factory.__module__}.{factory.__qualname__}", repr(sorted(options.items())))


def set_threads(threads: int | None) -> None:
    """Set the number of torch's CPU threads in this process, if one is given."""
    if threads:
        with importing("setting threads"):
            import torch
        torch.set_num_threads(threads)


def _free_memory() -> None:
    """Free models that are no longer used: those in cycles of references, and memory that torch keeps of freed ones."""
    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
