"""A loopback server that speaks the chat completions protocol and misbehaves on request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[[int, dict[str, Any]], dict[str, Any] | None]
"""Maps the number of a request and its body to the response: ``status``, ``headers``, ``body`` (text), ``content`` (of
the message), ``delay`` (seconds), ``cut`` (bytes to send of the body), ``finish``, ``refusal``. ``None`` is a good
answer."""


class ChatServer:
    """The server, which records its requests. ``times`` are their arrivals, in seconds of ``time.monotonic``."""

    def __init__(self, behaviour: Behaviour = lambda number, body: None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(outer.requests)
                    outer.requests.append(body)
                    outer.times.append(time.monotonic())
                    outer.headers.append(dict(self.headers))
                    outer.at_once += 1
                    outer.most_at_once = max(outer.most_at_once, outer.at_once)
                try:
                    self._answer(behaviour(number, body) or {}, body)
                finally:
                    with lock:
                        outer.at_once -= 1

            def _answer(self, how: dict[str, Any], asked: dict[str, Any]) -> None:
                time.sleep(how.get("delay", 0))
                question = asked["messages"][-1]["content"] if "messages" in asked else ""
                message = {"role": "assistant", "content": how.get("content", f"re: {question}")}
                if "refusal" in how:
                    message = {"role": "assistant", "content": None, "refusal": how["refusal"]}
                whole = {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 0,
                    "model": asked["model"],
                    "choices": [{"index": 0, "finish_reason": how.get("finish", "stop"), "message": message}],
                    "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
                }
                payload = how.get("body", json.dumps(whole)).encode()
                self.send_response(how.get("status", 200))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                for name, value in how.get("headers", {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(payload[: how.get("cut")])
                if "cut" in how:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """Ignore clients that hang up: they are part of the test."""

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
