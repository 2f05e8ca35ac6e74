"""A served rewriter on loopback, for tests: a real uvicorn in a thread, and a model that repeats the query."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import uvicorn

from promptreel import registry
from promptreel.rewriting.rewriter import Rewriter
from promptreel.server.app import Limits, create_app
from promptreel.server.run import open_port
from promptreel.types import Completion, Failure, Message, SamplingParams


class EchoLLM:
    """A model that answers with the query, the seed and the temperature, so that an answer shows its request.

    "poison" breaks the whole call, as running out of memory does; "mute" gets no reply. Nothing is answered while
    ``held`` is cleared. ``calls`` has the queries of each call.
    """

    calls: ClassVar[list[list[str]]] = []
    held: ClassVar[threading.Event] = threading.Event()
    seconds: ClassVar[float] = 0.0

    def __init__(self, model: str, adapter: str | None = None) -> None:
        self.fingerprint = f"echo-{model}"

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        queries = [conversation[-1]["content"] for conversation in conversations]
        self.calls.append(queries)
        assert self.held.wait(60)
        time.sleep(self.seconds)
        if any("poison" in query for query in queries):
            raise RuntimeError("this call broke")
        return [
            Failure("timeout", "no reply came")
            if "mute" in query
            else Completion(
                " ".join(f"{query} | seed {s.seed} at {s.temperature:g}".split()[: s.max_tokens]),
                7,
                min(9, s.max_tokens),
            )
            for query, s in zip(queries, sampling, strict=True)
        ]


def asked_of(answer: str) -> str:
    """Return the query that an echo answers."""
    return re.split(r" \| seed ", answer)[0]


def reset() -> None:
    """Forget the calls, and let the model answer at once."""
    EchoLLM.calls.clear()
    EchoLLM.held.set()
    EchoLLM.seconds = 0.0


@contextmanager
def served(
    llm: str = "local:echo",
    profile: str = "wan2.2-5b",
    token: str | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Iterator[str]:
    """Yield the base URL of a server that runs while the context is open."""
    rewriter = Rewriter(llm, profile, **options)
    app = create_app(rewriter, registry.build(rewriter.writer.llm), "echo", token, limits)
    listening = open_port("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield url
    finally:
        EchoLLM.held.set()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"
