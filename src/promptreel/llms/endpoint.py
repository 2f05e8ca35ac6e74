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

from promptreel.access import Access, said
from promptreel.llms.pace import pace
from promptreel.store.files import fingerprint
from promptreel.types import Failure, Message, Reply, Sampling, content_seed, load_json

log = logging.getLogger(__name__)

OPTIONAL = {"temperature": None, "top_p": None, "seed": None, "max_completion_tokens": "max_tokens"}
"""Parameters that some models refuse, and what says the same to those. A reasoning model of OpenAI's draws at its own
temperature; Mistral's API has neither ``seed`` nor ``max_completion_tokens``."""
FORMAT = "response_format"
FORMATS = ("json_schema", "json_object")
"""How a reply is held to a schema, from the strictest: DeepSeek's API has only the second, others have neither."""
_REFUSED = re.compile(r"unsupported (?:parameter|value)\W+(\w+)|extra_forbidden\W+loc\W+body\W+(\w+)", re.IGNORECASE)
"""How OpenAI, and servers that check with pydantic, name a parameter that they do not take."""
_REFUSING = re.compile(
    r"unsupported|(?:not|n't) (?:support|available|permitted|allowed|recogni[sz]ed)|unavailable|unknown|unrecogni[sz]ed"
    r"|unexpected",
    re.IGNORECASE,
)
"""How others say it, in whatever words, of a parameter that they name somewhere."""


class EndpointLLM:
    """Any model that answers ``/chat/completions``.

    - ``url`` is the base URL, ending in ``/v1`` for most; without one it is OpenAI's.
    - ``key`` names the environment variable with the API key; a local server needs none.
    - ``concurrency`` requests are under way at once; ``requests_per_minute``, those tried again included, and
      ``tokens_per_minute`` are kept if given (tokens are estimated before, as four characters each, plus what may be
      written), together by all that ask this model in this process.
    - Connection errors, 408, 409, 429 and 5xx are tried again up to ``retries`` times, as long as the server's
      Retry-After asks, by the openai client. ``timeout`` is for one try, ``deadline`` for a request with all
      its tries, in seconds.
    - A reply that is empty, cut off or, where the server can be held to a schema, breaks it is asked for again, up to
      ``attempts`` times in all, with another seed.
    - ``price`` is in money per million tokens, read and written; it is what costs are summed with, those of replies
      that were of no use included.
    - ``options`` go into the request as they are (``reasoning_effort``, ``extra_body`` …).
    - A model that refuses ``temperature``, ``top_p`` or ``seed`` is warned about once and asked without it from then
      on; one that does not know ``max_completion_tokens`` is told ``max_tokens``; one that takes no schema is asked for
      a JSON object, or at last just asked. What ``options`` say stays.

    Whatever cannot be had is a ``Failure``: ``timeout``, ``connection``, ``status 500``, ``refusal``,
    ``malformed``. A wrong URL, key or model raises, since no later request could succeed. Neither the key nor the
    name and password in a URL get into what is said of it, nor into the fingerprint.
    """

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
        self.model, self.access = model, Access(url, key)
        self.concurrency, self.retries, self.attempts = concurrency, retries, attempts
        self._requests = pace("requests", url, model, requests_per_minute)
        self._tokens = pace("tokens", url, model, tokens_per_minute)
        self.timeout, self.deadline = timeout, deadline
        self.price, self.options = (float(price[0]), float(price[1])), options or {}
        self._refused: set[str] = set()
        asked = {name: value for name, value in self.options.items() if name != "extra_headers"}  # they may hold keys
        self.fingerprint = fingerprint("endpoint", self.access.place, model=model, options=asked)

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        work = self._complete(list(zip(conversations, samplings, strict=True)))
        if not _in_loop():
            return asyncio.run(work)
        with ThreadPoolExecutor(1) as thread:  # no loop runs inside another
            return thread.submit(asyncio.run, work).result()

    async def _complete(self, rows: Sequence[tuple[list[Message], Sampling]]) -> list[Reply | Failure]:
        key = self.access.key()
        gate = asyncio.Semaphore(self.concurrency)

        async def tried_again(request: httpx2.Request) -> None:
            if request.headers.get("x-stainless-retry-count", "0") != "0":
                await self._requests.turn()

        http = openai.DefaultAsyncHttpxClient(verify=_certificates(), event_hooks={"request": [tried_again]})
        async with openai.AsyncOpenAI(
            base_url=self.access.url, api_key=key, max_retries=self.retries, timeout=self.timeout, http_client=http
        ) as client:

            async def answer(conversation: list[Message], sampling: Sampling) -> Reply | Failure:
                async with gate:
                    result: Reply | Failure = Failure("malformed")
                    for attempt in range(self.attempts):
                        size = sum(len(message["content"]) for message in conversation) / 4 + sampling.max_tokens
                        await self._requests.turn()
                        await self._tokens.turn(size)
                        seed = content_seed(sampling.seed, attempt) % 2**31
                        paid = result
                        try:
                            async with asyncio.timeout(self.deadline):
                                result = await self._request(client, conversation, sampling, seed)
                        except TimeoutError:
                            result = Failure("timeout", f"no answer in {self.deadline:.0f} s")
                        result = replace(
                            result,
                            read=result.read + paid.read,
                            written=result.written + paid.written,
                            cost=result.cost + paid.cost,
                        )
                        if isinstance(result, Reply) or result.reason != "malformed":
                            break
                    if isinstance(result, Failure):
                        result = replace(result, detail=self.access.told(result.detail))
                    return result

            return await asyncio.gather(*(answer(*row) for row in rows))

    async def _request(
        self, client: openai.AsyncOpenAI, conversation: list[Message], sampling: Sampling, seed: int
    ) -> Reply | Failure:
        asked: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
            "max_completion_tokens": sampling.max_tokens,
        }
        try:
            answer = await self._create(client, conversation, asked, sampling.schema)
        except openai.APITimeoutError as error:
            return Failure("timeout", str(error))
        except openai.APIConnectionError as error:
            return Failure("connection", f"{error} {error.__cause__ or ''}".strip())
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self.access.refusal(self.model, error) from None  # its cause may repeat the key
        except openai.APIStatusError as error:
            if error.status_code in (400, 422):
                return Failure("refused request", said(error))
            return Failure(f"status {error.status_code}", said(error))
        return self._read(answer, sampling)

    async def _create(
        self, client: openai.AsyncOpenAI, conversation: list[Message], asked: dict[str, Any], schema: str
    ) -> str:
        """The body of the response to a request, sent again without whatever optional the server refuses by name."""
        while True:
            known = {OPTIONAL[name] if name in self._refused else name: value for name, value in asked.items()}
            sent = {name: value for name, value in known.items() if name} | self._held(schema) | self.options
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
                await self._requests.turn()

    def _held(self, schema: str) -> dict[str, Any]:
        """What holds a reply to a schema as strictly as the server can; nothing where it cannot, or there is none."""
        form = next((form for form in FORMATS if form not in self._refused), None)
        if not schema or not form:
            return {}
        named = {"json_schema": {"name": "answer", "schema": json.loads(schema), "strict": True}}
        return {FORMAT: {"type": form} | (named if form == "json_schema" else {})}

    def _leave_out(self, name: str) -> None:
        """Remember, and say once, that the server does not take something."""
        if name in FORMATS and self._refused.isdisjoint(FORMATS):
            log.warning("%s takes no %s of type %s: what it answers is only checked", self.model, FORMAT, name)
        elif name in OPTIONAL and name not in self._refused:
            instead = f"{OPTIONAL[name]} says the same" if OPTIONAL[name] else "the server decides"
            log.warning("%s takes no %s: it is left out, and %s", self.model, name, instead)
        self._refused.add(name)

    def _read(self, body: str, sampling: Sampling) -> Reply | Failure:
        """The reply in a response that may be anything: servers differ from the protocol."""
        try:
            response = _Response.model_validate(load_json(body))
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            return Failure("malformed", f"in the response, {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}")
        except ValueError as error:
            return Failure("malformed", f"the response is not JSON: {error}")
        choice, usage = response.choices[0], response.usage
        read, written = (usage.prompt_tokens or 0, usage.completion_tokens or 0) if usage else (0, 0)
        paid = (read, written, (read * self.price[0] + written * self.price[1]) / 1e6)
        if choice.message.refusal or choice.finish_reason == "content_filter":
            return Failure("refusal", choice.message.refusal or "stopped by the content filter", *paid)
        text = choice.message.content or ""
        if not text.strip():
            return Failure("malformed", "an empty reply", *paid)
        if choice.finish_reason == "length":
            return Failure("malformed", "cut off at the token limit", *paid)
        if self._held(sampling.schema):
            try:
                load_json(text)
            except ValueError as error:
                return Failure("malformed", f"not JSON: {error}", *paid)
        return Reply(text, *paid)


def _in_loop() -> bool:
    """Whether the caller is itself run by an event loop: a notebook, an asynchronous application."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Said(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Said
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt | None = None
    completion_tokens: NonNegativeInt | None = None


class _Response(BaseModel):
    """What is read of a chat completion."""

    choices: Annotated[list[_Choice], Field(min_length=1)]
    usage: _Usage | None = None


def _refused(error: openai.APIStatusError, optional: Sequence[str]) -> str:
    """Which of what was sent a server says it does not take; empty if it complains of something else."""
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
