"""A chat model behind any OpenAI-compatible URL: OpenAI, vLLM, Ollama, DeepSeek, Gemini's, our own server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import ssl
from collections.abc import Sequence
from functools import cache
from typing import Any

import httpx2
import openai

from promptreel.errors import RunError, UserError
from promptreel.llms.pace import pace
from promptreel.store.files import fingerprint
from promptreel.types import Failure, Message, Reply, Sampling, content_seed

log = logging.getLogger(__name__)

OPTIONAL = {"temperature": None, "top_p": None, "seed": None, "max_completion_tokens": "max_tokens"}
"""Parameters that some models refuse, and what says the same to those. A reasoning model of OpenAI's draws at its own
temperature; Mistral's API has neither ``seed`` nor ``max_completion_tokens``."""
_REFUSED = re.compile(r"unsupported (?:parameter|value)\W+(\w+)|extra_forbidden\W+loc\W+body\W+(\w+)", re.IGNORECASE)
"""How OpenAI, and servers that check with pydantic, name a parameter that they do not take."""


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
    - A reply that is empty, cut off or breaks the schema asked for is asked for again, up to ``attempts``
      times in all, with another seed.
    - ``price`` is in money per million tokens, read and written; it is what costs are summed with.
    - ``options`` go into the request as they are (``reasoning_effort``, ``extra_body`` …).
    - A model that refuses ``temperature``, ``top_p`` or ``seed`` is warned about once and asked without it from then
      on; one that does not know ``max_completion_tokens`` is told ``max_tokens``. What ``options`` say stays.

    Whatever cannot be had is a ``Failure``: ``timeout``, ``connection``, ``status 500``, ``refusal``,
    ``malformed``. A wrong key, model or request raises, since no later one could succeed.
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
        self.model, self.url, self.key = model, url, key
        self.concurrency, self.retries, self.attempts = concurrency, retries, attempts
        self._requests = pace("requests", url, model, requests_per_minute)
        self._tokens = pace("tokens", url, model, tokens_per_minute)
        self.timeout, self.deadline = timeout, deadline
        self.price, self.options = (float(price[0]), float(price[1])), options or {}
        self._refused: set[str] = set()
        self.fingerprint = fingerprint("endpoint", url, model=model, options=self.options)

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        return asyncio.run(self._complete(list(zip(conversations, samplings, strict=True))))

    async def _complete(self, rows: Sequence[tuple[list[Message], Sampling]]) -> list[Reply | Failure]:
        key = os.environ.get(self.key)
        if not key and self.url is None:
            raise UserError(f"no API key: set the environment variable {self.key}, or give the url of your own server")
        gate = asyncio.Semaphore(self.concurrency)

        async def tried_again(request: httpx2.Request) -> None:
            if request.headers.get("x-stainless-retry-count", "0") != "0":
                await self._requests.turn()

        http = openai.DefaultAsyncHttpxClient(verify=_certificates(), event_hooks={"request": [tried_again]})
        async with openai.AsyncOpenAI(
            base_url=self.url, api_key=key or "none", max_retries=self.retries, timeout=self.timeout, http_client=http
        ) as client:

            async def answer(conversation: list[Message], sampling: Sampling) -> Reply | Failure:
                async with gate:
                    failure = Failure("malformed")
                    for attempt in range(self.attempts):
                        size = sum(len(message["content"]) for message in conversation) / 4 + sampling.max_tokens
                        await self._requests.turn()
                        await self._tokens.turn(size)
                        seed = content_seed(sampling.seed, attempt) % 2**31
                        try:
                            async with asyncio.timeout(self.deadline):
                                result = await self._request(client, conversation, sampling, seed)
                        except TimeoutError:
                            return Failure("timeout", f"no answer in {self.deadline:.0f} s")
                        if isinstance(result, Reply):
                            return result
                        failure = result
                        if failure.reason != "malformed":
                            break
                    return failure

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
        if sampling.schema:
            schema = {"name": "answer", "schema": json.loads(sampling.schema), "strict": True}
            asked["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            response = await self._create(client, conversation, asked)
        except openai.APITimeoutError as error:
            return Failure("timeout", str(error))
        except openai.APIConnectionError as error:
            return Failure("connection", f"{error} {error.__cause__ or ''}".strip())
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise RunError(f"{self.url or 'OpenAI'} refuses model {self.model!r}: {_said(error)}") from error
        except openai.APIStatusError as error:
            if error.status_code in (400, 422):
                return Failure("refused request", _said(error))
            return Failure(f"status {error.status_code}", _said(error))
        except (openai.APIResponseValidationError, json.JSONDecodeError) as error:
            return Failure("malformed", str(error))
        return self._read(response, sampling)

    async def _create(self, client: openai.AsyncOpenAI, conversation: list[Message], asked: dict[str, Any]) -> Any:
        """The response to a request, sent again without whatever optional parameter the server refuses by name."""
        while True:
            known = {OPTIONAL[name] if name in self._refused else name: value for name, value in asked.items()}
            sent = {name: value for name, value in known.items() if name} | self.options
            try:
                return await client.chat.completions.create(
                    model=self.model,
                    messages=list(conversation),  # type: ignore[arg-type]
                    **sent,
                )
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                name = _refused(error)
                if name not in OPTIONAL or name not in sent or name in self.options:
                    raise
                if name not in self._refused:
                    instead = f"{OPTIONAL[name]} says the same" if OPTIONAL[name] else "the server decides"
                    log.warning("%s takes no %s: it is left out, and %s", self.model, name, instead)
                    self._refused.add(name)
                await self._requests.turn()

    def _read(self, response: Any, sampling: Sampling) -> Reply | Failure:
        """The reply in a response that may be anything: servers differ from the protocol."""
        choices = getattr(response, "choices", None)
        if not choices or getattr(choices[0], "message", None) is None:
            return Failure("malformed", "no choices in the response")
        choice = choices[0]
        if getattr(choice.message, "refusal", None) or choice.finish_reason == "content_filter":
            return Failure("refusal", str(choice.message.refusal or "stopped by the content filter"))
        text = choice.message.content
        if not isinstance(text, str) or not text.strip():
            return Failure("malformed", "an empty reply")
        if sampling.schema:
            if choice.finish_reason == "length":
                return Failure("malformed", "cut off at the token limit")
            try:
                json.loads(text)
            except json.JSONDecodeError as error:
                return Failure("malformed", f"not JSON: {error}")
        usage = response.usage
        read, written = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        return Reply(text, read, written, (read * self.price[0] + written * self.price[1]) / 1e6)


def _refused(error: openai.APIStatusError) -> str:
    """The parameter that a server says it does not take; empty if it complains of something else."""
    if error.code in ("unsupported_parameter", "unsupported_value") and error.param:
        return error.param
    found = _REFUSED.search(str(error.body))
    return next(filter(None, found.groups())) if found else ""


def _said(error: openai.APIStatusError) -> str:
    """What the server said, without headers: a key must not reach a log."""
    said = error.body.get("message") if isinstance(error.body, dict) else None
    return f"{error.status_code} {str(said or error.body)[:300]}"


@cache  # reading the certificates takes longer than a request
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
