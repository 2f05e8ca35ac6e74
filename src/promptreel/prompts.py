"""Every sentence sent to a language model, and the parser of what comes back.

A template is a file ``templates/<task>.<format>.j2`` with a ``user`` block and, where the format has one, a
``system`` block. The same rendering serves training, sampling and serving, so they cannot drift apart.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from promptreel.errors import ReplyError, UnknownName
from promptreel.types import Message


@cache
def _environment() -> Environment:
    return Environment(  # noqa: S701 - plain text for a model, not a page
        loader=PackageLoader("promptreel", "templates"), undefined=StrictUndefined, trim_blocks=True
    )


def check_format(task: str, format: str) -> None:
    """Raise ``UnknownName`` for a format in which a task cannot be asked."""
    known = {
        entry.name.split(".")[1]
        for entry in (resources.files("promptreel") / "templates").iterdir()
        if entry.name.startswith(f"{task}.")
    }
    if format not in known:
        raise UnknownName(f"format for {task!r}", format, known)


@cache
def _template(task: str, format: str) -> Template:
    check_format(task, format)
    return _environment().get_template(f"{task}.{format}.j2")


def render(task: str, format: str, **fields: Any) -> list[Message]:
    """The messages that ask a model for a task in a format.

    Tasks: ``rewrite`` (fields ``query``), ``propose`` (``query``, ``history``: mappings with ``text``,
    ``total`` and ``dimensions``, best first), ``refine`` (``query``, ``draft``, ``problems``). Formats that
    describe the video model also use ``profile``.
    """
    template = _template(task, format)
    context = template.new_context(fields)
    return [
        Message(role=role, content="".join(template.blocks[role](context)).strip())
        for role in ("system", "user")
        if role in template.blocks
    ]


_TAGGED = re.compile(r"<prompt>(.*?)</prompt>", re.IGNORECASE | re.DOTALL)
_THOUGHT = re.compile(r"<think>.*?</think>", re.IGNORECASE | re.DOTALL)
_LABEL = re.compile(
    r"^\s*(?:(?:here(?:'s| is)[^:\n]{0,60}|sure[^:\n]{0,60}|(?:new|rewritten|improved|final|video)? ?prompt)\s*:\s*)+",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "`": "`"}


def parse_rewrite(reply: str) -> str:
    """The prompt in a model's reply, on one line.

    Takes what stands between ``<PROMPT>`` tags if there are any; otherwise the reply without thoughts, code
    fences, a leading label and surrounding quotes. A prompt that was written twice in a row is taken once.
    Raises ``ReplyError`` when nothing is left. Parsing a parsed prompt changes nothing.
    """
    text = _THOUGHT.sub(" ", reply)
    tagged = [found for match in _TAGGED.findall(text) if (found := match.strip())]
    text = tagged[0] if tagged else text
    previous = None
    while text != previous:
        previous = text
        text = _LABEL.sub("", re.sub(r"^\s*```\w*\s|```\s*$", "", text.strip()))
        text = " ".join(text.split())
        if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
            text = text[1:-1]
        half, middle = divmod(len(text), 2)
        if middle and half > 20 and text[half] == " " and text[:half] == text[half + 1 :]:
            text = text[:half]
    if not text:
        raise ReplyError(f"no prompt in the reply {reply[:80]!r}")
    return text
