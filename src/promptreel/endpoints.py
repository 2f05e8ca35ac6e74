"""Endpoints: the URL and the key of a server, and the removal of both secrets from messages about it."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2

from promptreel.errors import RunError, UserError

if TYPE_CHECKING:
    import openai

_USERINFO = re.compile(r"(\w://)[^\s'\"]+@")
LONGEST = 300
"""Characters of a server's message that are passed on."""


@dataclass(frozen=True)
class Endpoint:
    """A server of the OpenAI protocol. Raises ``UserError`` for a malformed URL."""

    url: str | None
    """Base URL; ``None`` for OpenAI's."""
    variable: str
    """Name of the environment variable that holds the API key."""

    def __post_init__(self) -> None:
        if self.url is None:
            return
        try:
            parsed = httpx2.URL(self.url)
            usable = parsed.scheme in ("http", "https") and parsed.host and 0 < (parsed.port or 1) < 2**16
        except (httpx2.InvalidURL, TypeError):
            usable = False
        if not usable:
            shown = _USERINFO.sub(r"\1***@", repr(self.url))
            raise UserError(f"no URL of a server: {shown}; give one like http://127.0.0.1:8000/v1")

    @property
    def place(self) -> str | None:
        """The URL without user name and password: the identity of the server, the same for every user."""
        return str(httpx2.URL(self.url).copy_with(userinfo=b"")) if self.url and "@" in self.url else self.url

    def key(self) -> str:
        """Return the API key to send; ``none`` for a server at a given URL when the variable is empty.

        Raises ``UserError`` for a missing key to OpenAI, and for a key with characters that cannot be sent.
        """
        key = os.environ.get(self.variable, "").strip()
        if not key and self.url is None:
            raise UserError(
                f"no API key: set the environment variable {self.variable}, or give the url of your own server"
            )
        if not (key.isascii() and key.isprintable()):
            raise UserError(
                f"the API key in the environment variable {self.variable} has characters that cannot be sent "
                "(control characters, or others than ASCII): copy it once more"
            )
        return key or "none"

    def refusal(self, model: str, error: openai.APIStatusError) -> RunError:
        """Return the error to raise for a wrong key, URL or model: no later request could succeed either."""
        return RunError(f"{self.place or 'OpenAI'} refuses model {model!r}: {self.masked(server_message(error))}")

    def masked(self, message: object) -> str:
        """Return a message of a server or library with ``***`` for every secret, cut to ``LONGEST`` characters.

        Only masked messages go into logs, errors and the store.
        """
        text = _USERINFO.sub(r"\1***@", str(message))
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text[:LONGEST]

    def _secrets(self) -> set[str]:
        secrets = {os.environ.get(self.variable, "").strip()}
        if self.url and "@" in self.url:
            parsed = httpx2.URL(self.url)
            pair = f"{parsed.username}:{parsed.password}".encode()
            secrets |= {parsed.userinfo.decode(), parsed.password, base64.b64encode(pair).decode()}
        return secrets - {""}


def server_message(error: openai.APIStatusError) -> str:
    """Return the HTTP status and the message of a server's error response, without headers."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return f"{error.status_code} {message or error.body}"
