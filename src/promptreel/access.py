"""How an endpoint is reached: where it is, with which key, and how nobody else learns either's secret."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2

from promptreel.errors import RunError, UserError
from promptreel.types import Failure, Reply

if TYPE_CHECKING:
    import openai

_USERINFO = re.compile(r"(\w://)[^\s'\"]+@")
LONGEST = 300
"""Characters of what a server said that are told on."""


@dataclass(frozen=True)
class Access:
    """``url`` is a base URL, ``None`` for OpenAI's; ``variable`` is the environment variable that holds the key.

    Raises ``UserError`` for a URL at which nothing can be.
    """

    url: str | None
    variable: str

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
        """The URL without name and password: where the server is, whoever asks it."""
        return str(httpx2.URL(self.url).copy_with(userinfo=b"")) if self.url and "@" in self.url else self.url

    def key(self) -> str:
        """The key to send; ``none`` to a server of one's own that needs none."""
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
        """What to raise where no later request could succeed either: a wrong key, URL or model."""
        return RunError(f"{self.place or 'OpenAI'} refuses model {model!r}: {self.told(said(error))}")

    def told(self, said: object) -> str:
        """What a server or a library said, short, and with *** for every secret: for logs, messages and the store."""
        text = _USERINFO.sub(r"\1***@", str(said))
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


def check_answered(replies: Sequence[Reply | Failure]) -> None:
    """Raise ``RunError`` when of several questions, or of one, none was answered: the server is away. To store that as
    what became of them would lose them for good.
    """
    failures = [reply for reply in replies if isinstance(reply, Failure) and reply.unanswered]
    if failures and len(failures) == len(replies):
        why = f"{failures[0].reason} {failures[0].detail}".strip()
        raise RunError(f"nobody answers ({why}); what was stored is whole: the same command goes on from here")


def said(error: openai.APIStatusError) -> str:
    """What a server said as it refused, without headers."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return f"{error.status_code} {message or error.body}"
