"""The application: access, limits, and answers."""

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
from promptreel.rewriting import Rewriter
from promptreel.server.batching import Batcher, RequestLLM
from promptreel.server.schemas import Answer, ApiError, ChatRequest, Choice, error_body
from promptreel.types import Candidate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """Limits of a server."""

    body: int = 256 * 1024
    """Bytes of a request."""
    arrival: float = 30.0
    """Seconds in which a request must have arrived."""
    open: int = 128
    """Requests open at once; further ones are told to come back."""
    rows: int = 32
    """Conversations in one call of the model."""
    window: float = 0.01
    """Seconds that an idle model waits for more."""


DISCARDED = 8 * 2**20
"""Bytes of a refused request that are read anyway: a client that is still sending would miss the answer."""


class RequestGuard:
    """Middleware that admits requests with the token, of limited size, that arrive in time."""

    def __init__(self, app: ASGIApp, token: str | None, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            await self.app(scope, receive, send)
            return
        arriving = BoundedBody(receive, self.limits)
        headers = dict(scope["headers"])
        size = headers.get(b"content-length", b"0")
        refusal = None
        if not self._has_token(headers.get(b"authorization", b"")):
            message = "the token is missing or wrong: send it as  Authorization: Bearer TOKEN"
            refusal = ApiError(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        elif size.isdigit() and int(size) > self.limits.body:
            refusal = arriving.too_big()
        if refusal:
            with suppress(ApiError):  # a late body gets the same answer
                await arriving.discard()
            await _error(refusal)(scope, receive, send)
        else:
            await self.app(scope, arriving, send)

    def _has_token(self, header: bytes) -> bool:
        scheme, _, given = header.partition(b" ")
        return not self.token or (scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token))


class BoundedBody:
    """The body of a request on its way in. Raises ``ApiError`` when it grows too large or too late."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive, self._limits = receive, limits
        self._until = time.monotonic() + limits.arrival
        self._bytes = 0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()  # reports that the client hung up
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
            raise ApiError(408, f"the request did not arrive in {self._limits.arrival:g} s", "timeout") from error
        self._bytes += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        return message


class RewriteService:
    """The service that answers requests, each in a thread that mostly waits for the model."""

    def __init__(self, rewriter: Rewriter, model: LLM, name: str, limits: Limits) -> None:
        self.rewriter, self.name, self.limits = rewriter, name, limits
        self.open = 0
        self.batcher = Batcher(model, limits.rows, limits.window)
        own = rewriter.writer
        self.fingerprint = (
            "fp_" + content_id(model.fingerprint, own.format, rewriter.profile.name, rewriter.policy.safety)[:12]
        )
        self._threads = ThreadPoolExecutor(limits.open, "request")

    def close(self) -> None:
        self.batcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def answer(self, asked: ChatRequest, request: Request) -> Answer | None:
        """Return the answer, or ``None`` if the client has gone. Raises ``ApiError`` and the errors of a rewriter."""
        if asked.model not in (None, self.name):
            message = f"unknown model {asked.model!r}{did_you_mean(asked.model or '', [self.name])}"
            raise ApiError(404, message, "model_not_found", "model")
        model = RequestLLM(self.batcher)
        sampling = asked.sampling(self.rewriter.writer.sampling)
        query = asked.query
        if self.open >= self.limits.open:
            raise ApiError(429, "too many requests are waiting: come back", "queue_full", headers={"Retry-After": "1"})
        self.open += 1
        loop = asyncio.get_running_loop()
        rewrite = functools.partial(
            self.rewriter.candidates, query, asked.n or 1, model=model, sampling=sampling, seed=asked.seed
        )
        work = loop.run_in_executor(self._threads, rewrite)
        work.add_done_callback(self._done)
        gone = asyncio.create_task(_gone(request))
        either: set[asyncio.Future[Any]] = {work, gone}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                model.leave()
        return self._answer(asked, work.result(), model, sampling.max_tokens) if work.done() else None

    def _done(self, work: asyncio.Future[list[Candidate]]) -> None:
        self.open -= 1
        if not work.cancelled():
            work.exception()  # marks it as seen, also if the client has gone

    def _answer(self, asked: ChatRequest, candidates: list[Candidate], model: RequestLLM, longest: int) -> Answer:
        cut_off = [" ".join(c.text.split()) for c in model.completions if c.completion_tokens >= longest]
        choices = [
            Choice(candidate, asked.cut(candidate.text), not any(candidate.text in text for text in cut_off))
            for candidate in candidates
        ]
        return Answer(
            id=f"chatcmpl-{uuid.uuid4().hex}",
            created=int(time.time()),
            model=self.name,
            fingerprint=self.fingerprint,
            choices=choices,
            token_limit=self.rewriter.profile.token_limit,
            prompt_tokens=sum(completion.prompt_tokens for completion in model.completions),
            completion_tokens=sum(completion.completion_tokens for completion in model.completions),
        )


async def _sent(events: Iterator[str]) -> AsyncIterator[str]:
    """Yield events without a thread for each."""
    for event in events:
        yield event


async def _gone(request: Request) -> None:
    """Return when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(
    rewriter: Rewriter, model: LLM, name: str, token: str | None = None, limits: Limits | None = None
) -> FastAPI:
    """Return the application that serves a rewriter under a name. ``model`` is the rewriter's own, built once."""
    limits = limits or Limits()
    service = RewriteService(rewriter, model, name, limits)
    listed = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "promptreel"}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(RequestGuard, token=token, limits=limits)
    app.add_exception_handler(StarletteHTTPException, _handle_http)
    app.add_exception_handler(RequestValidationError, _handle_shape)
    app.add_exception_handler(PromptreelError, _handle_own)
    app.add_exception_handler(Exception, _handle_fault)

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "open": service.open}

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
        answer = await service.answer(asked, request)
        if answer is None:
            return Response(status_code=499)  # the client has gone
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
    """Return 400 for broken JSON, 422 for JSON of another shape; the message names the field, not its content."""
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
    """Return 400 for a query that cannot or must not be rewritten; other errors are the model's fault."""
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
    return _error(ApiError(500, "the server failed; see its log", "server_error"))
