"""Grammar of the flags that people type: ``--ar 16:9``, ``-neg blurry``, ``seed123``, a lone ``16:9``.

A dash and a word can be many things (``a bus -stop``, ``AR-15``, ``John 16:9``), and people also leave the dash out.
``possible_flags`` therefore finds every possible flag of a text, each with the confidence that it is one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from promptreel.queries.parser.flag_names import (
    FLAGS,
    GAP_ALLOWED,
    MAX_STYLE_WORDS,
    ONE_DASH,
    REFERENCES,
    STYLE_PRESETS,
    UNDASHED,
    VALUELESS,
    WORD_VALUED,
)
from promptreel.queries.parser.patterns import (
    ASSIGNMENT,
    COLONS,
    DASH,
    LETTERING,
    QUOTE_MARKS,
    QUOTED,
    SEPARATORS,
    UNSPACED,
    URL,
    skip_characters,
)

_BREAK = r"\s,;.:!?|()\[\]\"'\u201c\u201d\u2019\u00ab\u00bb0-9" + UNSPACED
"""Characters after which a single dash may begin a flag, as a part of a character class."""
_END = rf"(?=[\s,;)\]}}|\"'\u201d{UNSPACED}]|[.:\uff1a](?!\d)|$|(?<=\d){DASH}{{1,2}}[A-Za-z])"
"""End of a value: white space, punctuation, or the dash of the next flag."""
_FIGURE = r"(?:\d+(?:\.\d+)?|\.\d+)"
_SCREEN = r"(?:16|21)[:\uff1a]9|9[:\uff1a]16"

_LABEL_HEAD = (
    rf"(?:(?<![^\s,.;]){DASH}{{0,2}} ?negative[ _-]?prompts?|(?<![^\n])negatives?) ?[:=\uff1a]"
    r"|(?<![^\n])#{0,6} ?negative prompts?(?=\n)"
)
"""``Negative prompt:`` anywhere, ``Negative:`` at the start of a line, or a heading with the words alone."""
_DASHED_HEAD = (
    rf"(?:(?<!{DASH})(?P<double>{DASH}{{2}}|\u2014)|(?<![^{_BREAK}])(?P<single>{DASH}))"
    r"(?P<gap> ?)(?P<name>[A-Za-z]+(?:[_-][A-Za-z]+)?)(?![^\W\d])"
)
"""One dash, two, or a long one, then a name of ASCII letters."""
_UNDASHED_HEAD = (
    r"(?<![\w-])(?<!\ba )(?<!\ban )(?<!\bthe )(?<!\bof )(?<!\bat )(?<!\bwith )"
    rf"/?(?P<bare>ar|gs|fps)(?={DASH}?[ :=]{{0,2}}\d)"
)
"""A name without a dash that a number follows. After an article or a preposition it belongs to a sentence."""
_SEED_HEAD = rf"(?<![\w-])seed(?:(?P<glued>\d{{2,12}})| ?[:=\uff1a] ?(?P<seed>\d{{1,12}})){_END}"
"""``seed123`` or ``seed: 123``."""
_SCREEN_HEAD = rf"(?<![A-Za-z0-9_:.,/-])(?P<screen>{_SCREEN})(?![:\w]| ?(?:[ap]\.?m\b|o'?clock))"
"""A lone aspect ratio of a screen that is not the time of day."""
_HEAD = re.compile(
    rf"(?P<skip>{URL}|{LETTERING})"
    rf"|(?P<label>{_LABEL_HEAD})"
    rf"|{_DASHED_HEAD}"
    rf"|{_UNDASHED_HEAD}"
    rf"|{_SEED_HEAD}"
    rf"|{_SCREEN_HEAD}",
    re.IGNORECASE,
)
"""Beginning of a possible flag. Addresses and quoted lettering match as ``skip``, so that no flag is found in them."""

_NUMBER = re.compile(
    rf"[ ]?[:=\uff1a]?[ ]?(-?{_FIGURE}(?:[x\u00d7*/:]{_FIGURE})?(?:px|fps|secs?|seconds?|[%skp])?){_END}", re.IGNORECASE
)
_RATIO = re.compile(rf"{DASH}?[ ]?[:=\uff1a]?[ ]?({_FIGURE}) ?[:x/\u00d7\uff1a] ?({_FIGURE}){_END}", re.IGNORECASE)
_DOTTED = re.compile(rf"[ ]?[:=\uff1a]?[ ]?(\d{{1,2}})[.,-](\d{{1,2}}){_END}")
_LEVEL = re.compile(r"[ ]?[:=]?[ ]?(low|medium|high)\b", re.IGNORECASE)
_CODES = re.compile(rf"[ ]?[:=]?(?: ?(?:{URL}|random\b|\d[\d:.]*{_END}))+", re.IGNORECASE)
_BARE_NUMBER = re.compile(rf"{DASH}?[ :=]{{0,2}}(\d{{1,4}}){_END}")
_CLAUSE_END = re.compile(r"[,;.\n|\uff0c\u3002\uff1b]")
_MANNER = r"(?:(?:very|slow(?:ly)?(?: motion)?|fast|quick(?:ly)?|smooth(?:ly)?|gentl[ey]) )*"
_MOVE_WORDS = (
    "zoom|pan|tilt|rotate|roll|truck|dolly|pedestal|orbit|crane|track|static|still|handheld|fixed|push|pull|arc"
)
_DIRECTION = r"up|down|left|right|forwards?|backwards?|(?:counter-?|anti-?)?clockwise|a?c?cw"
_MOVE = (
    rf"{_MANNER}(?:(?:zoom|dolly|push|pull|truck|crane)(?:e?s|ing)?[ _-](?:in|out|back)(?![A-Za-z])"
    rf"|(?:{_MOVE_WORDS}|panning|rotating)(?:e?s|ing)?(?: shot)?)"
    rf"(?:[ _-](?:(?:to )?(?:the )?(?:{_DIRECTION})|slowly|fast)(?![A-Za-z]))*(?![A-Za-z]|[_-][A-Za-z])"
)
_CAMERA = re.compile(
    rf"[ ]?[:=\uff1a]?[ ]?({_MOVE}(?:,? (?:and |then )*{_MOVE}| and (?:in|out|{_DIRECTION})\b)*)", re.IGNORECASE
)
_CONTINUATION = re.compile(
    r" (?:on|onto|at|to|into|in|from|towards?|through|over|across|along|behind|around|past|above|below|under|as|while|"
    r"until|with|of|by|between|and|then)\b",
    re.IGNORECASE,
)
"""A preposition or conjunction after a camera move, which goes on with it: ``zoom in on``."""
_ORIENTATIONS = "vertical|horizontal|portrait|landscape|widescreen"
_ORIENTATION_BEFORE = re.compile(
    rf"(?<!\w)(?:{_ORIENTATIONS})[ :]*\Z"
    r"|(?:\u6bd4\u4f8b?|[\u7ad6\u6a2a]\u5c4f|\u753b\u5e45)[:\uff1a\u4e3a]?\Z",
    re.IGNORECASE,
)
"""A word for the shape of a picture at the end of a text, in English or Chinese."""
_ORIENTATION_AFTER = re.compile(rf" ?(?:{_ORIENTATIONS})\b", re.IGNORECASE)
_UNSPACED = re.compile(f"[{UNSPACED}]")


class Confidence(IntEnum):
    """Places in which a possible flag is taken for one."""

    ADJACENT = 0
    """Beside another flag."""
    TRAILING = 1
    """Also at the end of a query, or alone on its line."""
    CERTAIN = 2
    """Anywhere."""


class Flag(NamedTuple):
    """A possible flag: the text from ``start`` to ``end``, with its value.

    The value of a flag for a negative prompt ends before the next flag. It is read once all other flags are known.
    """

    start: int
    end: int
    setting: str
    value: str
    confidence: Confidence


class DashedName(NamedTuple):
    """A dash and a name in a text, which may begin a flag."""

    text: str
    start: int
    end: int
    name: str
    setting: str | None
    """Setting that the name stands for; ``None`` for an unknown name."""
    two: bool
    """True for two dashes."""
    doubled: bool
    """True for two dashes, and for a long one, which editors make of two. A long one may also be a dash."""
    tight: bool
    """True if a letter or a digit stands directly before."""

    def flag(self, setting: str, value: str, end: int, confidence: Confidence) -> Flag:
        """Return a flag that starts at the dash and ends at ``end``; a tight one counts only beside another flag."""
        return Flag(self.start, end, setting, value, Confidence.ADJACENT if self.tight else confidence)


def possible_flags(text: str) -> list[Flag]:
    """Return all possible flags of a text, from left to right. They do not overlap."""
    flags: list[Flag] = []
    position = 0
    while head := _HEAD.search(text, position):
        flag = _read_flag(head)
        if flag:
            flags.append(flag)
        position = flag.end if flag else head.end()
    return flags


def _read_flag(head: re.Match[str]) -> Flag | None:
    """Return the flag that begins with a match of ``_HEAD``, or ``None``."""
    if head["skip"]:
        return None
    return _read_dashed(head) if head["name"] else _read_undashed(head)


def _read_undashed(head: re.Match[str]) -> Flag | None:
    """Read a flag without dashes: ``ar 16:9``, ``gs 20``, ``seed123``, a lone ``16:9``, ``Negative prompt:``."""
    text, (start, end) = head.string, head.span()
    if head["label"]:
        return Flag(start, skip_characters(text, end, " \n"), "negative", "", Confidence.CERTAIN)
    if number := head["glued"] or head["seed"]:
        closed = head["glued"] or text[end : end + 1] in ("", *",;.)]\n")
        return Flag(start, end, "seed", number, Confidence.CERTAIN if closed else Confidence.TRAILING)
    if head["screen"]:
        return Flag(start, end, "aspect", _ascii_value(head["screen"]), _screen_confidence(text, start, end))
    name = head["bare"].lower()
    if name == "ar":
        exact = _RATIO.match(text, end)
        pair = exact or _DOTTED.match(text, end)
        confidence = Confidence.CERTAIN if exact else Confidence.ADJACENT
        return Flag(start, pair.end(), "aspect", _ratio_value(pair), confidence) if pair else None
    number_match, (low, high) = _BARE_NUMBER.match(text, end), UNDASHED[name]
    if number_match and low <= int(number_match[1]) <= high:
        return Flag(start, number_match.end(), FLAGS[name], number_match[1], Confidence.TRAILING)
    return None


def _screen_confidence(text: str, start: int, end: int) -> Confidence:
    """Return the confidence that a lone aspect ratio is a request: best beside a word such as ``vertical``."""
    before = text[max(0, start - 20) : start].rstrip(" ")
    if _ORIENTATION_BEFORE.search(before) or _ORIENTATION_AFTER.match(text, end):
        return Confidence.CERTAIN
    separate = not before or before[-1] in SEPARATORS
    return Confidence.TRAILING if separate else Confidence.ADJACENT


def _read_dashed(head: re.Match[str]) -> Flag | None:
    """Read a flag that begins with dashes, by the first reader that can."""
    text, (start, end), name = head.string, head.span(), head["name"].lower()
    before = text[max(0, start - 1) : start]
    dashed = DashedName(
        text,
        start,
        end,
        name,
        setting=FLAGS.get(name),
        two=len(head["double"] or "") == 2,
        doubled=bool(head["double"]),
        tight=before.isalnum() and not _UNSPACED.match(before),
    )
    readers: list[Callable[[DashedName], Flag | None]] = [
        _read_number,
        _read_camera,
        _read_negative,
        _read_valueless,
        _read_style,
        _read_word,
    ]
    if head["gap"]:  # items of a list have such dashes too
        if name in ("no", "negative") or dashed.setting not in GAP_ALLOWED:
            return None
        readers = readers[:3]
    return next((flag for reader in readers if (flag := reader(dashed))), None)


def _read_number(dashed: DashedName) -> Flag | None:
    """Read a flag whose value is a number or a ratio. After two dashes, the name may be unknown."""
    text, end, setting = dashed.text, dashed.end, dashed.setting
    if setting in WORD_VALUED | VALUELESS or not (setting or dashed.doubled):
        return None
    if setting == "aspect":
        number = _RATIO.match(text, end) or _DOTTED.match(text, end)
        value = _ratio_value(number) if number else ""
    else:
        number = _NUMBER.match(text, end)
        value = _ascii_value(number[1]) if number else ""
        if text[end : end + 1] == "-":  # -gs-12
            value = value.removeprefix("-")
    if not number:
        return None
    if setting and dashed.doubled:
        return Flag(dashed.start, number.end(), setting, value, Confidence.CERTAIN)
    confidence = Confidence.CERTAIN if setting in ONE_DASH else Confidence.TRAILING
    return dashed.flag(setting or dashed.name, value, number.end(), confidence)


def _read_camera(dashed: DashedName) -> Flag | None:
    """Read ``-camera zoom in``, or ``-zoom in``. The move includes the words that complete it: ``zoom in on a cat``."""
    text = dashed.text
    direct = re.split("[_-]", dashed.name)[0] in _MOVE_WORDS.split("|")
    if not (direct or dashed.setting == "camera"):
        return None
    start = dashed.end - len(dashed.name) if direct else dashed.end
    if move := _CAMERA.match(text, start):
        end = _clause_end(text, move.end()) if _CONTINUATION.match(text, move.end()) else move.end()
        value = text[move.start(1) : end].strip()
        return dashed.flag("camera", value, end, _camera_confidence(dashed, direct, move[1]))
    if direct:
        return None
    if quoted := QUOTED.match(text, skip_characters(text, start, ASSIGNMENT)):
        return dashed.flag("camera", quoted.group().strip(QUOTE_MARKS), quoted.end(), Confidence.CERTAIN)
    end = _clause_end(text, start)
    value = text[start:end].strip(ASSIGNMENT)
    return dashed.flag("camera", value, end, Confidence.CERTAIN) if value and dashed.two else None


def _camera_confidence(dashed: DashedName, direct: bool, move: str) -> Confidence:
    """Return the confidence of a camera move; a ``direct`` one has no ``camera`` before it."""
    if dashed.two or not direct:
        return Confidence.CERTAIN
    return Confidence.TRAILING if re.search("[ _-]", move) else Confidence.ADJACENT


def _read_negative(dashed: DashedName) -> Flag | None:
    """Read the beginning of a negative: ``-neg``, ``--no``.

    The confidence does not depend on line ends: they are gone when a text is parsed again.
    """
    if dashed.setting != "negative":
        return None
    text, end = dashed.text, dashed.end
    following = text[end : end + 200].replace("\n", " ").lstrip(" :=\uff1a")
    valued = following[:1] not in ("", *SEPARATORS)
    after = text[end : end + 1]
    if dashed.name in ("no", "negative") and not dashed.two:  # words like any other
        before = text[max(0, dashed.start - 2) : dashed.start].rstrip(" ")[-1:]
        listed = re.search("[,\uff0c\u3001\u060c]", following) and before in ("", *SEPARATORS)
        confidence = Confidence.CERTAIN if valued and (listed or after in COLONS) else Confidence.ADJACENT
    elif dashed.name == "no":
        spaced = after.isspace() or after in COLONS
        confidence = Confidence.CERTAIN if valued and spaced else Confidence.ADJACENT
    else:
        confidence = Confidence.CERTAIN if valued else Confidence.TRAILING
    return dashed.flag("negative", "", end, confidence)


def _read_valueless(dashed: DashedName) -> Flag | None:
    """Read a flag that takes no value, such as ``--hd``."""
    if dashed.setting not in VALUELESS:
        return None
    if dashed.two and not dashed.start:
        return dashed.flag(dashed.setting, "", dashed.end, Confidence.CERTAIN)
    return dashed.flag(dashed.setting, "", dashed.end, _trailing_if_two(dashed))


def _read_style(dashed: DashedName) -> Flag | None:
    """Read ``--style`` with its value: a quotation, or a clause of few words.

    A longer clause is left alone, so that no word of a sentence changes its place.
    """
    if dashed.setting != "style":
        return None
    text = dashed.text
    start = skip_characters(text, dashed.end, ASSIGNMENT)
    if quoted := QUOTED.match(text, start):
        return dashed.flag("style", quoted.group().strip(QUOTE_MARKS), quoted.end(), Confidence.CERTAIN)
    end = _clause_end(text, start)
    words = text[start:end].split()
    if words and words[0].lower() in STYLE_PRESETS:
        return dashed.flag("style", words[0], start + len(words[0]), _certain_if_two(dashed))
    if 0 < len(words) <= (MAX_STYLE_WORDS if dashed.two else 1):
        return dashed.flag("style", " ".join(words), end, _certain_if_two(dashed))
    return None


def _read_word(dashed: DashedName) -> Flag | None:
    """Read a known flag whose value is not a number: a code, a level, one word. One without a value is debris."""
    text, setting = dashed.text, dashed.setting
    if setting is None:
        return None
    if setting in REFERENCES and (codes := _CODES.match(text, dashed.end)):
        return dashed.flag(setting, codes.group().strip(" :="), codes.end(), _certain_if_two(dashed))
    if setting == "motion" and (level := _LEVEL.match(text, dashed.end)):
        return dashed.flag(setting, level[1], level.end(), _certain_if_two(dashed))
    start = skip_characters(text, dashed.end, ASSIGNMENT)
    if dashed.two and (quoted := QUOTED.match(text, start)):
        return dashed.flag(setting, quoted.group().strip(QUOTE_MARKS), quoted.end(), Confidence.CERTAIN)
    end = _clause_end(text, start)
    value = text[start:end].strip()
    if not value:
        return dashed.flag("debris", text[dashed.start : dashed.end], dashed.end, _trailing_if_two(dashed))
    if dashed.two and " " not in value and setting != "aspect":
        return dashed.flag(setting, value, end, Confidence.CERTAIN)
    return None


def _certain_if_two(dashed: DashedName) -> Confidence:
    """Return ``CERTAIN`` for two dashes, else ``TRAILING``."""
    return Confidence.CERTAIN if dashed.two else Confidence.TRAILING


def _trailing_if_two(dashed: DashedName) -> Confidence:
    """Return ``TRAILING`` for two dashes, else ``ADJACENT``."""
    return Confidence.TRAILING if dashed.two else Confidence.ADJACENT


def _clause_end(text: str, start: int) -> int:
    """Return the end of the clause that begins at ``start``: a comma, a line end, or a flag."""
    head = _HEAD.search(text, start)
    while head and (head["skip"] or (head["single"] and head["name"].lower() not in FLAGS)):
        head = _HEAD.search(text, head.end())
    end = head.start() if head else len(text)
    stop = _CLAUSE_END.search(text, start, end)
    return stop.start() if stop else end


def _ratio_value(pair: re.Match[str]) -> str:
    """Return a matched width and height as ``16:9``."""
    return _ascii_value(f"{pair[1]}:{pair[2]}")


def _ascii_value(value: str) -> str:
    """Return a value in ASCII digits and punctuation, also if it was typed in full-width forms."""
    return unicodedata.normalize("NFKC", value)
