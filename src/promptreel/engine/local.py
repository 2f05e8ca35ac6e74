"""The engine of one machine: workers in this process, kept while they fit."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from promptreel.errors import PromptreelError, RunError, UserError, out_of_memory
from promptreel.protocols import Worker
from promptreel.types import content_id


class LocalEngine:
    """Runs batches one after the other and keeps the ``resident`` workers used last, or as many as fit.

    Where memory runs out with several workers there, a batch is done again with its own alone, and from then on fewer
    are kept. With ``resident`` 1 no two models are ever loaded at once. Eight are enough for a round of evolution by
    a few rewards: it loads nothing twice.
    """

    def __init__(self, resident: int = 8) -> None:
        if resident < 1:
            raise UserError(f"resident is {resident}: an engine keeps at least the worker that is at work, so say 1")
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
            yield self._do(factory, options, items[at : at + batch_size])

    def release(self) -> None:
        self._workers.clear()
        _give_back()

    def _do(self, factory: Callable[..., Worker], options: Mapping[str, Any], batch: Sequence[Any]) -> list[Any]:
        fits = self.resident
        while True:
            try:
                results = self._worker(factory, options)(batch)
            except Exception as error:
                alone = len(self._workers) == 1
                if not out_of_memory(error) or (alone and isinstance(error, PromptreelError)):
                    raise
                if alone:
                    raise RunError(
                        f"a model and its batch do not fit ({error}): load it smaller, or ask less"
                    ) from error
                fits = len(self._workers) - 1
            else:
                self.resident = fits
                return results
            self.release()  # only here is the error gone, and with it what its traceback holds

    def _worker(self, factory: Callable[..., Worker], options: Mapping[str, Any]) -> Worker:
        key = content_id(f"{factory.__module__}.{factory.__qualname__}", repr(sorted(options.items())))
        if key not in self._workers:
            if len(self._workers) >= self.resident:
                while len(self._workers) >= self.resident:
                    self._workers.popitem(last=False)
                _give_back()
            self._workers[key] = factory(**options)
        self._workers.move_to_end(key)
        return self._workers[key]


def _give_back() -> None:
    """Let go of models that nobody uses: those in cycles of references, and what torch keeps of freed ones."""
    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()
