"""Taking flags of video services off a text: ``--ar 16:9``, ``-neg blurry, extra limbs``, ``seed123``.

Of the candidates only some are sure. The others are flags beside a flag or at the end of a query: there people put
them. What stays uncertain stays in the text.
"""

from __future__ import annotations

import re
from itertools import pairwise

from promptreel.queries.candidates import Flag, Trust, candidates
from promptreel.queries.signs import LINK, QUOTATION, QUOTED, SEPARATORS, past

_STOP = re.compile(r"[.!?][\"'\u201d\u2019)]* +(\w)|[\u3002\uff01\uff1f\u0964]")


def take_flags(text: str, found: dict[str, list[str]]) -> str:
    """Move every flag with its value from a text to ``found``, under the name of what it sets."""
    flags = _accepted(text, candidates(text))
    kept, at = [], 0
    for number, flag in enumerate(flags, 1):
        if flag.start < at:  # within quotes that belong to the flag before
            continue
        kept.append(text[at : flag.start])
        at, setting, value = flag.end, flag.setting, flag.value
        if setting == "negative":
            at, value = _negative(text, flag.end, flags[number].start if number < len(flags) else len(text))
            if not value:
                setting, value = "debris", text[flag.start : at].strip()
        found.setdefault(setting, []).append(value)
    rest = text[at:] if text[at:].strip(" \n,;.") or not flags else ""
    return " ".join([*kept, rest])


def _accepted(text: str, flags: list[Flag]) -> list[Flag]:
    """The candidates that are flags, from left to right."""
    touching = [not text[left.end : right.start].strip(SEPARATORS) for left, right in pairwise(flags)]
    taken = [flag.trust == Trust.SURE or (flag.trust == Trust.LAST and _alone(text, flag)) for flag in flags]
    if flags and not text[flags[-1].end :].strip(SEPARATORS):
        first = next((n for n in range(len(flags) - 1, 0, -1) if not touching[n - 1]), 0)
        taken[-1] |= any(flag.trust == Trust.LAST for flag in flags[first:])  # the run that ends the query
    for left in reversed(range(len(flags) - 1)):
        taken[left] |= touching[left] and taken[left + 1]
    for left in range(len(flags) - 1):
        taken[left + 1] |= touching[left] and taken[left]
    return [flag for flag, is_taken in zip(flags, taken, strict=True) if is_taken]


def _alone(text: str, flag: Flag) -> bool:
    """Whether a flag has a line of its own in a text of several."""
    around = text[max(0, flag.start - 1) : flag.start], text[flag.end : flag.end + 1]
    return "\n" in around and set(around) <= {"\n", ""}


def _negative(text: str, at: int, limit: int) -> tuple[int, str]:
    """Where the value of a negative ends, and the value: with its quotation, its line or its sentence, and where the
    next flag begins at the latest.
    """
    at = past(text, at, LINK)
    if quoted := QUOTED.match(text, at):
        return quoted.end(), quoted.group().strip(QUOTATION)
    end = text.find("\n", at, limit)
    end = limit if end < 0 else end
    for stop in _STOP.finditer(text, at, end):
        if not stop[1] or stop[1].isupper():
            end = stop.start()
            break
    return end, text[at:end].strip(" \n,;.\uff0c\u3002")
