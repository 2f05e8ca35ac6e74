"""Workers and components for tests of engines. Worker processes import this file, so it imports nothing slow."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptreel.errors import MissingExtra, RenderError
from promptreel.jobs import Worker
from promptreel.testing import FakeGenerator, FakeLLM
from promptreel.types import Clip, Completion, Failure, RenderRequest

BUILT: Counter[str] = Counter()
"""Workers built in this process, by name."""


def naming(name: str) -> Worker:
    """Build a worker that gives each item with its own name and the number of workers of that name."""
    BUILT[name] += 1
    return lambda batch: [(name, item, BUILT[name]) for item in batch]


def living_in() -> Worker:
    """Build a worker that gives the id of its process."""
    return lambda batch: [os.getpid() for _ in batch]


def sleeping(log: str, seconds: float) -> Worker:
    """Build a worker that writes down each batch as it begins and as it ends."""

    def work(batch: Sequence[Any]) -> list[Any]:
        _write(log, f"begin {batch[0]}")
        time.sleep(seconds)
        _write(log, f"end {batch[0]}")
        return list(batch)

    return work


def failing() -> Worker:
    """Build a worker that raises what an item names."""
    errors = {
        "memory": RenderError("no room", "memory"),
        "extra": MissingExtra("the moon", "cheese"),
        "value": ValueError("no number"),
        "odd": OddError("strange", 7),
    }

    def work(batch: Sequence[Any]) -> list[Any]:
        for item in batch:
            if item in errors:
                raise errors[item]
        return list(batch)

    return work


def mortal(log: str, deaths: int) -> Worker:
    """Build a worker whose process ends, so many times, at a batch with the item ``death``."""

    def work(batch: Sequence[Any]) -> list[Any]:
        _write(log, f"{batch[0]}")
        if "death" in batch and Path(log).read_text().split().count("death") <= deaths:
            os._exit(9)
        return [f"{item} done" for item in batch]

    return work


def devices() -> Worker:
    """Build a worker that gives the GPUs that its process sees, by environment."""
    return lambda batch: [os.environ.get("CUDA_VISIBLE_DEVICES") for _ in batch]


def threads() -> Worker:
    """Build a worker that gives the number of torch's threads."""
    import torch

    return lambda batch: [torch.get_num_threads() for _ in batch]


def _write(log: str, line: str) -> None:
    with Path(log).open("a") as file:
        file.write(f"{line}\n")


class OddError(Exception):
    """An error that cannot be made again from its message, as pickle tries to."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")


class HereLLM(FakeLLM):
    """A language model that gives the id of its process."""

    def complete(self, *given: Any) -> list[Completion | Failure]:
        return [Completion(str(os.getpid()), 1, 1) for _ in super().complete(*given)]


class RemoteLLM(HereLLM):
    """The same, behind a server."""

    remote = True


class LoggedGenerator(FakeGenerator):
    """A generator that writes down every clip that it is about to render, in the directory it works in.

    Then it waits for the seconds that a file ``pause`` there names.
    """

    log, pause = Path("renders.log"), Path("pause")

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        with self.log.open("a") as file:
            file.write("".join(f"{request.clip_id(self.fingerprint)}\n" for request in requests))
        if self.pause.exists():
            time.sleep(float(self.pause.read_text()))
        return super().render(requests)


class MortalGenerator(LoggedGenerator):
    """A generator whose process dies once, at its first batch."""

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        if not self.log.exists():
            self.log.touch()
            os._exit(9)
        return super().render(requests)


class DoomedGenerator(FakeGenerator):
    """A generator whose process dies at every batch, as the operating system ends one for want of memory."""

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        os._exit(9)
