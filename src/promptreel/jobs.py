"""Jobs for an engine: batches for a worker, and their results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Worker = Callable[[Sequence[Any]], list[Any]]
"""Holder of a model; maps a batch to its results, one for each item."""


@dataclass(eq=False)
class Job:
    """Batches that were submitted together to an engine."""

    factory: Callable[..., Worker]
    options: Mapping[str, Any]
    batches: Sequence[Sequence[Any]]
    open: set[int] = field(default_factory=set)
    """Numbers of the batches whose results were not taken yet."""

    def __post_init__(self) -> None:
        self.open = set(range(len(self.batches)))


@dataclass(frozen=True)
class Finished:
    """The results of one batch of a job, or the error that its worker raised."""

    job: Job
    number: int
    results: list[Any] = field(default_factory=list)
    error: Exception | None = None
