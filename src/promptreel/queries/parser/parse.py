"""Parsing of the text that a person typed into a query.

People of text-to-video services type flags into their prompts and paste HTML and chat debris. ``parse_query`` takes
the text apart and loses nothing: everything that does not belong in the prompt is on the query, where it can be seen.
"""

from __future__ import annotations

import re

from promptreel.errors import QueryError
from promptreel.queries.parser.cleaning import clean, take_shapes, take_wishes, tidy, visible
from promptreel.queries.parser.flag_names import STYLE_PRESETS
from promptreel.queries.parser.flags import take_flags
from promptreel.types import Query

MAX_WORDS = 2000
"""Length in words of the longest query. A longer text is a document; no prompt could keep its content."""
MAX_CHARACTERS = 20_000
"""Length in characters of the longest query, for the same reason. A longer text is not taken apart."""
MAX_PASSES = 20
"""Number of passes over a text at most. People's texts settle in two or three."""

Found = dict[str, list[str]]
"""Parts that were taken from a text, by the name of their setting."""


def parse_query(typed: str) -> Query:
    """Parse the text that a person typed. Never raises; the text can come out empty (see ``ask_for``).

    Parsing the text of a parsed query gives that text again. A camera move or a style that was set by a flag is
    part of the request, and is added to the end of the text.
    """
    typed = visible(typed)
    text, found = _split_off(typed)
    wishes = _prompt_wishes(found)
    for wish in wishes:
        if not re.search(rf"(?<!\w){re.escape(wish)}(?!\w)", text, re.IGNORECASE):
            text = _append(text, wish)
    if wishes:
        text, more = _split_off(text)
        for name, values in more.items():
            found.setdefault(name, []).extend(values)
    return Query(
        text=text,
        negative=", ".join(part for part in found.pop("negative", []) if part),
        options=tuple((name, value) for name, values in found.items() for value in values),
    )


def ask_for(typed: str) -> Query:
    """Return the query to rewrite. Raises ``QueryError`` for one that is empty or too long."""
    query = parse_query(typed)
    if not query.text:
        raise QueryError(f"the query {typed[:60]!r} asks for nothing; say what the video should show")
    if excess := too_long(query):
        raise QueryError(f"the query has {excess} can be rewritten into a prompt")
    return query


def too_long(query: Query) -> str:
    """Return a query's excess length in words (``2001 words; at most 2000``), or an empty string."""
    words = len(query.text.split())
    if words > MAX_WORDS:
        return f"{words} words; at most {MAX_WORDS}"
    characters = len(query.text)
    return f"{characters} characters; at most {MAX_CHARACTERS}" if characters > MAX_CHARACTERS else ""


def _prompt_wishes(found: Found) -> list[str]:
    """Return the camera moves and styles among the settings, as phrases for the prompt, each once."""
    cameras = [f"camera {move}" for move in found.get("camera", [])]
    styles = [style for style in found.get("style", []) if style.lower() not in STYLE_PRESETS]
    phrases = [style if style.lower().endswith("style") else f"{style} style" for style in styles]
    return list(dict.fromkeys([*cameras, *phrases]))


def _append(text: str, wish: str) -> str:
    """Return a text with a wish after its last sentence or phrase."""
    text = text.rstrip(" .")
    if text.endswith(("!", "?", "\u3002")):
        return f"{text} {wish}"
    return f"{text}, {wish}" if text else wish


def _split_off(text: str) -> tuple[str, Found]:
    """Split off everything that is not part of the request; return the clean text and the rest.

    The text is read line by line first, then again as the one line that it becomes, until it no longer changes.
    """
    found: Found = {}
    plain = " ".join(text.split())
    if len(plain) > MAX_CHARACTERS:
        return plain, found
    passes, before = 0, None
    while text != before:
        if passes == MAX_PASSES:  # the text was made to change for ever: it stays as it is
            return plain, {}
        passes, before = passes + 1, text
        text = tidy(take_wishes(take_flags(take_shapes(clean(text, found), found), found), found))
        if text == before:
            text = " ".join(text.split())
    return text, found
