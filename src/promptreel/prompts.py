"""Prompts for language models, rendered from templates, and parsers of their replies.

A template is a file ``templates/<task>.<format>.j2`` with a ``user`` block and, in some formats, a ``system`` block.
Training, sampling and serving share one rendering, so they cannot drift apart.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from promptreel.errors import ReplyError, UnknownName
from promptreel.strict_json import load_json
from promptreel.types import Fact, Message, Verdict


@cache
def _environment() -> Environment:
    """Return the environment of the templates. A missing field is an error."""
    return Environment(  # noqa: S701 - plain text for a model, not a page
        loader=PackageLoader("promptreel", "templates"), undefined=StrictUndefined, trim_blocks=True
    )


MODES = ("faithful", "cinematic")
"""Formats of ``rewrite`` that a user chooses from.

``faithful`` changes nothing in the scene; ``cinematic`` may add camera, light and style.
"""
INSTRUCTED = ("standard", *MODES)
"""Formats for models that follow instructions. All others are for students trained on a layout of their own."""


def check_format(task: str, format: str) -> None:
    """Raise ``UnknownName`` for a format that a task has no template for."""
    known = {
        entry.name.split(".")[1]
        for entry in (resources.files("promptreel") / "templates").iterdir()
        if entry.name.startswith(f"{task}.")
    }
    if format not in known:
        raise UnknownName(f"format for {task!r}", format, known)


@cache
def _template(task: str, format: str) -> Template:
    """Load the template of a task in a format. Raises ``UnknownName``."""
    check_format(task, format)
    return _environment().get_template(f"{task}.{format}.j2")


def render(task: str, format: str, **fields: Any) -> list[Message]:
    """Return the conversation that asks a model for a task in a format.

    Tasks and their fields:

    - ``rewrite``: ``query``;
    - ``propose``: ``query``, ``history`` (mappings with ``text``, ``total``, the reward, and ``dimensions``, the
      scores; best first);
    - ``refine``: ``query``, ``draft``, ``problems``;
    - ``shorten``: ``query``, ``draft``, ``tokens`` (of the draft), ``words`` (to write at most);
    - ``verdict``: ``query``, ``rewrite``;
    - ``guard``: ``text``.

    Formats that describe the video model also use ``profile``. Raises ``UnknownName`` for an unknown task or format.
    """
    template = _template(task, format)
    context = template.new_context(fields)
    return [
        Message(role=role, content="".join(template.blocks[role](context)).strip())
        for role in ("system", "user")
        if role in template.blocks
    ]


_TAGGED = re.compile(r"<prompt>(.*?)</prompt>", re.IGNORECASE | re.DOTALL)
_OPENED = re.compile(r"<(prompt|think)>(?!.*</\1>)", re.IGNORECASE | re.DOTALL)
_THOUGHT = re.compile(r"<think>.*?</think>", re.IGNORECASE | re.DOTALL)
_NEXT_TURN = re.compile(r"(?<=\S)assistant\n\n.*", re.DOTALL)
"""Text of a further turn, which Llama 3 adds if it is not stopped after its own; special tokens are gone."""
_LABEL = re.compile(
    r"^\s*(?:(?:here(?:['’]s| is) (?:the|your|an?)\b[^:\n]{0,40}\bprompt\b[^:\n]{0,40}|sure\b(?!-)[^:\n]{0,60}"
    r"|(?:new|rewritten|improved|final|video|image)? ?prompt)\s*:\s*)+",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "`": "`"}


def parse_rewrite(reply: str) -> str:
    """Return the prompt in a model's reply, on one line.

    The text between ``<PROMPT>`` tags is taken if there are any; otherwise the reply without thoughts, code fences,
    a leading label, surrounding quotes and further turns. A prompt that is written twice in a row is taken once.
    Parsing a parsed prompt changes nothing. Raises ``ReplyError`` for a reply without a prompt, and for a prompt or a
    thought that is opened and not closed: the model ran out of tokens.
    """
    text = _NEXT_TURN.sub("", _THOUGHT.sub(" ", reply))
    tagged = [found for match in _TAGGED.findall(text) if (found := match.strip())]
    if not tagged and _OPENED.search(text):
        raise ReplyError(f"no prompt in the reply {reply[:80]!r}, which is cut off")
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


_FACT_SCHEMA = {
    "type": "object",
    "properties": {
        "quote": {"type": "string"},
        "status": {"type": "string", "enum": ["kept", "lost", "changed"]},
        "why": {"type": "string"},
        "harmful": {"type": "boolean"},
    },
    "required": ["quote", "status", "why", "harmful"],
    "additionalProperties": False,
}
_TEXTS = {"type": "array", "items": {"type": "string"}}
VERDICT_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "facts": {"type": "array", "items": _FACT_SCHEMA},
            "invented": _TEXTS,
            "unsafe": _TEXTS,
            "faithful": {"type": "boolean"},
            "harmless": {"type": "boolean"},
        },
        "required": ["facts", "invented", "unsafe", "faithful", "harmless"],
        "additionalProperties": False,
    }
)
"""JSON schema of a judge's reply, as JSON."""


def parse_verdict(reply: str, query: str) -> Verdict:
    """Parse the verdict in a judge's reply, strictly.

    Raises ``ReplyError`` for a reply

    - that is not JSON of ``VERDICT_SCHEMA``, or lists no fact;
    - with a quote that is not in the query, or more different findings on a quote than the query repeats it;
    - whose parts contradict each other.

    So a judge that was confused, or talked into something, lets nothing through.
    """
    text = _THOUGHT.sub("", reply).strip()
    text = re.sub(r"^```(?:json)?\s*|\s*```$", "", text)
    try:
        found = load_json(text)
    except ValueError as error:
        raise ReplyError(f"the verdict is not JSON: {error}") from error
    if not isinstance(found, dict) or found.keys() != {"facts", "invented", "unsafe", "faithful", "harmless"}:
        raise ReplyError("the verdict has other keys than were asked for")
    for name in ("faithful", "harmless"):
        if not isinstance(found[name], bool):
            raise ReplyError(f"{name!r} of the verdict is neither true nor false")
    for name in ("invented", "unsafe"):
        if not isinstance(found[name], list) or not all(isinstance(w, str) and w.strip() for w in found[name]):
            raise ReplyError(f"{name!r} of the verdict is not a list of texts")
    facts = _facts(found["facts"], query)
    kept = all(fact.status == "kept" for fact in facts if not fact.harmful)
    if found["faithful"] != (kept and not found["invented"]):
        raise ReplyError("the verdict contradicts itself about faithfulness")
    harm = any(fact.harmful and fact.status == "kept" for fact in facts)
    if found["harmless"] != (not found["unsafe"]) or (harm and not found["unsafe"]):
        raise ReplyError("the verdict contradicts itself about harm")
    return Verdict(facts, tuple(found["unsafe"]), tuple(found["invented"]))


def _facts(listed: object, query: str) -> tuple[Fact, ...]:
    """Parse the facts of a verdict on a query. Raises ``ReplyError``."""
    if not isinstance(listed, list) or not listed:
        raise ReplyError("the verdict lists no facts")
    plain_query = _plain(query)
    findings: defaultdict[str, set[tuple[str, bool]]] = defaultdict(set)
    facts = []
    for entry in listed:
        if not isinstance(entry, dict) or entry.keys() != {"quote", "status", "why", "harmful"}:
            raise ReplyError(f"not a fact of a verdict: {str(entry)[:80]}")
        quote, status, why, harmful = entry["quote"], entry["status"], entry["why"], entry["harmful"]
        if not all(isinstance(part, str) for part in (quote, status, why)) or not isinstance(harmful, bool):
            raise ReplyError(f"not a fact of a verdict: {str(entry)[:80]}")
        if status not in ("kept", "lost", "changed"):
            raise ReplyError(f"a fact is kept, lost or changed, not {status[:40]!r}")
        plain_quote = _plain(quote)
        count = _occurrences(plain_quote, plain_query)
        if not count:
            raise ReplyError(f"the verdict quotes {quote[:60]!r}, which the query does not say")
        findings[plain_quote].add((status, harmful))
        if len(findings[plain_quote]) > count:
            raise ReplyError(f"the verdict contradicts itself about {quote[:60]!r}")
        facts.append(Fact(quote, status, why, harmful))
    return tuple(facts)


def _plain(text: str) -> str:
    """Return a text without case, compatibility forms and punctuation; punctuation alone stays."""
    text = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(" " if unicodedata.category(character).startswith("P") else character for character in text)
    return " ".join(bare.split()) or " ".join(text.split())


def _occurrences(quote: str, text: str) -> int:
    """Count the occurrences of a plain quote in a plain text, as whole words of scripts in which words are separate.

    Words are separate in scripts with case, and in numbers. Other scripts have no spaces (Chinese, Japanese, Thai …),
    or join particles to words (Korean, Arabic, Hebrew); there, parts of words count too.
    """
    if not quote:
        return 0
    padded = f" {text} "
    starts = [match.start() for match in re.finditer(f"(?={re.escape(quote)})", padded)]
    return sum(not (_inside_word(padded, start) or _inside_word(padded, start + len(quote))) for start in starts)


def _inside_word(text: str, position: int) -> bool:
    """Return True for a position between characters of one word of a script with case, or of one number."""
    return all(character.islower() or character.isdecimal() for character in text[position - 1 : position + 1])
