"""Taking apart what a person typed.

People of text-to-video services type flags into their prompts and paste HTML and chat debris. ``parse_query`` takes
it apart and loses nothing: what does not belong into the prompt is on the query, where it can be seen.
"""

from __future__ import annotations

import re

from promptreel.errors import QueryError
from promptreel.queries.candidates import PRESETS
from promptreel.queries.cleaning import clean, take_shapes, take_wishes, tidy, visible
from promptreel.queries.flags import take_flags
from promptreel.types import Query

LONGEST = 2000
"""Words of a query; what is longer is a document, and no prompt could keep what it says."""
LARGEST = 20_000
"""Characters of a query, for the same reason; what is longer is not taken apart."""
ROUNDS = 20
"""How often a text is looked at again. People's texts settle in two or three rounds."""

Found = dict[str, list[str]]


def parse_query(typed: str) -> Query:
    """Take apart what a person typed. Never raises; the text can come out empty (see ``ask_for``).

    Parsing the text of a parsed query gives that text again. A camera move or a style that was set by a flag is
    part of what is asked for, and so of the text.
    """
    typed = visible(typed)
    text, found = _settled(typed)
    wishes = [f"camera {move}" for move in found.get("camera", [])]
    wishes += [
        style if style.lower().endswith("style") else f"{style} style"
        for style in found.get("style", [])
        if style.lower() not in PRESETS
    ]
    for wish in dict.fromkeys(wishes):
        if not re.search(rf"(?<!\w){re.escape(wish)}(?!\w)", text, re.IGNORECASE):
            text = text.rstrip(" .")
            text += (" " if text.endswith(("!", "?", "\u3002")) else ", " if text else "") + wish
    if wishes:
        text, more = _settled(text)
        for name, values in more.items():
            found.setdefault(name, []).extend(values)
    return Query(
        text=text,
        negative=", ".join(part for part in found.pop("negative", []) if part),
        options=tuple((name, value) for name, values in found.items() for value in values),
    )


def ask_for(typed: str) -> Query:
    """A query to be rewritten. Raises ``QueryError`` for one that is empty or endless."""
    query = parse_query(typed)
    if not query.text:
        raise QueryError(f"the query {typed[:60]!r} asks for nothing; say what the video should show")
    if excess := too_long(query):
        raise QueryError(f"the query has {excess} can be rewritten into a prompt")
    return query


def too_long(query: Query) -> str:
    """By how much a query is a document, in words; empty for one that is none."""
    words = len(query.text.split())
    if words > LONGEST:
        return f"{words} words; at most {LONGEST}"
    return f"{len(query.text)} characters; at most {LARGEST}" if len(query.text) > LARGEST else ""


def _settled(text: str) -> tuple[str, Found]:
    """A text without what is not asked for, and that: first line by line, then as the one line that it becomes."""
    found: Found = {}
    plain = " ".join(text.split())
    if len(plain) > LARGEST:
        return plain, found
    rounds, before = 0, None
    while text != before:
        if rounds == ROUNDS:  # made to be looked at for ever: it stays as it is
            return plain, {}
        rounds, before = rounds + 1, text
        text = tidy(take_wishes(take_flags(take_shapes(clean(text, found), found), found), found))
        if text == before:
            text = " ".join(text.split())
    return text, found
