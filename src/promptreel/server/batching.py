"""One model call for many waiting requests.

While the model answers one batch, requests gather for the next; an idle model waits a moment for more to come. Each row
is drawn by its own request's sampling, so an answer does not depend on who else was waiting, as far as the model can
promise it, and is what ``Rewriter`` gives for the same query and seed.
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

Replies = list[Completion | Failure]


@dataclass(frozen=True)
class Waiting:
    """The conversations of one request."""

    conversations: Sequence[list[Message]]
    samplings: Sequence[SamplingParams]
    future: Future[Replies] = field(default_factory=Future)


class Batcher:
    """Asks a model for many at once, in a thread of its own.

    ``rows`` conversations go into a call at most; ``window`` is the time in seconds that the first in line waits for
    more, unless there are enough.
    """

    def __init__(self, model: LLM, rows: int = 32, window: float = 0.01) -> None:
        self.model, self.rows, self.window = model, rows, window
        self._line: deque[Waiting] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._calls = ThreadPoolExecutor(1, "model")
        threading.Thread(target=self._serve, name="batcher", daemon=True).start()

    def ask(self, waiting: Waiting) -> None:
        """Put a request in line; its future gets the replies, or is cancelled when the batcher closes."""
        with self._news:
            if self._closed:
                waiting.future.cancel()
            else:
                self._line.append(waiting)
                self._news.notify()

    def close(self) -> None:
        """End after the batch in hand; whoever waits in line is sent away."""
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
        """The next batch, in order of arrival; empty once the batcher is closed."""
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
        """Answer all with one call; if that fails, each alone, so that one bad request hurts nobody else."""
        call = self._calls.submit(self._complete, batch)
        error = call.exception()
        if error is None:
            replies = iter(call.result())
            for waiting in batch:
                waiting.future.set_result([next(replies) for _ in waiting.conversations])
        elif len(batch) == 1:
            batch[0].future.set_exception(error)
        else:
            for waiting in batch:
                self._answer([waiting])

    def _complete(self, batch: list[Waiting]) -> Replies:
        conversations = [conversation for waiting in batch for conversation in waiting.conversations]
        samplings = [sampling for waiting in batch for sampling in waiting.samplings]
        return self.model.complete(conversations, samplings)


class Caller:
    """The model as one request sees it: its conversations wait for company, and its replies are counted."""

    def __init__(self, batcher: Batcher) -> None:
        self.fingerprint = batcher.model.fingerprint
        self.replies: list[Completion] = []
        self._batcher = batcher
        self._waiting: Waiting | None = None
        self._gone = False

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[SamplingParams]) -> Replies:
        """One reply for each conversation. Raises ``Interrupted`` when the asker has gone, or the server stops."""
        self._waiting = Waiting(conversations, samplings)
        if self._gone:
            self._waiting.future.cancel()
        self._batcher.ask(self._waiting)
        try:
            replies = self._waiting.future.result()
        except CancelledError as error:
            raise Interrupted("the server stops, or nobody waits for the answer") from error
        self.replies += [reply for reply in replies if isinstance(reply, Completion)]
        return replies

    def leave(self) -> None:
        """Nobody waits for the answer any more: what the model has not begun, it need not begin."""
        self._gone = True
        if self._waiting:
            self._waiting.future.cancel()
