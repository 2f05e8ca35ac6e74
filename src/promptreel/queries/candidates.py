"""What may be a flag in what people type, how far that can be trusted, and what it sets.

A dash and a word can be many things (``a bus -stop``, ``AR-15``, ``John 16:9``), and people also leave the dash away.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from promptreel.queries.signs import CITED, COLONS, DASH, LINK, QUOTATION, QUOTED, SEPARATORS, URL, WIDE, past

FLAGS = {
    "ar": "aspect", "aspect": "aspect", "aspect_ratio": "aspect", "aspect-ratio": "aspect", "ratio": "aspect",
    "neg": "negative", "negative": "negative", "no": "negative", "negative_prompt": "negative",
    "negative-prompt": "negative", "camera": "camera", "cam": "camera", "motion": "motion", "mo": "motion",
    "m": "motion", "speed": "speed", "size": "size", "resolution": "resolution", "res": "resolution",
    "gs": "guidance", "guidance": "guidance", "cfg": "guidance", "cfg_scale": "guidance", "cfg-scale": "guidance",
    "fps": "fps", "seed": "seed", "w": "width", "width": "width", "h": "height", "height": "height",
    "style": "style", "v": "version", "version": "version", "q": "quality", "quality": "quality",
    "s": "stylize", "stylize": "stylize", "c": "chaos", "chaos": "chaos", "iw": "iw", "niji": "niji", "hd": "hd",
    "tile": "tile", "video": "video", "weird": "weird", "stop": "stop", "repeat": "repeat", "upbeta": "upbeta",
    "uplight": "uplight", "test": "test", "testp": "testp", "fast": "fast", "relax": "relax", "turbo": "turbo",
    "duration": "duration", "dur": "duration", "t": "duration", "loop": "loop", "cref": "cref", "sref": "sref",
    "oref": "oref", "cw": "cw", "sw": "sw", "ow": "ow", "sv": "sv", "p": "profile", "profile": "profile", "raw": "raw",
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
PLAIN = {"aspect", "guidance", "fps", "motion", "seed", "steps", "consistency"}
"""Settings that one dash and a number are enough for, anywhere (Pika's own spelling)."""
SPACED = {"aspect", "guidance", "fps", "motion", "seed", "camera", "negative"}
"""Settings that may have a space behind the dash."""
WORDED = {"negative", "camera", "style", "sref", "cref", "oref", "image", "profile"}
"""Settings whose values are no numbers."""
REFERENCES = {"sref", "cref", "oref", "image", "profile"}
"""Settings whose values are addresses or codes."""
PRESETS = {"raw", "expressive", "cute", "scenic", "original", "4a", "4b", "4c"}
"""Styles that are settings of a service (Midjourney's); any other is what the person wants to see."""
BARE = {"gs": (1, 50), "fps": (5, 240)}
"""Names that people type without a dash, with the range of their values: a ``GS 1250`` is a motorcycle."""
STYLE_WORDS = 4
"""The longest style, in words, that ends without a comma or a quote; a longer one is the rest of a sentence."""

_BREAK = r"\s,;.:!?|()\[\]\"'\u201c\u201d\u2019\u00ab\u00bb0-9" + WIDE
_END = rf"(?=[\s,;)\]}}|\"'\u201d{WIDE}]|[.:\uff1a](?!\d)|$|(?<=\d){DASH}{{1,2}}[A-Za-z])"
_FIGURE = r"(?:\d+(?:\.\d+)?|\.\d+)"
_SCREEN = r"(?:16|21)[:\uff1a]9|9[:\uff1a]16"
_HEAD = re.compile(
    rf"(?P<skip>{URL}|{CITED})"
    rf"|(?P<label>(?:(?<![^\s,.;]){DASH}{{0,2}} ?negative[ _-]?prompts?|(?<![^\n])negatives?) ?[:=\uff1a]"
    r"|(?<![^\n])#{0,6} ?negative prompts?(?=\n))"
    rf"|(?:(?<!{DASH})(?P<double>{DASH}{{2}}|\u2014)|(?<![^{_BREAK}])(?P<single>{DASH}))(?P<gap> ?)"
    r"(?P<name>[A-Za-z]+(?:[_-][A-Za-z]+)?)(?![^\W\d])"
    r"|(?<![\w-])(?<!\ba )(?<!\ban )(?<!\bthe )(?<!\bof )(?<!\bat )(?<!\bwith )/?"
    rf"(?P<bare>ar|gs|fps)(?={DASH}?[ :=]{{0,2}}\d)"
    rf"|(?<![\w-])seed(?:(?P<glued>\d{{2,12}})| ?[:=\uff1a] ?(?P<seed>\d{{1,12}})){_END}"
    rf"|(?<![A-Za-z0-9_:.,/-])(?P<screen>{_SCREEN})(?![:\w]| ?(?:[ap]\.?m\b|o'?clock))",
    re.IGNORECASE,
)
_NUMBER = re.compile(
    rf"[ ]?[:=\uff1a]?[ ]?(-?{_FIGURE}(?:[x\u00d7*/:]{_FIGURE})?(?:px|fps|secs?|seconds?|[%skp])?){_END}", re.IGNORECASE
)
_RATIO = re.compile(rf"{DASH}?[ ]?[:=\uff1a]?[ ]?({_FIGURE}) ?[:x/\u00d7\uff1a] ?({_FIGURE}){_END}", re.IGNORECASE)
_DOTTED = re.compile(rf"[ ]?[:=\uff1a]?[ ]?(\d{{1,2}})[.,-](\d{{1,2}}){_END}")
_LEVEL = re.compile(r"[ ]?[:=]?[ ]?(low|medium|high)\b", re.IGNORECASE)
_CODES = re.compile(rf"[ ]?[:=]?(?: ?(?:{URL}|random\b|\d[\d:.]*{_END}))+", re.IGNORECASE)
_BARE_NUMBER = re.compile(rf"{DASH}?[ :=]{{0,2}}(\d{{1,4}}){_END}")
_CLAUSE_END = re.compile(r"[,;.\n|\uff0c\u3002\uff1b]")
_PACE = r"(?:(?:very|slow(?:ly)?(?: motion)?|fast|quick(?:ly)?|smooth(?:ly)?|gentl[ey]) )*"
_MOVES = "zoom|pan|tilt|rotate|roll|truck|dolly|pedestal|orbit|crane|track|static|still|handheld|fixed|push|pull|arc"
_WAY = r"up|down|left|right|forwards?|backwards?|(?:counter-?|anti-?)?clockwise|a?c?cw"
_MOVE = (
    rf"{_PACE}(?:(?:zoom|dolly|push|pull|truck|crane)(?:e?s|ing)?[ _-](?:in|out|back)(?![A-Za-z])"
    rf"|(?:{_MOVES}|panning|rotating)(?:e?s|ing)?(?: shot)?)"
    rf"(?:[ _-](?:(?:to )?(?:the )?(?:{_WAY})|slowly|fast)(?![A-Za-z]))*(?![A-Za-z]|[_-][A-Za-z])"
)
_CAMERA = re.compile(
    rf"[ ]?[:=\uff1a]?[ ]?({_MOVE}(?:,? (?:and |then )*{_MOVE}| and (?:in|out|{_WAY})\b)*)", re.IGNORECASE
)
_GOES_ON = re.compile(
    r" (?:on|onto|at|to|into|in|from|towards?|through|over|across|along|behind|around|past|above|below|under|as|while|"
    r"until|with|of|by|between|and|then)\b",
    re.IGNORECASE,
)
_SHAPES = "vertical|horizontal|portrait|landscape|widescreen"
_SHAPE_BEFORE = re.compile(
    rf"(?<!\w)(?:{_SHAPES})[ :]*\Z|(?:\u6bd4\u4f8b?|[\u7ad6\u6a2a]\u5c4f|\u753b\u5e45)[:\uff1a\u4e3a]?\Z", re.IGNORECASE
)
_SHAPE_AFTER = re.compile(rf" ?(?:{_SHAPES})\b", re.IGNORECASE)
_WIDE_SIGN = re.compile(f"[{WIDE}]")


class Trust(IntEnum):
    """Where a candidate is a flag: beside another flag; also at the end of a query or alone on its line; anywhere."""

    BESIDE = 0
    LAST = 1
    SURE = 2


class Flag(NamedTuple):
    """A candidate: the text from ``start`` to ``end`` would be taken. The value of a negative is read later: it ends
    where the next flag begins, so the others must be known.
    """

    start: int
    end: int
    setting: str
    value: str
    trust: Trust


class Dashed(NamedTuple):
    """A dash and a name in a text, which may be the head of a flag."""

    text: str
    start: int
    end: int
    name: str
    setting: str | None
    """What the name sets; ``None`` for one that is not known."""
    two: bool
    """Whether there are two dashes."""
    doubled: bool
    """Whether there are two, or a long one, which is what editors make of two. It may also be a dash."""
    tight: bool
    """Whether a letter or a digit stands right before."""

    def flag(self, setting: str, value: str, end: int, trust: Trust) -> Flag:
        return Flag(self.start, end, setting, value, Trust.BESIDE if self.tight else trust)


def candidates(text: str) -> list[Flag]:
    """All candidates of a text, from left to right; none is within another."""
    flags, at = [], 0
    while head := _HEAD.search(text, at):
        flag = None if head["skip"] else _dashed(head) if head["name"] else _plain(head)
        if flag:
            flags.append(flag)
        at = flag.end if flag else head.end()
    return flags


def _plain(head: re.Match[str]) -> Flag | None:
    """A flag without dashes: ``ar 16:9``, ``gs 20``, ``seed123``, a lone ``16:9``, ``Negative prompt:``."""
    text, (start, end) = head.string, head.span()
    if head["label"]:
        return Flag(start, past(text, end, " \n"), "negative", "", Trust.SURE)
    if number := head["glued"] or head["seed"]:
        closed = head["glued"] or text[end : end + 1] in ("", *",;.)]\n")
        return Flag(start, end, "seed", number, Trust.SURE if closed else Trust.LAST)
    if ratio := head["screen"]:
        before = text[max(0, start - 20) : start].rstrip(" ")
        beside = _SHAPE_BEFORE.search(before) or _SHAPE_AFTER.match(text, end)
        listed = not before or before[-1] in SEPARATORS
        trust = Trust.SURE if beside else Trust.LAST if listed else Trust.BESIDE
        return Flag(start, end, "aspect", _narrow(ratio), trust)
    name = head["bare"].lower()
    if name == "ar":
        exact = _RATIO.match(text, end)
        pair = exact or _DOTTED.match(text, end)
        return Flag(start, pair.end(), "aspect", _ratio(pair), Trust.SURE if exact else Trust.BESIDE) if pair else None
    number, (low, high) = _BARE_NUMBER.match(text, end), BARE[name]
    if number and low <= int(number[1]) <= high:
        return Flag(start, number.end(), FLAGS[name], number[1], Trust.LAST)
    return None


def _dashed(head: re.Match[str]) -> Flag | None:
    text, (start, end), name = head.string, head.span(), head["name"].lower()
    before = text[max(0, start - 1) : start]
    tight = before.isalnum() and not _WIDE_SIGN.match(before)
    dashed = Dashed(
        text, start, end, name, FLAGS.get(name), len(head["double"] or "") == 2, bool(head["double"]), tight
    )
    readers: list[Callable[[Dashed], Flag | None]] = [_numbered, _camera, _negative_head, _lone, _style, _worded]
    if head["gap"]:  # a list has such dashes too
        if name in ("no", "negative") or dashed.setting not in SPACED:
            return None
        readers = readers[:3]
    return next((flag for reader in readers if (flag := reader(dashed))), None)


def _numbered(dashed: Dashed) -> Flag | None:
    text, end, setting = dashed.text, dashed.end, dashed.setting
    if setting in WORDED | LONE or not (setting or dashed.doubled):
        return None
    if setting == "aspect":
        number = _RATIO.match(text, end) or _DOTTED.match(text, end)
        value = _ratio(number) if number else ""
    else:
        number = _NUMBER.match(text, end)
        value = _narrow(number[1]) if number else ""
        value = value.removeprefix("-") if text[end : end + 1] == "-" else value  # -gs-12
    if not number:
        return None
    if setting and dashed.doubled:
        return Flag(dashed.start, number.end(), setting, value, Trust.SURE)
    return dashed.flag(setting or dashed.name, value, number.end(), Trust.SURE if setting in PLAIN else Trust.LAST)


def _camera(dashed: Dashed) -> Flag | None:
    """``-camera zoom in``, or ``-zoom in``. A move goes on where it says too little: ``zoom in on``."""
    text = dashed.text
    direct = re.split("[_-]", dashed.name)[0] in _MOVES.split("|")
    if not (direct or dashed.setting == "camera"):
        return None
    at = dashed.end - len(dashed.name) if direct else dashed.end
    if move := _CAMERA.match(text, at):
        end = _clause(text, move.end()) if _GOES_ON.match(text, move.end()) else move.end()
        trust = Trust.SURE if dashed.two or not direct else Trust.LAST if re.search("[ _-]", move[1]) else Trust.BESIDE
        return dashed.flag("camera", text[move.start(1) : end].strip(), end, trust)
    if not direct and (quoted := QUOTED.match(text, past(text, at, LINK))):
        return dashed.flag("camera", quoted.group().strip(QUOTATION), quoted.end(), Trust.SURE)
    end = _clause(text, at)
    value = text[at:end].strip(LINK)
    return dashed.flag("camera", value, end, Trust.SURE) if value and dashed.two and not direct else None


def _negative_head(dashed: Dashed) -> Flag | None:
    """How far a head is trusted does not depend on line ends: they are gone when a text is parsed again."""
    if dashed.setting != "negative":
        return None
    text, end = dashed.text, dashed.end
    following = text[end : end + 200].replace("\n", " ").lstrip(" :=\uff1a")
    valued = following[:1] not in ("", *SEPARATORS)
    if dashed.name in ("no", "negative") and not dashed.two:  # words like any other
        listed = re.search("[,\uff0c\u3001\u060c]", following) and text[max(0, dashed.start - 2) : dashed.start].rstrip(
            " "
        )[-1:] in (
            "",
            *SEPARATORS,
        )
        trust = Trust.SURE if valued and (listed or text[end : end + 1] in COLONS) else Trust.BESIDE
    else:
        spaced = dashed.name != "no" or text[end : end + 1].isspace() or text[end : end + 1] in COLONS
        trust = Trust.SURE if valued and spaced else Trust.LAST if dashed.name != "no" else Trust.BESIDE
    return dashed.flag("negative", "", end, trust)


def _lone(dashed: Dashed) -> Flag | None:
    if dashed.setting not in LONE:
        return None
    trust = Trust.SURE if dashed.two and not dashed.start else Trust(dashed.two)
    return dashed.flag(dashed.setting, "", dashed.end, trust)


def _style(dashed: Dashed) -> Flag | None:
    """A style ends with its quotation, or with its clause if it has few words: no word of a sentence changes place."""
    if dashed.setting != "style":
        return None
    text = dashed.text
    at = past(text, dashed.end, LINK)
    if quoted := QUOTED.match(text, at):
        return dashed.flag("style", quoted.group().strip(QUOTATION), quoted.end(), Trust.SURE)
    end = _clause(text, at)
    words = text[at:end].split()
    if words and words[0].lower() in PRESETS:
        return dashed.flag("style", words[0], at + len(words[0]), Trust.SURE if dashed.two else Trust.LAST)
    if 0 < len(words) <= (STYLE_WORDS if dashed.two else 1):
        return dashed.flag("style", " ".join(words), end, Trust.SURE if dashed.two else Trust.LAST)
    return None


def _worded(dashed: Dashed) -> Flag | None:
    """A known flag whose value is no number: a code, a level, one word; one without a value is debris."""
    text, setting = dashed.text, dashed.setting
    if setting is None:
        return None
    if setting in REFERENCES and (codes := _CODES.match(text, dashed.end)):
        return dashed.flag(setting, codes.group().strip(" :="), codes.end(), Trust.SURE if dashed.two else Trust.LAST)
    if setting == "motion" and (level := _LEVEL.match(text, dashed.end)):
        return dashed.flag(setting, level[1], level.end(), Trust.SURE if dashed.two else Trust.LAST)
    at = past(text, dashed.end, LINK)
    if dashed.two and (quoted := QUOTED.match(text, at)):
        return dashed.flag(setting, quoted.group().strip(QUOTATION), quoted.end(), Trust.SURE)
    end = _clause(text, at)
    value = text[at:end].strip()
    if not value:
        return dashed.flag("debris", text[dashed.start : dashed.end], dashed.end, Trust(dashed.two))
    if dashed.two and " " not in value and setting != "aspect":
        return dashed.flag(setting, value, end, Trust.SURE)
    return None


def _clause(text: str, at: int) -> int:
    """Where a clause ends: at a comma, a line end, or a flag."""
    head = _HEAD.search(text, at)
    while head and (head["skip"] or (head["single"] and head["name"].lower() not in FLAGS)):
        head = _HEAD.search(text, head.end())
    end = head.start() if head else len(text)
    stop = _CLAUSE_END.search(text, at, end)
    return stop.start() if stop else end


def _ratio(pair: re.Match[str]) -> str:
    return _narrow(f"{pair[1]}:{pair[2]}")


def _narrow(value: str) -> str:
    """A value in ASCII digits and signs, where a keyboard typed wide ones."""
    return unicodedata.normalize("NFKC", value)
