"""What goes over the line: OpenAI's chat completions, as far as a rewriter can mean them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from promptreel.types import Rewrite, SamplingParams

CHOICES = 8
"""The most rewrites that one request may ask for."""
FOREIGN = ("tools", "functions", "logprobs", "logit_bias", "audio", "prediction", "web_search_options")
"""Fields that ask for another kind of answer: refused, where others that are unknown are ignored."""


class ApiError(HTTPException):
    """An answer that is an error, in the shape that OpenAI's clients read."""

    def __init__(
        self, status: int, message: str, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, message, headers)
        self.code, self.param = code, param


def error_body(status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(status, "invalid_request_error")
    return {
        "error": {"message": message, "type": "server_error" if status >= 500 else kind, "param": param, "code": code}
    }


class Part(BaseModel):
    type: str
    text: str = ""


class Turn(BaseModel):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else " ".join(part.text for part in self.content or [])


class StreamOptions(BaseModel):
    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A request for rewrites. The last user message is the query; system messages and earlier turns are not read."""

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
        """Raise ``ApiError`` for what would be another kind of answer."""
        for name in FOREIGN:
            if (self.model_extra or {}).get(name):
                raise ApiError(400, f"this model rewrites text and takes no {name!r}", "unsupported_parameter", name)
        if self.response_format and self.response_format.get("type") != "text":
            message = "the answer is plain text: leave out response_format"
            raise ApiError(400, message, "unsupported_parameter", "response_format")

    @property
    def query(self) -> str:
        """What is to be rewritten. Raises ``ApiError`` when nobody asks, or asks in pictures."""
        turn = next((turn for turn in reversed(self.messages) if turn.role == "user"), None)
        if turn is None:
            raise ApiError(400, "there is no message with the role 'user' to rewrite", "no_query", "messages")
        if isinstance(turn.content, list) and any(part.type != "text" for part in turn.content):
            raise ApiError(400, "only text can be rewritten: send parts of the type 'text'", "no_text", "messages")
        return turn.text

    def sampling(self, own: SamplingParams) -> SamplingParams:
        """How the request draws: as the model was trained to, but for what is asked; never longer than its own."""
        temperature = own.temperature if self.temperature is None else self.temperature
        if temperature == 0 and (self.n or 1) > 1:
            raise ApiError(400, "at temperature 0 all rewrites are the same: ask for n = 1", "invalid_value", "n")
        longest = self.max_completion_tokens or self.max_tokens or own.max_tokens
        return SamplingParams(
            temperature, own.top_p if self.top_p is None else self.top_p, min(longest, own.max_tokens), own.seed
        )

    def cut(self, text: str) -> str:
        """A text up to the first of the sequences at which the request stops."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return min((text.split(stop)[0] for stop in stops if stop), key=len, default=text)


@dataclass(frozen=True)
class Answer:
    """Rewrites as a chat completion. ``read`` and ``written`` count tokens; ``limit`` is the video model's."""

    id: str
    created: int
    model: str
    fingerprint: str
    rewrites: Sequence[Rewrite]
    texts: Sequence[str]
    finished: Sequence[bool]
    """Whether each was written to its end, and not cut off at the tokens it may have."""
    limit: int
    read: int
    written: int

    def body(self) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": self.texts[index], "refusal": None},
                "finish_reason": self._end(index),
                "logprobs": None,
                "promptreel": self._known(index),
            }
            for index in range(len(self.texts))
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self._usage()}

    def events(self, usage: bool) -> Iterator[str]:
        """The answer as server-sent events, a word each: a rewrite is judged whole before any of it is sent."""
        for index, text in enumerate(self.texts):
            yield self._event([_delta(index, {"role": "assistant", "content": ""})])
            for word in re.findall(r"\s*\S+|\s+$", text):
                yield self._event([_delta(index, {"content": word})])
            last = {**_delta(index, {}, self._end(index)), "promptreel": self._known(index)}
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

    def _end(self, index: int) -> str:
        return "stop" if self.finished[index] else "length"

    def _known(self, index: int) -> dict[str, Any]:
        """What else is known of a rewrite: nothing is left out, or too long, without a word."""
        rewrite = self.rewrites[index]
        return {
            "tokens": rewrite.tokens,
            "token_limit": self.limit,
            "removed": rewrite.removed,
            "problems": rewrite.verdict.problems if rewrite.verdict else [],
        }

    def _usage(self) -> dict[str, int]:
        total = self.read + self.written
        return {"prompt_tokens": self.read, "completion_tokens": self.written, "total_tokens": total}


def _delta(index: int, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
