"""Reading queries: what people really type, from the command line, files and data sets.

People of text-to-video services type flags into their prompts (``--ar 16:9``, ``-neg blurry, extra limbs``,
``-camera zoom in``, ``seed123``) and paste HTML and chat debris. ``parse_query`` takes it apart and loses
nothing: what does not belong into the prompt is on the query, where it can be seen.
"""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from promptreel.errors import QueryError, UnknownName
from promptreel.types import Query

LONGEST = 2000
"""Words of a query; what is longer is a document, and no prompt could keep what it says."""

FLAGS = {
    "ar": "aspect", "aspect": "aspect", "aspect_ratio": "aspect", "aspect-ratio": "aspect",
    "neg": "negative", "negative": "negative", "no": "negative", "negative_prompt": "negative",
    "camera": "camera", "cam": "camera", "motion": "motion", "mo": "motion", "gs": "guidance",
    "guidance": "guidance", "cfg": "guidance", "fps": "fps", "seed": "seed", "w": "width", "width": "width",
    "h": "height", "height": "height", "style": "style", "v": "version", "version": "version", "q": "quality",
    "quality": "quality", "s": "stylize", "stylize": "stylize", "c": "chaos", "chaos": "chaos", "iw": "iw",
    "niji": "niji", "hd": "hd", "tile": "tile", "video": "video", "weird": "weird", "stop": "stop",
    "repeat": "repeat", "upbeta": "upbeta", "uplight": "uplight", "test": "test", "testp": "testp", "fast": "fast",
    "relax": "relax", "turbo": "turbo", "duration": "duration", "t": "duration", "loop": "loop",
}  # fmt: skip
"""Flags of Pika, Midjourney and their kin, by every spelling, and what they set."""
LONE = {"hd", "tile", "video", "upbeta", "uplight", "test", "testp", "fast", "relax", "turbo", "loop"}
"""Flags without a value."""
SHORT = {"w", "h", "v", "q", "s", "c", "t"}
"""Spellings that are flags only before a number: a dash and a letter can be many things."""

_FLAG = re.compile(r"(?:(?<=\s)|^)[-\u2013\u2014]{1,2}(?P<name>[A-Za-z][\w-]*)(?P<glued>[:=]?\d[\d.:x]*)?(?=[\s,]|$)")
_NUMBER = re.compile(r"\s*[:=]?\s*(-?\d+(?:\.\d+)?)(?=[\s,]|$)")
_ASPECT = re.compile(r"\s*[:=]?\s*(\d+(?:\.\d+)?)\s*[:x/]\s*(\d+(?:\.\d+)?)(?=[\s,]|$)")
_WORD = re.compile(r"\s*(\S+)")
_GLUED_SEED = re.compile(r"(?:(?<=\s)|^)seed[:=]?\d{1,12}(?=[\s,.]|$)", re.IGNORECASE)
_CAMERA = re.compile(
    r"(?:\s*,?\s*\b(?:zoom(?:s|ing)?|pan(?:s|ning)?|tilt(?:s|ing)?|rotat(?:e|es|ing)|roll|truck|dolly|pedestal|"
    r"orbit|crane|track(?:ing)?|static|still|handheld|fixed|shot|in|out|up|down|left|right|clockwise|"
    r"counter-?clockwise|anti-?clockwise|cw|ccw|acw|slow(?:ly)?|fast|and|to|the|around|\d+)\b)+",
    re.IGNORECASE,
)
_DEBRIS = re.compile(
    r"<?https?://\S+>?|<@[!&]?\d+>|<a?:\w+:\d+>|(?:Message|Image):\s*\d+ Attachments?|\b\d+ Attachments?\b"
)
_ASIDES = re.compile(
    r"[,;.]?\s*\b(?:and\s+)?(?:(?:with|without|no|add|adding|include|including|plus|make)\s+(?:[\w'-]+\s+){0,3}?"
    r"(?:background music|music in the background|soundtracks?|sound effects?|sound fx|sfx|bgm|audio|voice-?\s?overs?|"
    r"narration)(?:\s+of\s+[\w' -]{1,40}?)?"
    r"|(?:in|as|to|output|export(?:ed)?(?:\s+as)?|format:?|resolution:?|render(?:ed)?\s+(?:in|at))\s+(?:an?\s+)?"
    r"(?:mp4|mov|gif|avi|webm|\d{3,4}p)(?:\s+(?:format|video|file|resolution))?"
    r"|(?:duration:?|length:?|lasting|for|make it|of)\s+\d+(?:\.\d+)?\s*(?:seconds?|secs?|minutes?)"
    r"(?:\s+(?:long|duration))?)"
    r"\s*(?=[,;.!?]|$)",
    re.IGNORECASE,
)
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffc\ufffd]"
)
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"
_PAIRS = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}


def parse_query(typed: str) -> Query:
    """Take apart what a person typed. Never raises; the text can come out empty (see ``ask_for``).

    Parsing the text of a parsed query gives that text again. A camera move that was set by a flag is part of
    what is asked for, and so of the text.
    """
    found: dict[str, list[str]] = {}
    text = typed
    for _ in range(20):  # what a removal uncovers is looked at again; every round but the last shortens the text
        before = text
        text = _clean(text)
        text = _take(text, _DEBRIS, found, "debris")
        text = _take_flags(text, found)
        text = _take(text, _GLUED_SEED, found, "seed")
        text = _take(text, _ASIDES, found, "aside")
        text = _tidy(text)
        if text == before:
            break
    moves = [move for move in found.get("camera", []) if move]
    for move in moves:
        if move.lower() not in text.lower():
            text = f"{text.rstrip(' .')}, camera {move}" if text else f"camera {move}"
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
    words = len(query.text.split())
    if words > LONGEST:
        raise QueryError(f"the query has {words} words; at most {LONGEST} can be rewritten into a prompt")
    return query


def _clean(text: str) -> str:
    """Entities, tags, invisible characters, chat emphasis and white space."""
    text = html.unescape(text)
    text = re.sub(r"</?(?:br|p|div|span|b|i|em|strong|u)\s*/?>", " ", text, flags=re.IGNORECASE)
    text = _INVISIBLE.sub(" ", text)
    text = re.sub(r"\*{2,}|(?<!\w)__+(?!\w)|~~", " ", text)
    return " ".join(text.split())


def _tidy(text: str) -> str:
    """Stray quotes and punctuation at the ends, doubled separators."""
    text = re.sub(r"\s+([,;.!?])", r"\1", " ".join(text.split()))
    text = re.sub(r"([,;])(?:\s*[,;])+", r"\1", text)
    text = text.strip(" ,;")
    if len(text) > 1 and _PAIRS.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip(" ,;")
    for quote in _QUOTES:  # one that opens or closes nothing
        if text.count(quote) == 1 and quote not in "'\u2019":
            text = text.replace(quote, "")
    return " ".join(text.split()).strip(" ,;")


def _take(text: str, pattern: re.Pattern[str], found: dict[str, list[str]], name: str) -> str:
    """Move every match of a pattern from the text to ``found``."""

    def keep(match: re.Match[str]) -> str:
        value = match.group().strip(" ,;.")
        value = re.sub(r"^seed[:=]?", "", value, flags=re.IGNORECASE) if name == "seed" else value
        found.setdefault(name, []).append(value)
        return " "

    return pattern.sub(keep, text)


def _take_flags(text: str, found: dict[str, list[str]]) -> str:
    """Move every known flag with its value from the text to ``found``."""
    flags = [match for match in _FLAG.finditer(text) if _is_flag(match, text)]
    if not flags:
        return text
    ends = [*(match.start() for match in flags[1:]), len(text)]
    kept, at = [], 0
    for match, end in zip(flags, ends, strict=True):
        name = match["name"].lower().rstrip("-_")
        setting = FLAGS[name] if name in FLAGS else FLAGS[re.sub(r"\d+$", "", name)]
        kept.append(text[at : match.start()])
        at, value = _value(setting, match, text, end)
        found.setdefault(setting, []).append(value)
    return " ".join([*kept, text[at:]])


def _is_flag(match: re.Match[str], text: str) -> bool:
    name = match["name"].lower().rstrip("-_")
    stem = re.sub(r"\d+$", "", name)
    if name not in FLAGS and stem not in FLAGS:
        return False
    if (name if name in FLAGS else stem) in SHORT:
        return bool(match["glued"] or stem != name or _NUMBER.match(text, match.end()))
    return True


def _value(setting: str, match: re.Match[str], text: str, end: int) -> tuple[int, str]:
    """Where a flag's value ends, at ``end`` (where the next flag starts) at the latest, and the value."""
    digits = re.search(r"\d+$", match["name"])
    glued = (match["glued"] or "").lstrip(":=")
    if glued or digits:
        return match.end(), glued or (digits.group() if digits else "")
    start = match.end()
    if setting in LONE:
        return start, ""
    if setting in ("negative", "camera"):
        if setting == "camera" and (move := _CAMERA.match(text, start, end)):
            end = move.end()
        return end, text[start:end].strip(" ,;:=")
    pattern = {"aspect": _ASPECT, "style": _WORD}.get(setting, _NUMBER)
    if value := pattern.match(text, start, end):
        return value.end(), ":".join(value.groups())
    return start, ""


def read(
    source: str,
    skip: int = 0,
    take: int | None = None,
    named: Mapping[str, Callable[[], Iterable[Query]]] | None = None,
) -> list[Query]:
    """A slice of a source, without exact duplicates: of a file, or of a data set in ``named``.

    Raises ``QueryError`` when the source has fewer than asked for, or nothing.
    """
    stop = None if take is None else skip + take
    found = list(islice(_distinct(_source(source, named or {}, endless=stop is None)), skip, stop))
    if not found or (take is not None and len(found) < take):
        wanted = f"{take} after the first {skip}" if take else "any"
        raise QueryError(f"{source} has only {len(found)} of the queries asked for ({wanted})")
    return found


def _distinct(queries: Iterable[Query]) -> Iterator[Query]:
    seen: set[str] = set()
    for query in queries:
        if query.id not in seen:
            seen.add(query.id)
            yield query


def _source(source: str, named: Mapping[str, Callable[[], Iterable[Query]]], endless: bool) -> Iterable[Query]:
    if source in named:
        if endless:
            raise QueryError(f"{source} has no end; say how many queries to take")
        return named[source]()
    path = Path(source)
    if not path.exists():
        if path.suffix:
            raise QueryError(f"no file of queries at {source}")
        raise UnknownName("data set", source, named)
    return read_file(path)


def read_file(path: Path) -> Iterator[Query]:
    """Queries of a file: one a line (``.txt``), a ``query`` or ``prompt`` field (``.jsonl``, ``.csv``).

    Blank lines are skipped. Raises ``QueryError`` that names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"cannot read {path}: {error}") from error
    for number, value in _values(path, text):
        try:
            yield ask_for(value)
        except QueryError as error:
            raise QueryError(f"{path}, line {number}: {error}") from error


def _values(path: Path, text: str) -> Iterator[tuple[int, str]]:
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise QueryError(f"{path}, line {number}: not JSON ({error})") from error
                yield number, row if isinstance(row, str) else _field(row, path, number)
    elif path.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
            yield number, _field(row, path, number)
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, line


def _field(row: object, path: Path, number: int) -> str:
    if isinstance(row, dict):
        for name in ("query", "prompt", "text"):
            if isinstance(row.get(name), str):
                return str(row[name])
    raise QueryError(f"{path}, line {number}: no text under 'query', 'prompt' or 'text'")
