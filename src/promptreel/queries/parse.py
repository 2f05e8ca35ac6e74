"""Taking apart what a person typed.

People of text-to-video services type flags into their prompts (``--ar 16:9``, ``-neg blurry, extra limbs``,
``-camera zoom in``, ``seed123``) and paste HTML and chat debris. ``parse_query`` takes it apart and loses
nothing: what does not belong into the prompt is on the query, where it can be seen.
"""

from __future__ import annotations

import html
import re

from promptreel.errors import QueryError
from promptreel.types import Query

LONGEST = 2000
"""Words of a query; what is longer is a document, and no prompt could keep what it says."""

FLAGS = {
    "ar": "aspect", "aspect": "aspect", "aspect_ratio": "aspect", "aspect-ratio": "aspect", "ratio": "aspect",
    "neg": "negative", "negative": "negative", "no": "negative", "negative_prompt": "negative",
    "negative-prompt": "negative", "camera": "camera", "cam": "camera", "motion": "motion", "mo": "motion",
    "m": "motion", "speed": "speed", "size": "size",
    "gs": "guidance", "guidance": "guidance", "cfg": "guidance", "cfg_scale": "guidance", "cfg-scale": "guidance",
    "fps": "fps", "seed": "seed", "w": "width", "width": "width", "h": "height", "height": "height",
    "style": "style", "v": "version", "version": "version", "q": "quality", "quality": "quality",
    "s": "stylize", "stylize": "stylize", "c": "chaos", "chaos": "chaos", "iw": "iw", "niji": "niji", "hd": "hd",
    "tile": "tile", "video": "video", "weird": "weird", "stop": "stop", "repeat": "repeat", "upbeta": "upbeta",
    "uplight": "uplight", "test": "test", "testp": "testp", "fast": "fast", "relax": "relax", "turbo": "turbo",
    "duration": "duration", "t": "duration", "loop": "loop", "cref": "cref", "sref": "sref", "oref": "oref",
    "cw": "cw", "sw": "sw", "ow": "ow", "sv": "sv", "p": "profile", "profile": "profile", "raw": "raw",
    "exp": "exp", "draft": "draft", "stealth": "stealth", "public": "public", "bs": "bs", "end": "end",
    "steps": "steps", "sampler": "sampler", "strength": "strength", "hide": "hide", "image": "image",
    "consistency": "consistency", "ct": "consistency",
}  # fmt: skip
"""Flags of Pika, Midjourney and their kin, by every spelling, and what they set."""
LONE = {
    "hd", "tile", "video", "upbeta", "uplight", "test", "testp", "fast", "relax", "turbo", "loop", "raw", "draft",
    "stealth", "public", "hide",
}  # fmt: skip
"""Flags without a value."""
SHORT = {
    "m",
    "speed",
    "size",
    "image",
    "w",
    "h",
    "v",
    "q",
    "s",
    "c",
    "t",
    "p",
    "exp",
    "end",
    "bs",
    "sv",
    "raw",
    "draft",
    "public",
    "ratio",
}
"""Spellings that are flags only before a number, or after two dashes: a dash and a word can be many things."""
PRESETS = {"raw", "expressive", "cute", "scenic", "original", "4a", "4b", "4c"}
"""Styles that are settings of a service (Midjourney's); any other is what the person wants to see."""

_DASH = "[-\u2010-\u2015\u2212\ufe58\ufe63\uff0d]"
_END = rf"(?=[\s,;.)\]]|$|(?<=\d){_DASH}{{1,2}}[A-Za-z])"
_FLAG = re.compile(
    rf"(?:(?<=[\s,;.)\]])|^)(?P<dash>{_DASH}{{1,2}})(?P<name>[A-Za-z]+(?:[_-][A-Za-z]+)*)"
    rf"(?P<glued>(?:[:=]|(?<=ar)-|(?<=fps)-|(?<=gs)-)?\d[\d.:x/]*)?(?:(?=[:=\uff1a])|{_END})"
)
_NUMBER = re.compile(rf"\s*[:=]?\s*(-?\d+(?:\.\d+)?){_END}")
_ASPECT = re.compile(rf"\s*[:=\uff1a]?\s*(\d+(?:\.\d+)?)\s*[:x/\u00d7\uff1a]\s*(\d+(?:\.\d+)?){_END}")
_DOTTED = re.compile(rf"\s*[:=]?\s*(\d{{1,2}})[.,-](\d{{1,2}}){_END}")
_WORD = re.compile(r"\s*[:=]?\s*([^\s,;]+)")
_LEVEL = re.compile(rf"{_NUMBER.pattern}|\s+(low|high)\b")
_SPACED = re.compile(
    rf"(?:(?<=\s)|^)({_DASH}{{1,2}})\s(?=(?:ar\s*[:=]?\s*\d+\s*[:x/]\s*\d|neg\b|(?:gs|fps|motion|seed)\s*[:=]?\s*\d|"
    r"camera\s+(?:zoom|pan|tilt|rotate|roll|orbit)\b))",
    re.IGNORECASE,
)
_BARE = re.compile(rf"(?:(?<=[\s,;.])|^)(?=(?:ar|gs|fps)(?:{_DASH}|[:=]|\s)?\d)", re.IGNORECASE)
_MOVE = re.compile(rf"(?:(?<=[\s,;.])|^){_DASH}(?=(?:zoom|pan|tilt|rotate|orbit|dolly)\b(?!{_DASH}))", re.IGNORECASE)
_LABELLED = re.compile(rf"(?:(?<=[\s,.;])|^){_DASH}{{0,2}}\s?negative[ _-]?prompts?\s*[:=]\s*", re.IGNORECASE)
_GLUED_SEED = re.compile(r"(?:(?<=\s)|^)seed(?:\s?[:=]\s?)?\d{1,12}(?=[\s,.]|$)", re.IGNORECASE)
_RATIO = re.compile(
    r"[,;]?\s*(?:\b(?:in|with|at)\s+(?:an?\s+)?)?(?:"
    r"\b(?:aspect[ -]?ratio|ratio|ar)\s*(?:of|is)?\s*[:=]?\s*(\d{1,2})\s?[:x/]\s?(\d{1,2})\b(?![:\d])|"
    r"(?<![\d:.])(\d{1,2})\s?[:x]\s?(\d{1,2})\s+(?:aspect[ -]?ratio|ratio|format)\b|"
    r"(?<![\w:.])(16|9):(9|16)\b(?!\s*(?:[ap]\.?m|o'?clock)|[:\d]))",
    re.IGNORECASE,
)
_CAMERA = re.compile(
    r"(?:\s*,?\s*\b(?:zoom(?:s|ing)?|pan(?:s|ning)?|tilt(?:s|ing)?|rotat(?:e|es|ing)|roll|truck|dolly|pedestal|"
    r"orbit|crane|track(?:ing)?|static|still|handheld|fixed|shot|in|out|up|down|left|right|clockwise|"
    r"counter-?clockwise|anti-?clockwise|cw|ccw|acw|slow(?:ly)?|fast|and|to|the|around|\d+)\b)+",
    re.IGNORECASE,
)
_TAGS = "a|abbr|article|body|button|center|code|del|font|footer|h[1-6]|head|header|hr|html|iframe|img|input|ins|label"
_DEBRIS = re.compile(
    r"<https?://[^\s>]*>|https?://[^\s<>]+|\bwww\.[^\s<>]+"
    r"|<@[!&]?\d+>|<#\d+>|<t:\d+(?::\w)?>|<a?:\w+:\d+>|</\w[\w -]*:\d+>"
    r"|\(?\b(?:(?:Message|Image|Video|File)s?:\s*)?\d+ Attachments?\b\)?"
    r"|\((?:fast|relaxed|turbo)(?:, stealth)?\)\s*\Z"
    r"|\A@\w[\w.]+(?:#\d{4})?(?=\s)|(?<=\s)@\w[\w.]+(?:#\d{4})?\s*\Z|(?<!\w)@\w[\w.]*#\d{4}\b"
    r"|\A/(?:imagine|create|animate|generate|video|prompt|describe|blend|pika)\b"
    r"|\A(?:(?:text|video|image|positive|main)\s)?prompts?\s*[:=]"
    rf"|<!--.*?-->|</?(?:{_TAGS}|li|link|main|mark|meta|nav|ol|pre|script|section|small|source|strike|style|sub|sup"
    r"|table|tbody|td|th|thead|title|tr|ul|video)(?:\s[^<>]*)?/?>|</?(?:br|p|div|span|b|i|em|strong|u)\s[^<>]*>",
    re.IGNORECASE,
)
_ASIDES = re.compile(
    r"[,;.]?\s*\b(?:and\s+)?(?:(?:with|without|no|add|adding|include|including|plus|make)\s+(?:[\w'-]+\s+){0,3}?"
    r"(?:background music|music in the background|soundtracks?|sound effects?|sound fx|sfx|bgm|audio|voice-?\s?overs?|"
    r"narration)(?:\s+of\s+[\w' -]{1,40}?)?"
    r"|(?:in|as|to|output|export(?:ed)?(?:\s+as)?|format:?|resolution:?|render(?:ed)?\s+(?:in|at))\s+(?:an?\s+)?"
    r"(?:mp4|mov|gif|avi|webm|\d{3,4}p)(?:\s+(?:format|video|file|resolution))?"
    r"|(?:at\s+)?\d{1,3}\s?fps|(?:at\s+)?\d{1,3}\s+frames\s+per\s+second"
    r"|(?:duration:?|length:?|lasting|for|make it|of)\s+\d+(?:\.\d+)?\s*(?:seconds?|secs?|minutes?)"
    r"(?:\s+(?:long|duration))?)"
    r"\s*(?=[,;.!?]|$)",
    re.IGNORECASE,
)
_INVISIBLE = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffd"
    "\ud800-\udfff]"
    "|(?<![^\u0000-\u007f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\u0000-\u007f\u200c\u200d])"
)
"""Control and direction characters, halves of characters, and joiners where they join nothing: they shape Persian,
Indic scripts and emoji.
"""
_ENTITY = re.compile(
    r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});|&(?:#\d{2,5}|(?:amp|lt|gt|quot|nbsp)\b)"
)
_QUOTES = "\"'`\u201c\u201d\u2018\u2019\u00ab\u00bb"
_PAIRS = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb"}


def parse_query(typed: str) -> Query:
    """Take apart what a person typed. Never raises; the text can come out empty (see ``ask_for``).

    Parsing the text of a parsed query gives that text again. A camera move or a style that was set by a flag is
    part of what is asked for, and so of the text.
    """
    found: dict[str, list[str]] = {}
    text = _take_apart(typed, found)
    wishes = [("camera", f"camera {move}") for move in found.get("camera", []) if move]
    wishes += [("style", f"{style} style") for style in found.get("style", []) if style.lower() not in PRESETS | {""}]
    for _, wish in wishes:
        if wish.removeprefix("camera ").removesuffix(" style").lower() not in text.lower():
            text = f"{text.rstrip(' .')}, {wish}" if text else wish
    if wishes:
        text = _take_apart(text, found)
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


def _take_apart(text: str, found: dict[str, list[str]]) -> str:
    """Move everything that is not asked for from a text to ``found``, until nothing more is found: what a removal
    uncovers is looked at again, and every round but the last shortens the text.
    """
    before = None
    while text != before:
        before = text
        text = _clean(text)
        text = _take(text, _DEBRIS, found, "debris")
        text = _LABELLED.sub(" -neg ", _MOVE.sub("-camera ", _BARE.sub("-", _SPACED.sub(r"\1", text))))
        text = _take_flags(text, found)
        text = _take(text, _GLUED_SEED, found, "seed")
        text = _take_ratio(text, found)
        text = _take(text, _ASIDES, found, "aside")
        text = _tidy(text)
    return text


def _clean(text: str) -> str:
    """Entities, plain tags, invisible characters, chat emphasis and white space."""
    text = re.sub(r"&(?:(?:amp|#38|#x26);)+", "&", text)  # one that was escaped many times
    text = _ENTITY.sub(lambda entity: html.unescape(entity.group()), text)
    text = re.sub(r"</?(?:br|p|div|span|b|i|em|strong|u)\s*/?>", " ", text, flags=re.IGNORECASE)
    text = _INVISIBLE.sub(" ", text)
    text = re.sub(r"\*{2,}|(?<!\w)__+(?!\w)|~~|\|\|", " ", text)
    return " ".join(text.split())


def _tidy(text: str) -> str:
    """Stray quotes and punctuation at the ends, doubled separators, brackets that hold nothing."""
    text = re.sub(r"\s+([,;.!?])", r"\1", " ".join(text.split()))
    while (emptied := re.sub(r"\( ?\)|\[ ?\]|\{ ?\}", "", text)) != text:
        text = " ".join(emptied.split())
    text = re.sub(r"([,;])(?:\s*[,;])+", r"\1", text)
    text = re.sub(rf"^(?:(?:{_DASH}|[*\u2022\u00b7|>#])+\s)+|(?:\s(?:{_DASH}|[*\u2022\u00b7|])+)+$", "", text)
    text = text.strip(" ,;")
    if len(text) > 1 and _PAIRS.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip(" ,;")
    for quote in _QUOTES:  # one that opens or closes nothing, and is no apostrophe
        if text.count(quote) == 1 and quote not in "'\u2019":
            text = re.sub(rf"(?<!\w){quote}|{quote}(?!\w)", "", text)
    return " ".join(text.split()).strip(" ,;")


def _take(text: str, pattern: re.Pattern[str], found: dict[str, list[str]], name: str) -> str:
    """Move every match of a pattern from the text to ``found``."""

    def keep(match: re.Match[str]) -> str:
        value = match.group().strip(" ,;.")
        value = re.sub(r"^seed\s?[:=]?\s?", "", value, flags=re.IGNORECASE) if name == "seed" else value
        found.setdefault(name, []).append(value)
        return " "

    return pattern.sub(keep, text)


def _take_ratio(text: str, found: dict[str, list[str]]) -> str:
    """Move aspect ratios that are asked for in words from the text to ``found``, with the words."""

    def keep(match: re.Match[str]) -> str:
        if re.search("[A-Za-z]", match.group()):
            found.setdefault("aside", []).append(match.group().strip(" ,;."))
        width, height = (value for value in match.groups() if value)
        found.setdefault("aspect", []).append(f"{width}:{height}")
        return " "

    return _RATIO.sub(keep, text)


def _take_flags(text: str, found: dict[str, list[str]]) -> str:
    """Move every flag with its value from the text to ``found``."""
    flags = [match for match in _FLAG.finditer(text) if _is_flag(match, text)]
    if not flags:
        return text
    ends = [*(match.start() for match in flags[1:]), len(text)]
    kept, at = [], 0
    for match, end in zip(flags, ends, strict=True):
        name = match["name"].lower()
        setting = FLAGS.get(name, name)
        kept.append(text[at : match.start()])
        at, value = _value(setting, match, text, end)
        found.setdefault(setting, []).append(value)
    return " ".join(" ".join([*kept, text[at:]]).split())


def _is_flag(match: re.Match[str], text: str) -> bool:
    """Whether a dash and a word are a flag: a known one, or any that has two dashes and a number."""
    name = match["name"].lower()
    numbered = bool(match["glued"] or _NUMBER.match(text, match.end()))
    doubled = match["dash"] == "--"
    if name not in FLAGS:
        return doubled and numbered
    return (
        numbered
        or (name == "ratio" and bool(_ASPECT.match(text, match.end())))
        or name not in SHORT
        or (doubled and len(name) > 1)
    )


def _value(setting: str, match: re.Match[str], text: str, end: int) -> tuple[int, str]:
    """Where a flag's value ends, at ``end`` (where the next flag starts) at the latest, and the value."""
    if match["glued"]:
        value = match["glued"].lstrip(":=-").rstrip(".")
        return match.end(), re.sub("[x/.]", ":", value) if setting == "aspect" else value
    start = match.end()
    if setting in LONE:
        return start, ""
    if setting in ("negative", "camera"):
        if setting == "camera" and (move := _CAMERA.match(text, start, end)):
            end = move.end()
        return end, text[start:end].strip(" ,;:=\uff1a")
    pattern = {"aspect": _ASPECT, "style": _WORD, "sampler": _WORD, "motion": _LEVEL}.get(setting, _NUMBER)
    value = pattern.match(text, start, end) or (setting == "aspect" and _DOTTED.match(text, start, end))
    if value:
        return value.end(), ":".join(part for part in value.groups() if part)
    return start, ""
