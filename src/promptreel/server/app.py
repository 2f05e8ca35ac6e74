"""The application: who may ask, how much, and what comes back."""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from promptreel.errors import Interrupted, PromptreelError, QueryError, Refused, did_you_mean
from promptreel.fingerprint import content_id
from promptreel.protocols import LLM
from promptreel.rewriting.rewriter import Rewriter
from promptreel.server.batching import Batcher, Caller
from promptreel.server.schemas import Answer, ApiError, ChatRequest, error_body
from promptreel.types import Rewrite

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a server takes on."""

    body: int = 256 * 1024
    """Bytes of a request."""
    patience: float = 30.0
    """Seconds in which a request must have arrived."""
    open: int = 128
    """Requests that are answered or wait at once; further ones are told to come back."""
    rows: int = 32
    """Conversations in a call of the model."""
    window: float = 0.01
    """Seconds that an idle model waits for more."""


DISCARDED = 8 * 2**20
"""Bytes of a refused request that are read all the same: a client that is still sending would miss the answer."""


class Door:
    """Lets in who has the token, with a request that is not too big and does not take forever to arrive."""

    def __init__(self, app: ASGIApp, token: str | None, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            await self.app(scope, receive, send)
            return
        arriving = Arriving(receive, self.limits)
        headers = dict(scope["headers"])
        size = headers.get(b"content-length", b"0")
        refusal = None
        if not self._has_token(headers.get(b"authorization", b"")):
            message = "the token is missing or wrong: send it as  Authorization: Bearer TOKEN"
            refusal = ApiError(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        elif size.isdigit() and int(size) > self.limits.body:
            refusal = arriving.too_big()
        if refusal:
            with suppress(ApiError):  # it takes too long: the answer is the same
                await arriving.discard()
            await _error(refusal)(scope, receive, send)
        else:
            await self.app(scope, arriving, send)

    def _has_token(self, header: bytes) -> bool:
        scheme, _, given = header.partition(b" ")
        return not self.token or (scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token))


class Arriving:
    """A request on its way in: raises ``ApiError`` when it grows too big or too old."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._until = time.monotonic() + limits.patience
        self._bytes = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()  # which tells when the client hangs up
        message = await self._more()
        if self._bytes > self._limits.body:
            await self.discard()
            raise self.too_big()
        return message

    async def discard(self) -> None:
        while not self._whole and self._bytes < DISCARDED:
            await self._more()

    def too_big(self) -> ApiError:
        return ApiError(413, f"a request has at most {self._limits.body} bytes", "request_too_large")

    async def _more(self) -> Message:
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError as error:
            raise ApiError(408, f"the request did not arrive in {self._limits.patience:g} s", "timeout") from error
        self._bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        return message


class Counter:
    """Where requests are answered: each in a thread that mostly waits for the model."""

    def __init__(self, rewriter: Rewriter, model: LLM, name: str, limits: Limits) -> None:
        self.rewriter, self.name, self.limits = rewriter, name, limits
        self.open = 0
        self.batcher = Batcher(model, limits.rows, limits.window)
        own = rewriter.writer
        self.fingerprint = (
            "fp_" + content_id(model.fingerprint, own.format, rewriter.profile.name, rewriter.safety)[:12]
        )
        self._threads = ThreadPoolExecutor(limits.open, "request")

    def close(self) -> None:
        self.batcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, asked: ChatRequest, request: Request) -> Answer | None:
        """The answer, or ``None`` if the asker has gone. Raises ``ApiError`` and whatever a rewriter raises."""
        if asked.model not in (None, self.name):
            message = f"unknown model {asked.model!r}{did_you_mean(asked.model or '', [self.name])}"
            raise ApiError(404, message, "model_not_found", "model")
        caller = Caller(self.batcher)
        own = self.rewriter.writer.sampling
        sampling = asked.sampling(own)
        seed = self.rewriter.seed if asked.seed is None else asked.seed
        rewriter = self.rewriter.drawing(caller, sampling, seed)
        query = asked.query
        if self.open >= self.limits.open:
            raise ApiError(429, "too many requests are waiting: come back", "queue_full", headers={"Retry-After": "1"})
        self.open += 1
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, functools.partial(rewriter.candidates, query, asked.n or 1))
        work.add_done_callback(self._done)
        gone = asyncio.create_task(_gone(request))
        either: set[asyncio.Future[Any]] = {work, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                caller.leave()
        return self._written(asked, work.result(), caller, sampling.max_tokens) if work.done() else None

    def _done(self, work: asyncio.Future[list[Rewrite]]) -> None:
        self.open -= 1
        if not work.cancelled():
            work.exception()  # has been seen, also when nobody waits for it any more

    def _written(self, asked: ChatRequest, rewrites: list[Rewrite], caller: Caller, longest: int) -> Answer:
        cut_off = [" ".join(reply.text.split()) for reply in caller.replies if reply.written >= longest]
        return Answer(
            f"chatcmpl-{uuid.uuid4().hex}",
            int(time.time()),
            self.name,
            self.fingerprint,
            rewrites,
            [asked.cut(rewrite.text) for rewrite in rewrites],
            [not any(rewrite.text in text for text in cut_off) for rewrite in rewrites],
            self.rewriter.profile.token_limit,
            sum(reply.read for reply in caller.replies),
            sum(reply.written for reply in caller.replies),
        )


async def _sent(events: Iterator[str]) -> AsyncIterator[str]:
    for event in events:
        yield event


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(
    rewriter: Rewriter, model: LLM, name: str, token: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """The application that serves a rewriter under a name. ``model`` is the rewriter's own, built once."""
    limits = limits or Limits()
    counter = Counter(rewriter, model, name, limits)
    listed = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "promptreel"}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        counter.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Door, token=token, limits=limits)
    app.add_exception_handler(StarletteHTTPException, _handle_http)
    app.add_exception_handler(RequestValidationError, _handle_shape)
    app.add_exception_handler(PromptreelError, _handle_own)
    app.add_exception_handler(Exception, _handle_fault)

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "open": counter.open}

    @app.get("/v1/models")
    async def models() -> dict[str, object]:
        return {"object": "list", "data": [listed]}

    @app.get("/v1/models/{wanted:path}")
    async def model_(wanted: str) -> dict[str, object]:
        if wanted != name:
            raise ApiError(404, f"unknown model {wanted!r}{did_you_mean(wanted, [name])}", "model_not_found", "model")
        return dict(listed)

    @app.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: Request) -> Response:
        asked.check()
        answer = await counter.answer(asked, request)
        if answer is None:
            return Response(status_code=499)  # nobody reads it
        if asked.stream:
            events = answer.events(bool(asked.stream_options and asked.stream_options.include_usage))
            return StreamingResponse(
                _sent(events), media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
            )
        return JSONResponse(answer.body())

    return app


def _error(error: StarletteHTTPException) -> JSONResponse:
    code, param = (error.code, error.param) if isinstance(error, ApiError) else ("invalid_request", None)
    body = error_body(error.status_code, str(error.detail), code, param)
    return JSONResponse(body, error.status_code, dict(error.headers or {}))


async def _handle_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    return _error(error)


async def _handle_shape(request: Request, error: Exception) -> Response:
    """JSON that is broken is 400, JSON of another shape 422; the message names the field and not what was in it."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _error(
            ApiError(400, f"the request is not JSON: {first.get('ctx', {}).get('error', '')}", "invalid_json")
        )
    if not request.headers.get("content-type", "").startswith("application/json"):
        return _error(ApiError(415, "send JSON with  Content-Type: application/json", "invalid_content_type"))
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    return _error(ApiError(422, f"{where or 'the request'}: {first['msg']}", "invalid_value", where or None))


async def _handle_own(request: Request, error: Exception) -> Response:
    """A query that cannot or must not be rewritten is the asker's to change; anything else is the model's fault."""
    if isinstance(error, Refused):
        return _error(ApiError(400, str(error), "content_policy_violation", "messages"))
    if isinstance(error, QueryError):
        return _error(ApiError(400, str(error), "invalid_query", "messages"))
    if isinstance(error, Interrupted):
        return _error(ApiError(503, str(error), "stopping", headers={"Retry-After": "1"}))
    log.error("%s", error)
    # Asking again with the same seed would give the same: clients are told not to.
    return _error(ApiError(502, str(error), "no_rewrite", headers={"x-should-retry": "false"}))


async def _handle_fault(request: Request, error: Exception) -> Response:
    return _error(ApiError(500, "the server failed; its log says why", "server_error"))
