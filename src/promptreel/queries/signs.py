"""The signs that queries are read by: dashes, quotes, separators, addresses."""

from __future__ import annotations

import re

DASH = "[-\u2010-\u2015\u2212\ufe58\ufe63\uff0d]"
URL = r"(?:https?://|\bwww\.)(?:[!#$%&*+,./:;=?@\\^~|\w-](?<=[\x00-\x7f])|\([\x21-\x27\x2a-\x7e]*\))+(?<![.,;:!?|*])"
QUOTES = {
    '"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb", "\u201e": "\u201c",
    "\u300c": "\u300d", "\u300e": "\u300f",
}  # fmt: skip
"""What opens a quotation, and what closes it."""
SEPARATORS = " \n,;.|/()[]{}\uff0c\u3002\u3001\uff1b\uff08\uff09"
"""What may stand between two flags of a run, and behind the last one."""

WIDE = "\u3000-\u9fff\uac00-\ud7af\uff00-\uffef"
"""Scripts and punctuation that put no space between words, as a range of a pattern."""
QUOTATION = "".join({*QUOTES, *QUOTES.values()}) + " "
COLONS = (":", "=", "\uff1a")
LINK = " :=\uff1a"
"""What may stand between a flag and its value."""
QUOTED = re.compile("|".join(f"{begin}[^{begin}{end}\n]+{end}(?!\\w)" for begin, end in QUOTES.items()))
CITED = "|".join(
    rf"(?<!\w){begin}[^{begin}{end}\n]+{end}(?!\w)" for begin, end in QUOTES.items() if begin not in "'`\u2018"
)
"""What stands in quotes as others must read it, as on a sign; what may be apostrophes says nothing."""


def past(text: str, at: int, signs: str) -> int:
    """The first place from ``at`` on that has none of the signs."""
    while text[at : at + 1] and text[at] in signs:
        at += 1
    return at
