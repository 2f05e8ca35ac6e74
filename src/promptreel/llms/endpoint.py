"""A chat model behind any OpenAI-compatible URL: OpenAI, vLLM, Ollama, DeepSeek, Gemini's, our own server."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

import httpx2
import openai
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError

from promptreel.endpoints import Endpoint, server_message
from promptreel.fingerprint import content_seed, fingerprint
from promptreel.llms.rate_limit import rate_limit
from promptreel.strict_json import load_json
from promptreel.types import Completion, Failure, Message, SamplingParams

log = logging.getLogger(__name__)

OPTIONAL = {"temperature": None, "top_p": None, "seed": None, "max_completion_tokens": "max_tokens"}
"""Parameters that some models refuse, each with the equivalent that these accept. OpenAI's reasoning models draw at
their own temperature; Mistral's API has neither ``seed`` nor ``max_completion_tokens``."""
FORMAT = "response_format"
FORMATS = ("json_schema", "json_object")
"""Types of ``response_format`` that hold a reply to a schema, the strictest first. DeepSeek's API has only the second,
other servers have neither."""
_REFUSED = re.compile(r"unsupported (?:parameter|value)\W+(\w+)|extra_forbidden\W+loc\W+body\W+(\w+)", re.IGNORECASE)
"""Errors of OpenAI, and of servers that check with pydantic, with the name of the refused parameter."""
_REFUSING = re.compile(
    r"unsupported|(?:not|n't) (?:support|available|permitted|allowed|recogni[sz]ed)|unavailable|unknown|unrecogni[sz]ed"
    r"|unexpected",
    re.IGNORECASE,
)
"""Wordings of a refusal by other servers, which name the parameter anywhere in the message."""


class EndpointLLM:
    """Any model that answers ``/chat/completions``.

    - ``url`` is the base URL, ending in ``/v1`` for most servers; the default is OpenAI's.
    - ``key`` is the name of the environment variable with the API key; a local server needs none.
    - ``concurrency`` is the number of requests in flight at once.
    - ``requests_per_minute`` and ``tokens_per_minute`` are rate limits, shared by everything in this process that asks
      this model. Retries count as requests. The tokens of a request are estimated before it is sent: one for four
      characters of the conversation, plus ``max_tokens``.
    - ``retries`` is the number of further tries, by the openai client, after connection errors, 408, 409, 429 and 5xx.
      The client waits for as long as the server's Retry-After asks.
    - ``timeout`` is for one try, ``deadline`` for a request with all its tries, in seconds.
    - ``attempts`` is the number of requests for a completion at most, each with another seed: a reply is asked for
      again if it is empty, cut off, or not JSON though a schema was sent.
    - ``price`` is in money per million tokens, of prompts and of completions. Costs include replies of no use.
    - ``options`` go into the request as they are (``reasoning_effort``, ``extra_body`` …).

    A parameter that the model refuses (``temperature``, ``top_p``, ``seed``) is left out from then on, with one
    warning. ``max_completion_tokens`` becomes ``max_tokens`` for a server that does not know it. A server without JSON
    schemas is asked for a JSON object, or else without any format. Parameters among ``options`` are never left out.

    A completion that could not be had is a ``Failure``, with the reason ``timeout``, ``connection``, ``status 500``,
    ``refused request``, ``refusal`` or ``malformed``. Raises ``RunError`` for a wrong URL, key or model, since no later
    request could succeed. No message and no fingerprint contains the key, or the user name and password of a URL.
    """

    remote = True
    """True for a client of a server: engines keep it in their own process, where one rate limit holds for all."""

    def __init__(
        self,
        model: str,
        url: str | None = None,
        key: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        retries: int = 6,
        timeout: float = 120.0,
        deadline: float = 600.0,
        attempts: int = 3,
        price: tuple[float, float] = (0.0, 0.0),
        options: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.endpoint = model, Endpoint(url, key)
        self.concurrency, self.retries, self.attempts = concurrency, retries, attempts
        self._requests = rate_limit("requests", url, model, requests_per_minute)
        self._tokens = rate_limit("tokens", url, model, tokens_per_minute)
        self.timeout, self.deadline = timeout, deadline
        self.price, self.options = (float(price[0]), float(price[1])), options or {}
        self._refused: set[str] = set()
        public = {name: value for name, value in self.options.items() if name != "extra_headers"}  # they may hold keys
        self.fingerprint = fingerprint("endpoint", self.endpoint.place, model=model, options=public)

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        work = self._complete_all(list(zip(conversations, sampling, strict=True)))
        if not _in_event_loop():
            return asyncio.run(work)
        with ThreadPoolExecutor(1) as thread:  # no loop runs inside another
            return thread.submit(asyncio.run, work).result()

    async def _complete_all(self, rows: Sequence[tuple[list[Message], SamplingParams]]) -> list[Completion | Failure]:
        key = self.endpoint.key()
        in_flight = asyncio.Semaphore(self.concurrency)

        async def limit_retries(request: httpx2.Request) -> None:
            if request.headers.get("x-stainless-retry-count", "0") != "0":
                await self._requests.wait()

        http = openai.DefaultAsyncHttpxClient(verify=_certificates(), event_hooks={"request": [limit_retries]})
        async with openai.AsyncOpenAI(
            base_url=self.endpoint.url, api_key=key, max_retries=self.retries, timeout=self.timeout, http_client=http
        ) as client:

            async def complete(conversation: list[Message], params: SamplingParams) -> Completion | Failure:
                async with in_flight:
                    return await self._complete(client, conversation, params)

            return await asyncio.gather(*(complete(*row) for row in rows))

    async def _complete(
        self, client: openai.AsyncOpenAI, conversation: list[Message], params: SamplingParams
    ) -> Completion | Failure:
        """Return one completion, asked for again while it is malformed, with the usage of all attempts."""
        size = sum(len(message["content"]) for message in conversation) / 4 + params.max_tokens
        result: Completion | Failure = Failure("malformed")
        for attempt in range(self.attempts):
            await self._requests.wait()
            await self._tokens.wait(size)
            seed = content_seed(params.seed, attempt) % 2**31
            before = result
            try:
                async with asyncio.timeout(self.deadline):
                    result = await self._request(client, conversation, params, seed)
            except TimeoutError:
                result = Failure("timeout", f"no answer in {self.deadline:.0f} s")
            result = replace(
                result,
                prompt_tokens=result.prompt_tokens + before.prompt_tokens,
                completion_tokens=result.completion_tokens + before.completion_tokens,
                cost=result.cost + before.cost,
            )
            if isinstance(result, Completion) or result.reason != "malformed":
                break
        return replace(result, detail=self.endpoint.masked(result.detail)) if isinstance(result, Failure) else result

    async def _request(
        self, client: openai.AsyncOpenAI, conversation: list[Message], params: SamplingParams, seed: int
    ) -> Completion | Failure:
        parameters: dict[str, Any] = {
            "temperature": params.temperature,
            "top_p": params.top_p,
            "seed": seed,
            "max_completion_tokens": params.max_tokens,
        }
        try:
            body = await self._response(client, conversation, parameters, params.schema)
        except openai.APITimeoutError as error:
            return Failure("timeout", str(error))
        except openai.APIConnectionError as error:
            return Failure("connection", f"{error} {error.__cause__ or ''}".strip())
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self.endpoint.refusal(self.model, error) from None  # its cause may repeat the key
        except openai.APIStatusError as error:
            if error.status_code in (400, 422):
                return Failure("refused request", server_message(error))
            return Failure(f"status {error.status_code}", server_message(error))
        return self._read(body, params)

    async def _response(
        self, client: openai.AsyncOpenAI, conversation: list[Message], parameters: dict[str, Any], schema: str
    ) -> str:
        """Return the body of the response; an optional parameter that the server refuses by name is left out."""
        while True:
            known = {OPTIONAL[name] if name in self._refused else name: value for name, value in parameters.items()}
            accepted = {name: value for name, value in known.items() if name}
            sent = accepted | self._response_format(schema) | self.options
            try:
                response = await client.chat.completions.with_raw_response.create(
                    model=self.model,
                    messages=list(conversation),  # type: ignore[arg-type]
                    **sent,
                )
                return response.text
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                name = _refused(error, [name for name in (*OPTIONAL, FORMAT) if name in sent.keys() - self.options])
                if not name:
                    raise
                self._leave_out(sent[name]["type"] if name == FORMAT else name)
                await self._requests.wait()

    def _response_format(self, schema: str) -> dict[str, Any]:
        """Return the strictest ``response_format`` for a schema that the server accepts; empty without one."""
        form = next((form for form in FORMATS if form not in self._refused), None)
        if not schema or not form:
            return {}
        named = {"json_schema": {"name": "answer", "schema": json.loads(schema), "strict": True}}
        return {FORMAT: {"type": form} | (named if form == "json_schema" else {})}

    def _leave_out(self, name: str) -> None:
        """Leave a parameter or format out of later requests, with one warning."""
        if name in FORMATS and self._refused.isdisjoint(FORMATS):
            log.warning("%s takes no %s of type %s: what it answers is only checked", self.model, FORMAT, name)
        elif name in OPTIONAL and name not in self._refused:
            instead = f"{OPTIONAL[name]} says the same" if OPTIONAL[name] else "the server decides"
            log.warning("%s takes no %s: it is left out, and %s", self.model, name, instead)
        self._refused.add(name)

    def _read(self, body: str, params: SamplingParams) -> Completion | Failure:
        """Return the completion in the body of a response, which may be anything: servers differ from the protocol."""
        try:
            response = _Response.model_validate(load_json(body))
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            return Failure("malformed", f"in the response, {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}")
        except ValueError as error:
            return Failure("malformed", f"the response is not JSON: {error}")
        choice, usage = response.choices[0], response.usage
        tokens = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
        paid = (*tokens, (tokens[0] * self.price[0] + tokens[1] * self.price[1]) / 1e6)
        if choice.message.refusal or choice.finish_reason == "content_filter":
            return Failure("refusal", choice.message.refusal or "stopped by the content filter", *paid)
        text = choice.message.content or ""
        if not text.strip():
            return Failure("malformed", "an empty reply", *paid)
        if choice.finish_reason == "length":
            return Failure("malformed", "cut off at the token limit", *paid)
        if self._response_format(params.schema):
            try:
                load_json(text)
            except ValueError as error:
                return Failure("malformed", f"not JSON: {error}", *paid)
        return Completion(text, *paid)


def _in_event_loop() -> bool:
    """Return True inside a running event loop: a notebook, an asynchronous application."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Answer(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Answer
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt | None = None
    completion_tokens: NonNegativeInt | None = None


class _Response(BaseModel):
    """The parts of a chat completion that are read."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


def _refused(error: openai.APIStatusError, optional: Sequence[str]) -> str:
    """Return the optional parameter that a server's error refuses; an empty string for any other error."""
    body = str(error.body)
    if error.code in ("unsupported_parameter", "unsupported_value") and error.param:
        name = error.param.partition(".")[0]
    elif found := _REFUSED.search(body):
        name = next(filter(None, found.groups()))
    else:
        named = [name for name in optional if re.search(rf"\b{name}\b", body)]
        one = len(named) == 1 and (named[0] == FORMAT or _REFUSING.search(body))
        name = named[0] if one else ""
    return name if name in optional else ""


@cache  # reading the certificates takes longer than a request
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
