"""Moving of flags of video services from a text: ``--ar 16:9``, ``-neg blurry, extra limbs``, ``seed123``.

Only some possible flags are certain. The others count beside another flag or at the end of a query, where people put
flags. Everything uncertain stays in the text.
"""

from __future__ import annotations

import re
from itertools import pairwise

from promptreel.queries.parser.grammar import Confidence, Flag, possible_flags
from promptreel.queries.parser.patterns import ASSIGNMENT, QUOTE_MARKS, QUOTED, SEPARATORS, skip_characters

_SENTENCE_END = re.compile(r"[.!?][\"'\u201d\u2019)]* +(\w)|[\u3002\uff01\uff1f\u0964]")
"""End of a sentence; the group is the first letter of the next one, in scripts with spaces."""


def take_flags(text: str, found: dict[str, list[str]]) -> str:
    """Move every flag from a text to ``found``, its value under the setting, and return the rest."""
    flags = _accepted(text, possible_flags(text))
    kept: list[str] = []
    position = 0
    for number, flag in enumerate(flags, 1):
        if flag.start < position:  # within quotes that belong to the flag before
            continue
        kept.append(text[position : flag.start])
        position, setting, value = flag.end, flag.setting, flag.value
        if setting == "negative":
            limit = flags[number].start if number < len(flags) else len(text)
            position, value = _negative_value(text, flag.end, limit)
            if not value:
                setting, value = "debris", text[flag.start : position].strip()
        found.setdefault(setting, []).append(value)
    rest = text[position:]
    if flags and not rest.strip(" \n,;."):
        rest = ""
    return " ".join([*kept, rest])


def _accepted(text: str, flags: list[Flag]) -> list[Flag]:
    """Return the possible flags that are taken for flags, from left to right."""
    touching = [not text[left.end : right.start].strip(SEPARATORS) for left, right in pairwise(flags)]
    taken = [_alone_suffices(text, flag) for flag in flags]
    if flags and not text[flags[-1].end :].strip(SEPARATORS):
        run = flags[_last_run_start(touching) :]
        taken[-1] |= any(flag.confidence == Confidence.TRAILING for flag in run)
    for left in reversed(range(len(flags) - 1)):
        taken[left] |= touching[left] and taken[left + 1]
    for left in range(len(flags) - 1):
        taken[left + 1] |= touching[left] and taken[left]
    return [flag for flag, is_taken in zip(flags, taken, strict=True) if is_taken]


def _alone_suffices(text: str, flag: Flag) -> bool:
    """Return True for a flag that needs no other one beside it, nor the end of the query."""
    if flag.confidence == Confidence.CERTAIN:
        return True
    return flag.confidence == Confidence.TRAILING and _alone_on_line(text, flag)


def _last_run_start(touching: list[bool]) -> int:
    """Return the index of the first flag of the last run, given for each flag but the last if it touches the next."""
    start = len(touching)
    while start > 0 and touching[start - 1]:
        start -= 1
    return start


def _alone_on_line(text: str, flag: Flag) -> bool:
    """Return True if a flag has a line of its own in a text of several lines."""
    around = text[max(0, flag.start - 1) : flag.start], text[flag.end : flag.end + 1]
    return "\n" in around and set(around) <= {"\n", ""}


def _negative_value(text: str, start: int, limit: int) -> tuple[int, str]:
    """Return the end of a negative's value, and the value.

    It ends with its quotation, its line or its sentence, and before the next flag (``limit``) at the latest.
    """
    start = skip_characters(text, start, ASSIGNMENT)
    if quoted := QUOTED.match(text, start):
        return quoted.end(), quoted.group().strip(QUOTE_MARKS)
    end = text.find("\n", start, limit)
    end = limit if end < 0 else end
    for stop in _SENTENCE_END.finditer(text, start, end):
        if not stop[1] or stop[1].isupper():
            end = stop.start()
            break
    return end, text[start:end].strip(" \n,;.\uff0c\u3002")
