"""Request and response schemas: the subset of OpenAI chat completions that a rewriter supports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from promptreel.types import Candidate, SamplingParams

CHOICES = 8
"""Largest number of rewrites in one request."""
FOREIGN = ("tools", "functions", "logprobs", "logit_bias", "audio", "prediction", "web_search_options")
"""Fields that ask for another kind of answer and are refused. Other unknown fields are ignored."""


class ApiError(HTTPException):
    """An error response, in the shape that OpenAI's clients read."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, message, headers)
        self.code, self.param = code, param


def error_body(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of an error response in OpenAI's shape."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    return {
        "error": {"message": message, "type": "server_error" if status >= 500 else kind, "param": param, "code": code}
    }


class Part(BaseModel):
    """A part of a message: text, or media, which are refused."""

    type: str
    text: str = ""


class Turn(BaseModel):
    """A message of the conversation."""

    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else " ".join(part.text for part in self.content or [])


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A request for rewrites. The last user message is the query; system messages and earlier turns are ignored."""

    model_config = ConfigDict(extra="allow")

    messages: Annotated[list[Turn], Field(min_length=1)]
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: dict[str, Any] | None = None

    def check(self) -> None:
        """Raise ``ApiError`` for a request of another kind of answer."""
        for name in FOREIGN:
            if (self.model_extra or {}).get(name):
                raise ApiError(400, f"this model rewrites text and takes no {name!r}", "unsupported_parameter", name)
        if self.response_format and self.response_format.get("type") != "text":
            message = "the answer is plain text: leave out response_format"
            raise ApiError(400, message, "unsupported_parameter", "response_format")

    @property
    def query(self) -> str:
        """The text to rewrite. Raises ``ApiError`` without a user message, or for one with pictures."""
        turn = next((turn for turn in reversed(self.messages) if turn.role == "user"), None)
        if turn is None:
            raise ApiError(400, "there is no message with the role 'user' to rewrite", "no_query", "messages")
        if isinstance(turn.content, list) and any(part.type != "text" for part in turn.content):
            raise ApiError(400, "only text can be rewritten: send parts of the type 'text'", "no_text", "messages")
        return turn.text

    def sampling(self, own: SamplingParams) -> SamplingParams:
        """Return the model's own sampling with the request's changes. No completion is longer than the model's own.

        Raises ``ApiError`` for several rewrites at temperature 0.
        """
        temperature = own.temperature if self.temperature is None else self.temperature
        if temperature == 0 and (self.n or 1) > 1:
            raise ApiError(400, "at temperature 0 all rewrites are the same: ask for n = 1", "invalid_value", "n")
        longest = self.max_completion_tokens or self.max_tokens or own.max_tokens
        return SamplingParams(
            temperature, own.top_p if self.top_p is None else self.top_p, min(longest, own.max_tokens), own.seed
        )

    def cut(self, text: str) -> str:
        """Return a text up to the first of the request's stop sequences."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return min((text.split(stop)[0] for stop in stops if stop), key=len, default=text)


@dataclass(frozen=True)
class Choice:
    """A candidate, and the text of it that is given out."""

    candidate: Candidate
    text: str
    """Its text, up to the first stop sequence."""
    finished: bool
    """False if the model was cut off at its token limit."""


@dataclass(frozen=True)
class Answer:
    """Candidates as a chat completion."""

    id: str
    created: int
    """Unix time in seconds."""
    model: str
    fingerprint: str
    choices: Sequence[Choice]
    token_limit: int
    """Tokens that the video model reads."""
    prompt_tokens: int
    completion_tokens: int

    def body(self) -> dict[str, Any]:
        """Return the answer as one JSON document."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "finish_reason": _finish(choice),
                "logprobs": None,
                "promptreel": self._facts(choice),
            }
            for index, choice in enumerate(self.choices)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self._usage()}

    def events(self, usage: bool) -> Iterator[str]:
        """Yield the answer as server-sent events, a word each. A rewrite is judged whole before any of it is sent."""
        for index, choice in enumerate(self.choices):
            yield self._event([_delta(index, {"role": "assistant", "content": ""})])
            for word in re.findall(r"\s*\S+|\s+$", choice.text):
                yield self._event([_delta(index, {"content": word})])
            last = {**_delta(index, {}, _finish(choice)), "promptreel": self._facts(choice)}
            yield self._event([last])
        if usage:
            yield self._event([], usage=self._usage())
        yield "data: [DONE]\n\n"

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> str:
        chunk = {**self._head("chat.completion.chunk"), "choices": choices, **more}
        return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**head, "system_fingerprint": self.fingerprint}

    def _facts(self, choice: Choice) -> dict[str, Any]:
        """Return further facts about a rewrite, such as its length and the parts of the query that it left out."""
        return {
            "tokens": choice.candidate.tokens,
            "token_limit": self.token_limit,
            "removed": choice.candidate.removed,
            "problems": choice.candidate.verdict.problems if choice.candidate.verdict else [],
        }

    def _usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": total,
        }


def _finish(choice: Choice) -> str:
    return "stop" if choice.finished else "length"


def _delta(index: int, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
