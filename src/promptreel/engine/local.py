"""The engine of one machine: workers in this process, kept while they fit."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from promptreel.protocols import Worker
from promptreel.types import content_id


class LocalEngine:
    """Runs batches one after the other and keeps the ``resident`` workers used last."""

    def __init__(self, resident: int = 4) -> None:
        self.resident = resident
        self._workers: OrderedDict[str, Worker] = OrderedDict()

    def map(
        self,
        factory: Callable[..., Worker],
        options: Mapping[str, Any],
        items: Sequence[Any],
        batch_size: int,
    ) -> Iterator[list[Any]]:
        for at in range(0, len(items), batch_size):
            yield self._worker(factory, options)(items[at : at + batch_size])

    def _worker(self, factory: Callable[..., Worker], options: Mapping[str, Any]) -> Worker:
        key = content_id(f"{factory.__module__}.{factory.__qualname__}", repr(sorted(options.items())))
        if key not in self._workers:
            while len(self._workers) >= self.resident:
                self._workers.popitem(last=False)
                gc.collect()
            self._workers[key] = factory(**options)
        self._workers.move_to_end(key)
        return self._workers[key]
