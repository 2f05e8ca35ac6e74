"""The engine of one machine with several processes: each holds its own models."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing.connection import wait as wait_for
from typing import Any

from promptreel import registry
from promptreel.errors import RunError, UserError
from promptreel.execution.local_engine import LocalEngine
from promptreel.faults import one_line
from promptreel.jobs import Finished, Job, Worker
from promptreel.types import Component

DEATHS = 2
"""Number of processes that may die at a batch until it is given up."""

_engine: LocalEngine
"""In a worker process: the engine that runs its batches."""


@dataclass
class _Slot:
    """A place where one batch runs at a time: a process, or a thread of this one."""

    executor: Executor
    at_work: _Task | None = None
    ready: Future[None] | None = None
    """Result of the first call of a process: done once it has started."""


@dataclass
class _Task:
    """A batch of a job on its way through a slot."""

    job: Job
    number: int
    line: deque[_Task] = field(repr=False, compare=False)
    """The line that it waits in: for a process, or for the thread that asks servers."""
    deaths: int = 0
    future: Future[list[Any]] | None = field(default=None, compare=False)


class ProcessEngine:
    """Runs batches in ``workers`` processes, which are spawned, so that torch and CUDA work in them.

    Each process keeps ``resident`` models and has torch's ``threads`` on the CPU. ``devices`` are the GPUs of the
    processes in turn, as in ``CUDA_VISIBLE_DEVICES``; by default all processes see all GPUs. Models behind a server are
    asked from this process, by one thread: so one rate limiter holds for everything that asks the server. A process
    that dies is replaced and its batch done again.
    """

    def __init__(
        self, workers: int = 2, resident: int = 8, threads: int | None = None, devices: Sequence[str | int] = ()
    ) -> None:
        if workers < 1:
            raise UserError(f"workers is {workers}: an engine of processes needs at least one")
        self.workers, self.resident, self.threads, self.devices = workers, resident, threads, devices
        self._own = LocalEngine(resident, threads)
        self._processes: list[_Slot] = []
        self._thread: _Slot | None = None
        self._waiting: deque[_Task] = deque()
        self._waiting_remote: deque[_Task] = deque()
        self._untaken: list[Finished] = []

    def submit(
        self, factory: Callable[..., Worker], options: Mapping[str, Any], batches: Sequence[Sequence[Any]]
    ) -> Job:
        job = Job(factory, options, batches)
        line = self._waiting_remote if _is_remote(options) else self._waiting
        line.extend(_Task(job, number, line) for number in range(len(batches)))
        self._begin()
        return job

    def finished(self, *jobs: Job) -> Iterator[Finished]:
        while any(job.open for job in jobs):
            ready = next((result for result in self._untaken if result.job in jobs), None)
            if ready is None:
                self._wait()
                continue
            self._untaken.remove(ready)
            ready.job.open.remove(ready.number)
            yield ready

    def _wait(self) -> None:
        """Wait until any batch finishes, of any job.

        Its slot stays free until the next call: its result may cancel the batches that still wait.
        """
        self._begin()
        busy = [(slot, slot.at_work) for slot in self._slots() if slot.at_work]
        if not busy:
            raise RunError("the engine was released while batches were open: submit them again")
        done, _ = wait([task.future for _, task in busy if task.future], return_when=FIRST_COMPLETED)
        for slot, task in busy:
            if task.future in done:
                slot.at_work = None
                self._end(slot, task)

    def cancel(self, job: Job) -> None:
        for line in (self._waiting, self._waiting_remote):
            for task in [task for task in line if task.job is job]:
                line.remove(task)
                job.open.discard(task.number)

    def release(self) -> None:
        self.close()
        self._own.release()

    def close(self) -> None:
        for slot in self._slots():
            slot.executor.shutdown(wait=True, cancel_futures=True)
        self._processes.clear()
        self._thread = None
        self._waiting.clear()
        self._waiting_remote.clear()
        self._untaken.clear()
        self._own.close()

    def _slots(self) -> list[_Slot]:
        return [*self._processes, *([self._thread] if self._thread else [])]

    def _begin(self) -> None:
        """Give waiting batches to free slots, in order."""
        while self._waiting_remote and (slot := self._free_thread()):
            self._start(slot, self._waiting_remote.popleft())
        while self._waiting and (slot := self._free_process()):
            self._start(slot, self._waiting.popleft())

    def _free_thread(self) -> _Slot | None:
        if self._thread is None:
            self._thread = _Slot(ThreadPoolExecutor(1, "endpoint"))
        return None if self._thread.at_work else self._thread

    def _free_process(self) -> _Slot | None:
        free = next((slot for slot in self._processes if slot.at_work is None), None)
        if free is None and len(self._processes) < self.workers:
            free = _Slot(self._process(len(self._processes)))
            self._processes.append(free)
        return free

    def _process(self, place: int) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        device = str(self.devices[place % len(self.devices)]) if self.devices else None
        level = logging.getLogger("promptreel").level
        return ProcessPoolExecutor(1, spawn, _set_up, (self.resident, self.threads, device, registry.ADDED, level))

    def _replace(self, slot: _Slot) -> None:
        """Start another process in place of one that died.

        Raises ``UserError`` if it died as it started: another one would do the same.
        """
        if slot.ready and slot.ready.done() and slot.ready.exception():
            raise UserError(
                "a worker process ended as it started (its own message is above): in a script, call promptreel under  "
                'if __name__ == "__main__":  since worker processes import the script'
            )
        slot.executor.shutdown(wait=False)
        slot.executor, slot.ready = self._process(self._processes.index(slot)), None

    def _start(self, slot: _Slot, task: _Task) -> None:
        work = task.job.factory, task.job.options, task.job.batches[task.number]
        slot.at_work = task
        if slot is self._thread:
            task.future = slot.executor.submit(self._own.run, *work)
            return
        try:
            slot.ready = slot.ready or slot.executor.submit(_greet)
            task.future = slot.executor.submit(_run, *work)
        except BrokenProcessPool:  # it died while it was idle
            self._replace(slot)
            slot.ready = slot.executor.submit(_greet)
            task.future = slot.executor.submit(_run, *work)

    def _end(self, slot: _Slot, task: _Task) -> None:
        """Keep the result of a batch. If its process died, start a new process and put the batch in line again."""
        assert task.future
        error = task.future.exception()
        if isinstance(error, BrokenProcessPool):
            self._replace(slot)
            task.deaths += 1
            if task.deaths < DEATHS:
                task.line.appendleft(task)
                return
            error = RunError(
                f"a worker process died {DEATHS} times at the same batch, perhaps for want of memory: make room, or "
                "use fewer workers, and the same command goes on from here"
            )
        if error is None:
            self._untaken.append(Finished(task.job, task.number, task.future.result()))
        elif isinstance(error, Exception):
            self._untaken.append(Finished(task.job, task.number, error=error))
        else:
            raise error


def _is_remote(options: Mapping[str, Any]) -> bool:
    """Return True if a component among a worker's options asks a server."""
    named = [option for option in options.values() if isinstance(option, Component)]
    return any(
        registry.declared(part.kind, part.name, "remote", False) for option in named for part in registry.whole(option)
    )


def _set_up(
    resident: int, threads: int | None, device: str | None, added: Mapping[str, Mapping[str, str]], level: int
) -> None:
    """Prepare a worker process: signals are the parent's to handle, and it ends when the parent does."""
    global _engine
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device  # read when CUDA is first used
    logging.basicConfig(format="warning: %(message)s", level=logging.ERROR)
    logging.getLogger("promptreel").setLevel(level)
    for kind, components in added.items():
        for name, target in components.items():
            registry.register(kind, name, target)
    _engine = LocalEngine(resident, threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _greet() -> None:
    """Do nothing: a process that answers has started."""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        wait_for([parent.sentinel])
        os._exit(1)


def _run(factory: Callable[..., Worker], options: Mapping[str, Any], batch: Sequence[Any]) -> list[Any]:
    try:
        return _engine.run(factory, options, batch)
    except Exception as error:
        raise _portable(error) from error


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process: itself, or its name and message."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - of this process's own making
    except Exception:  # noqa: BLE001 - whatever a foreign class raises as it is copied
        return RuntimeError(one_line(error))
    return error
