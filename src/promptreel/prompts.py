"""Every sentence sent to a language model, and the parser of what comes back.

A template is a file ``templates/<task>.<format>.j2`` with a ``user`` block and, where the format has one, a
``system`` block. The same rendering serves training, sampling and serving, so they cannot drift apart.
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
from promptreel.types import Fact, Message, Verdict, load_json


@cache
def _environment() -> Environment:
    return Environment(  # noqa: S701 - plain text for a model, not a page
        loader=PackageLoader("promptreel", "templates"), undefined=StrictUndefined, trim_blocks=True
    )


MODES = ("faithful", "cinematic")
"""Formats of ``rewrite`` between which a person chooses: nothing changes the scene, or camera, light and style may
be added."""
INSTRUCTED = ("standard", *MODES)
"""Formats whose models follow instructions; all others are for students that were trained on their own layout."""


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
    ``total`` and ``dimensions``, best first), ``refine`` (``query``, ``draft``, ``problems``), ``shorten``
    (``query``, ``draft``, ``tokens`` of the draft, ``words`` to write at most), ``verdict`` (``query``,
    ``rewrite``), ``guard`` (``text``). Formats that describe the video model also use ``profile``.
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
"""What Llama 3 goes on with when nothing stops it after its turn, as it reads without special tokens."""
_LABEL = re.compile(
    r"^\s*(?:(?:here(?:['’]s| is) (?:the|your|an?)\b[^:\n]{0,40}\bprompt\b[^:\n]{0,40}|sure\b(?!-)[^:\n]{0,60}"
    r"|(?:new|rewritten|improved|final|video|image)? ?prompt)\s*:\s*)+",
    re.IGNORECASE,
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "`": "`"}


def parse_rewrite(reply: str) -> str:
    """The prompt in a model's reply, on one line.

    Takes what stands between ``<PROMPT>`` tags if there are any; otherwise the reply without thoughts, code
    fences, a leading label, surrounding quotes and what follows its turn. A prompt that was written twice in a
    row is taken once.
    Raises ``ReplyError`` when nothing is left, and for a prompt or a thought that was begun and never ended: the
    model ran out of tokens. Parsing a parsed prompt changes nothing.
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
"""What a judge's reply must look like, as JSON."""


def parse_verdict(reply: str, query: str) -> Verdict:
    """The verdict in a judge's reply, strictly.

    Raises ``ReplyError`` for a reply that is not the JSON asked for, that lists no fact, that quotes what the query
    does not say, that says more of some words than the query says them, or whose parts contradict each other: a judge
    that was confused, or talked into something, lets nothing through.
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
    if not isinstance(listed, list) or not listed:
        raise ReplyError("the verdict lists no facts")
    said = _plain(query)
    known: defaultdict[str, set[tuple[str, bool]]] = defaultdict(set)
    facts = []
    for entry in listed:
        if not isinstance(entry, dict) or entry.keys() != {"quote", "status", "why", "harmful"}:
            raise ReplyError(f"not a fact of a verdict: {str(entry)[:80]}")
        quote, status, why, harmful = entry["quote"], entry["status"], entry["why"], entry["harmful"]
        if not all(isinstance(part, str) for part in (quote, status, why)) or not isinstance(harmful, bool):
            raise ReplyError(f"not a fact of a verdict: {str(entry)[:80]}")
        if status not in ("kept", "lost", "changed"):
            raise ReplyError(f"a fact is kept, lost or changed, not {status[:40]!r}")
        quoted = _plain(quote)
        times = _times(quoted, said)
        if not times:
            raise ReplyError(f"the verdict quotes {quote[:60]!r}, which the query does not say")
        known[quoted].add((status, harmful))
        if len(known[quoted]) > times:
            raise ReplyError(f"the verdict contradicts itself about {quote[:60]!r}")
        facts.append(Fact(quote, status, why, harmful))
    return tuple(facts)


def _plain(text: str) -> str:
    """A text without case, compatibility forms and, unless it is nothing else, punctuation."""
    text = unicodedata.normalize("NFKC", text).casefold()
    bare = "".join(" " if unicodedata.category(character).startswith("P") else character for character in text)
    return " ".join(bare.split()) or " ".join(text.split())


def _times(quoted: str, said: str) -> int:
    """How often a plain text says what is quoted from it, as whole words where words can be told.

    They can in scripts with case, and numbers. Others have no spaces (Chinese, Japanese, Thai …), or write particles
    onto what they belong to (Korean, Arabic, Hebrew).
    """
    said = f" {said} "
    starts = [found.start() for found in re.finditer(f"(?={re.escape(quoted)})", said)] if quoted else []
    return sum(not (_within_word(said, at) or _within_word(said, at + len(quoted))) for at in starts)


def _within_word(said: str, at: int) -> bool:
    """Whether a place in a plain text lies between characters of one word of a script with case, or of one number."""
    return all(character.islower() or character.isdecimal() for character in said[at - 1 : at + 1])
