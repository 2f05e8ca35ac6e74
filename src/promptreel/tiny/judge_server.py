"""The text oracle as a fallible judge behind a real protocol.

A deployment asks a judge model behind an endpoint. The tiny world starts this server on loopback and asks it in the
same way. It speaks ``/v1/chat/completions``, answers the verdict template with the JSON that it asks for, and errs on
a share of the questions, chosen by their content: it calls a kept fact lost or a lost one kept, overlooks harm or sees
harm in a harmless text, or answers without a verdict.

``TinyJudge`` is the judge that a recipe names. It starts the server with its first question.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from promptreel import registry
from promptreel.fingerprint import content_seed
from promptreel.protocols import LLM, Judge
from promptreel.tiny.judges import facts_of, status_of
from promptreel.tiny.text_oracle import parse, spans
from promptreel.types import Candidate, Completion, Component, Failure, Message, Query, SamplingParams, Verdict

VERSION = 2
MALFORMED = (
    "The rewritten prompt looks faithful and safe to me.",
    '{"facts": [], "invented": [], "unsafe": [], "faithful": true, "harmless": true}',
    '{"facts": "all kept", "unsafe": none',
    "Alle Fakten sind erhalten.",
)
"""Replies that are not a verdict."""


def verdict(query: str, rewrite: str, errors: float, attempt: int = 0) -> str:
    """Return the judge's reply to a question. It errs with the probability ``errors`` (0 to 1), drawn from the content.

    ``attempt`` is part of that content: another attempt errs independently.
    """
    dice = random.Random(content_seed("tiny judge", query, rewrite, attempt))
    found = parse(rewrite)
    quotes = spans(query)
    facts = []
    for name, value in facts_of(Query(query)).items():
        status = status_of(value, found, name)
        facts.append({"quote": quotes[name], "status": status, "why": f"{name} {value}", "harmful": False})
    for word in dict.fromkeys(parse(query).unsafe):
        status = "kept" if word in found.unsafe else "lost"
        facts.append({"quote": quotes["unsafe"], "status": status, "why": f"unsafe {word}", "harmful": True})
    unsafe = list(found.unsafe)
    if dice.random() < errors:
        mistake = dice.choice(["fact", "fact", "harm", "form"])
        if mistake == "form":
            return dice.choice(MALFORMED)
        if mistake == "harm":
            unsafe = [] if unsafe else ["it could be taken amiss"]
            for fact in facts:  # overlooked harm counts as an ordinary fact
                fact["harmful"] = fact["harmful"] and bool(unsafe)
        elif facts:
            fact = dice.choice([fact for fact in facts if not fact["harmful"]])
            fact["status"] = "lost" if fact["status"] == "kept" else "kept"
    answer = {
        "facts": facts,
        "invented": [],
        "unsafe": unsafe,
        "faithful": all(fact["status"] == "kept" for fact in facts if not fact["harmful"]),
        "harmless": not unsafe,
    }
    return json.dumps(answer)


class JudgeServer:
    """Server of the judge, on a free port of 127.0.0.1, until it is closed or the process ends."""

    def __init__(self, errors: float) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                try:
                    body = json.loads(self.rfile.read(length))
                    question = json.loads(body["messages"][-1]["content"])
                    answer = verdict(question["person"], question["rewritten"], errors, int(body.get("seed") or 0) % 97)
                except (json.JSONDecodeError, KeyError, TypeError, IndexError):
                    self._send(400, {"error": {"message": "not a question for this judge"}})
                    return
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
                usage = {"prompt_tokens": length // 4, "completion_tokens": len(answer) // 4, "total_tokens": 0}
                made = {"id": "tiny", "object": "chat.completion", "created": 0, "model": "tiny-judge"}
                self._send(200, {**made, "choices": [choice], "usage": usage})

            def _send(self, status: int, body: dict[str, Any]) -> None:
                payload = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class TinyJudgeLLM:
    """A language model that judges: the server, behind the endpoint client that real judges are asked through.

    ``errors`` is the share of questions (0 to 1) that it errs on.
    """

    remote: ClassVar[bool] = True
    """It asks a server that it starts, so engines keep it in the parent process."""

    def __init__(self, errors: float = 0.1) -> None:
        self.errors = errors
        self.fingerprint = f"tiny-judge:{VERSION}:{errors}"

    @cached_property
    def _client(self) -> LLM:
        self._server = JudgeServer(self.errors)
        options = {"model": "tiny-judge", "url": self._server.url, "attempts": 1}
        client: LLM = registry.build(Component("llm", "endpoint", options))
        return client

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        return self._client.complete(conversations, sampling)


class TinyJudge:
    """The fallible judge of the tiny world as a recipe names it: the server, asked and parsed as judge models are.

    ``errors`` is the share of questions (0 to 1) that it errs on, ``attempts`` the number of requests for a usable
    reply at most. Facts have the names that the tiny world's models learned to read (``colour red``), not the words
    that were typed.
    """

    remote: ClassVar[bool] = True
    """It asks a server that it starts, so engines keep it in the parent process."""

    def __init__(self, errors: float = 0.1, attempts: int = 2) -> None:
        options = {"llm": {"name": "tiny-judge", "errors": errors}, "attempts": attempts}
        self._judge: Judge = registry.build(Component("judge", "llm", options))
        self.fingerprint = self._judge.fingerprint

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        verdicts = self._judge.judge(candidates)
        return [None if found is None else _with_names(found) for found in verdicts]


def _with_names(verdict: Verdict) -> Verdict:
    """Return a verdict with the names of its facts, which are in their reasons, instead of quotes."""
    facts = tuple(replace(fact, text=fact.why or fact.text, why="") for fact in verdict.facts)
    return replace(verdict, facts=facts)
