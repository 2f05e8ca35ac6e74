"""Removal of the markup and debris that text boxes, web pages and chats leave around a query.

Wishes that no prompt can grant (sound, file formats, lengths) are removed too.
"""

from __future__ import annotations

import html
import re

from promptreel.queries.parser.patterns import DASH, QUOTES, URL

ELEMENTS = set(
    "a abbr article b body br button center code del div em font footer h1 h2 h3 h4 h5 h6 head header hr html i iframe "
    "img input ins label li link main mark meta nav ol p pre script section small source span strike strong style sub "
    "sup table tbody td th thead title tr u ul video".split()
)
"""Names that make HTML of angle brackets, if they are closed or have attributes: ``<small dog>`` is a dog."""
FORMATTING = set("br p div span b i em strong u".split())
"""Elements that are HTML even without a closing tag or attributes."""

_INVISIBLE = re.compile(
    "(?P<flag>\U0001f3f4[\U000e0020-\U000e007e]{1,6}\U000e007f)"  # England, Scotland, Wales
    "|[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffd\ud800-\udfff\U000e0000-\U000e007f]"
    "|(?<![^\u0000-\u007f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\u0000-\u007f\u200c\u200d])"
)
"""Soft hyphens, direction marks, hidden tags, halves of surrogate pairs, and joiners that join nothing.

Other joiners stay: they shape Persian, Indic scripts and emoji. The group ``flag`` is an emoji, which stays too.
"""
_CONTROL = re.compile("[\u0000-\u0009\u000e-\u001b\u007f-\u0084\u0086-\u009f]")
_AMPERSANDS = re.compile("&(?:(?:amp|#0*38|#[xX]0*26);)+")
_ENTITY = re.compile(
    r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});|&(?:#\d{2,5}|(?:amp|lt|gt|quot|nbsp)\b)"
)
_EMPHASIS = re.compile(r"\*{2,}|(?<!\w)__+(?!\w)|~~|\|\|")
_TAG = re.compile(
    r"<!--(?:(?!-->)[^<])*-->|<(?P<close>/?)(?P<name>[a-z][a-z0-9]*)(?P<rest>\s[^<>]*)?/?>", re.IGNORECASE
)
_DEBRIS = re.compile(
    rf"<{URL}>|<@[!&]?\d+>|<#\d+>|<t:\d+(?::\w)?>|<a?:\w+:\d+>|</\w[\w -]*:\d+>|<(?:lora|lyco|hypernet):[^<>]*>"
    r"|\(?\b(?:(?:Message|Image|Video|File)s?:\s*)?\d+ Attachments?\b\)?"
    r"|\((?:fast|relaxed|turbo)(?:, stealth)?\)\s*\Z"
    r"|\A@\w[\w.]+(?:#\d{4})?(?=\s)|(?<=\s)@\w[\w.]+(?:#\d{4})?\s*\Z|(?<!\w)@\w[\w.]*#\d{4}\b"
    r"|(?<![^\n])Steps: \d+, [^\n]*Seed: [^\n]*"
    r"|\A/(?:imagine|create|animate|generate|video|prompt|describe|blend|pika)\b"
    r"|\A(?:(?:text|video|image|positive|main)\s)?prompts?\s*[:=\uff1a]",
    re.IGNORECASE,
)
"""Debris of chats and tools: mentions, attachments, commands, generation parameters, labels such as ``prompt:``."""
_ADDRESS = re.compile(URL, re.IGNORECASE)
_SOUND = (
    r"(?:with|without|no|add|adding|include|including|plus|make)\s+"
    r"(?:(?!(?:play|mak|do|record|listen|hear|produc|read|edit)ing\b)[\w'-]+\s+){0,3}?"
    r"(?:background music|music in the background|soundtracks?|sound effects?|sound fx|sfx|bgm|audio|voice-?\s?overs?|"
    r"narration)(?:\s+of\s+[\w' -]{1,40}?)?\s*(?=[,;.!?\n]|$)"
)
_FILE_FORMAT = (
    r"(?:in|as|to|output|export(?:ed)?(?:\s+as)?|format:?|resolution:?|render(?:ed)?\s+(?:in|at))\s+(?:an?\s+)?"
    r"(?:mp4|mov|gif|avi|webm|\d{3,4}p)(?:\s+(?:format|video|file|resolution))?\s*(?=[,;.!?\n]|$)"
)
_FRAME_RATE = r"(?:(?:at|in|with)\s+)?\d{1,3}\s?(?:fps|frames\s+per\s+second)\s*(?=[,;.!?\n]|$)"
_LENGTH = (
    r"(?:(?:duration|length)\s?[:=]?|lasting|make\s+it)\s+\d+(?:\.\d+)?[\s-]?(?:s|sec(?:ond)?s?|min(?:ute)?s?)"
    r"(?:\s+(?:long|duration))?\s*(?=[,;.!?\n]|$)"
    r"|(?:for|of)\s+\d+(?:\.\d+)?\s*(?:seconds?|secs?|minutes?)(?:\s+(?:long|duration))?\s*(?=[.!?]*\s*(?:\n|$))"
)
_ASIDES = re.compile(rf"\b(?:and\s+)?(?:{_SOUND}|{_FILE_FORMAT}|{_FRAME_RATE}|{_LENGTH})", re.IGNORECASE)
"""Requests for sound, file formats, frame rates and lengths, up to the end of their clause."""
_SHAPE = r"(\d{1,2}(?:\.\d+)?)\s?[:x/\uff1a]\s?(\d{1,2})\b(?![:\d])"
_SCREEN = r"(16|9|4|3|21|5)\s?[:x/]\s?(9|16|3|4|5)\b(?![:\d])"
_RATIO = re.compile(
    r"(?:\b(?:in|with|at) (?:an? )?)?(?:"
    rf"{DASH}{{0,2}}\baspect(?:[ -]?ratio\s*(?:of|is)?\s*[:=]?|\s?[:=])\s*{_SHAPE}|"
    rf"(?<!-)\bratio\s*(?:of|is)?\s*[:=]?\s*{_SCREEN}|"
    rf"(?<![\d:.])(?<!ar[ :=]){_SHAPE}\s+aspect(?:[ -]?ratio)?\b|"
    rf"(?<![\d:.])(?<!ar[ :=]){_SCREEN}\s+(?:ratio|format)\b)",
    re.IGNORECASE,
)
"""An aspect ratio that is asked for in words, as ``in 9:16 format``; two of its groups are width and height."""
_QUOTE_FAMILIES = ('"', "`", "\u201c\u201d\u201e", "\u00ab\u00bb", "\u300c\u300d", "\u300e\u300f")
"""Quotation marks that open or close each other. Single quotes are left out: they may be apostrophes."""
_BULLETS = re.compile(rf"^(?:(?:{DASH}|[*\u2022\u00b7|>#])+\s)+|(?:\s(?:{DASH}|[*\u2022\u00b7|])+)+$")


def squeeze(text: str) -> str:
    """Return a text with single spaces, single line ends and no empty lines."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def visible(text: str) -> str:
    """Return a text without invisible and control characters, and with plain white space."""
    return squeeze(_CONTROL.sub(" ", _INVISIBLE.sub(lambda match: match["flag"] or "", text)))


def clean(text: str, found: dict[str, list[str]]) -> str:
    """Return a text without HTML entities, Markdown emphasis and plain tags.

    Other tags and the debris of chats are moved to ``found`` under ``debris``.
    """
    text = _ENTITY.sub(lambda entity: html.unescape(entity.group()), _AMPERSANDS.sub("&", text))
    closed = {name.lower() for name in re.findall(r"</([A-Za-z][A-Za-z0-9]*)\s*>", text)}

    def untag(tag: re.Match[str]) -> str:
        name, rest = (tag["name"] or "").lower(), (tag["rest"] or "").strip(" /\n")
        bare = name in FORMATTING and not rest
        known = name in ELEMENTS and (tag["close"] or name in closed or "=" in rest or bare)
        if name and not known:
            return tag.group()
        if rest or name not in FORMATTING:
            found.setdefault("debris", []).append(tag.group())
        return " "

    text = _EMPHASIS.sub(" ", _TAG.sub(untag, text))
    return _take(visible(text), _DEBRIS, found, "debris")


def take_wishes(text: str, found: dict[str, list[str]]) -> str:
    """Move addresses (``debris``) and requests for sound, formats and lengths (``aside``) to ``found``."""
    return _take(_take(text, _ADDRESS, found, "debris"), _ASIDES, found, "aside")


def take_shapes(text: str, found: dict[str, list[str]]) -> str:
    """Move aspect ratios asked for in words to ``found``: ratios under ``aspect``, the words under ``aside``."""
    for ratio in _RATIO.finditer(text):
        width, height = (value for value in ratio.groups() if value)
        found.setdefault("aspect", []).append(f"{width}:{height}")
    return _take(text, _RATIO, found, "aside")


def tidy(text: str) -> str:
    """Return a text without stray quotes and punctuation at its ends, doubled separators and empty brackets."""
    # The words between two ends of sentences were taken out: one end stays.
    text = re.sub(r"(?<=\S[,;.!?]) \.(?=\s|$)(?! \.)", "", squeeze(text))
    text = re.sub(r" (?:([,;.!?]+)(?=\s|$)|([\u0964\u3001\u3002\uff0c\uff1b\uff01\uff1f]))", r"\1\2", text)
    text = _without_empty_brackets(text)
    text = re.sub(r"([,;])(?:\s*[,;])+", r"\1", text)
    text = re.sub(r"[,;]([.!?])(?=\s|$)", r"\1", text)
    text = re.sub(r"^(?:[,;.!?] )+", "", text)
    text = _BULLETS.sub("", text).strip(" \n,;\uff0c\u3001\uff1b")
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1]
    for marks in _QUOTE_FAMILIES:
        if sum(map(text.count, marks)) == 1:  # it opens or closes nothing; after a digit it means inches
            text = re.sub(rf"(?<!\w)[{marks}]|(?<!\d)[{marks}](?!\w)", "", text)
    return squeeze(text).strip(" \n,;\uff0c\u3001\uff1b")


def _without_empty_brackets(text: str) -> str:
    """Return a text without brackets that hold nothing, also nested ones."""
    kept: list[str] = []
    opened: list[int] = []  # places in kept of opening brackets with nothing after them yet
    for part in re.split(r"([()\[\]{}])", text):
        if part and part in ")]}" and opened and kept[opened[-1]] + part in ("()", "[]", "{}"):
            kept[opened.pop() :] = [" "]
            continue
        if part and part in "([{":
            opened.append(len(kept))
        elif part.strip():
            opened.clear()
        kept.append(part)
    return "".join(kept)


def _take(text: str, pattern: re.Pattern[str], found: dict[str, list[str]], name: str) -> str:
    """Move every match of a pattern from a text to ``found`` under a name, and return the rest."""

    def keep(match: re.Match[str]) -> str:
        found.setdefault(name, []).append(match.group().strip(" \n,;."))
        return " "

    return squeeze(pattern.sub(keep, text))
