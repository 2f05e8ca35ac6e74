"""One model call for many waiting requests.

While the model answers one batch, requests gather for the next; an idle model waits a moment for more to come. Each row
is drawn with its own request's sampling. An answer therefore does not depend on other requests, as far as the model can
promise it: it equals that of ``Rewriter`` for the same query and seed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from promptreel.errors import Interrupted
from promptreel.protocols import LLM
from promptreel.types import Completion, Failure, Message, SamplingParams

Completions = list[Completion | Failure]


@dataclass(frozen=True)
class Waiting:
    """The conversations of one request, and the future of its completions."""

    conversations: Sequence[list[Message]]
    sampling: Sequence[SamplingParams]
    future: Future[Completions] = field(default_factory=Future)


class Batcher:
    """A thread that asks a model for many requests at once.

    ``rows`` conversations go into a call at most. ``window`` is the time in seconds that the first request in line
    waits for more, unless there are enough.
    """

    def __init__(self, model: LLM, rows: int = 32, window: float = 0.01) -> None:
        self.model, self.rows, self.window = model, rows, window
        self._line: deque[Waiting] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._calls = ThreadPoolExecutor(1, "model")
        threading.Thread(target=self._serve, name="batcher", daemon=True).start()

    def ask(self, waiting: Waiting) -> None:
        """Put a request in line. Its future gets the completions, or is cancelled when the batcher closes."""
        with self._news:
            if self._closed:
                waiting.future.cancel()
            else:
                self._line.append(waiting)
                self._news.notify()

    def close(self) -> None:
        """End after the batch in hand; requests in line are cancelled."""
        with self._news:
            self._closed = True
            for waiting in self._line:
                waiting.future.cancel()
            self._line.clear()
            self._news.notify()

    def _serve(self) -> None:
        while batch := self._gather():
            wanted = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)
        self._calls.shutdown(wait=False)

    def _gather(self) -> list[Waiting]:
        """Return the next batch, in order of arrival; an empty one once the batcher is closed."""
        with self._news:
            self._news.wait_for(lambda: self._closed or self._line)
            self._news.wait_for(lambda: self._closed or self._rows_in_line() >= self.rows, self.window)
            batch: list[Waiting] = []
            room = self.rows
            while self._line and (not batch or len(self._line[0].conversations) <= room):
                batch.append(self._line.popleft())
                room -= len(batch[-1].conversations)
            return batch

    def _rows_in_line(self) -> int:
        return sum(len(waiting.conversations) for waiting in self._line)

    def _answer(self, batch: list[Waiting]) -> None:
        """Answer all with one call; if that fails, each alone, so that a bad request harms no other."""
        call = self._calls.submit(self._complete, batch)
        error = call.exception()
        if error is None:
            completions = iter(call.result())
            for waiting in batch:
                waiting.future.set_result([next(completions) for _ in waiting.conversations])
        elif len(batch) == 1:
            batch[0].future.set_exception(error)
        else:
            for waiting in batch:
                self._answer([waiting])

    def _complete(self, batch: list[Waiting]) -> Completions:
        conversations = [conversation for waiting in batch for conversation in waiting.conversations]
        sampling = [params for waiting in batch for params in waiting.sampling]
        return self.model.complete(conversations, sampling)


class RequestLLM:
    """The model as one request sees it: its conversations are batched with others, and its completions are kept."""

    def __init__(self, batcher: Batcher) -> None:
        self.fingerprint = batcher.model.fingerprint
        self.completions: list[Completion] = []
        self._batcher = batcher
        self._waiting: Waiting | None = None
        self._gone = False

    def complete(self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]) -> Completions:
        """Return one completion per conversation. Raises ``Interrupted`` if the client has gone or the server stops."""
        self._waiting = Waiting(conversations, sampling)
        if self._gone:
            self._waiting.future.cancel()
        self._batcher.ask(self._waiting)
        try:
            completions = self._waiting.future.result()
        except CancelledError as error:
            raise Interrupted("the server stops, or the client has gone") from error
        self.completions += [completion for completion in completions if isinstance(completion, Completion)]
        return completions

    def leave(self) -> None:
        """Give up the request: the client has gone, and work that the model has not begun is dropped."""
        self._gone = True
        if self._waiting:
            self._waiting.future.cancel()
