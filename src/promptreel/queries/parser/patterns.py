"""Character classes and regular expressions that the parser's parts share: dashes, quotes, separators, addresses."""

from __future__ import annotations

import re

DASH = "[-\u2010-\u2015\u2212\ufe58\ufe63\uff0d]"
URL = r"(?:https?://|\bwww\.)(?:[!#$%&*+,./:;=?@\\^~|\w-](?<=[\x00-\x7f])|\([\x21-\x27\x2a-\x7e]*\))+(?<![.,;:!?|*])"
QUOTES = {
    '"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u00ab": "\u00bb", "\u201e": "\u201c",
    "\u300c": "\u300d", "\u300e": "\u300f",
}  # fmt: skip
"""Opening quotation mark to the closing one."""
SEPARATORS = " \n,;.|/()[]{}\uff0c\u3002\u3001\uff1b\uff08\uff09"
"""Characters that may stand between two flags of a run, and after the last one."""

UNSPACED = "\u3000-\u9fff\uac00-\ud7af\uff00-\uffef"
"""Characters of scripts and punctuation that put no space between words, as ranges of a character class."""
QUOTE_MARKS = "".join({*QUOTES, *QUOTES.values()}) + " "
"""All quotation marks and the space, to strip from the ends of a value."""
COLONS = (":", "=", "\uff1a")
ASSIGNMENT = " :=\uff1a"
"""Characters that may stand between a flag and its value."""
QUOTED = re.compile("|".join(f"{begin}[^{begin}{end}\n]+{end}(?!\\w)" for begin, end in QUOTES.items()))
"""A quotation, with its marks, on one line."""
LETTERING = "|".join(
    rf"(?<!\w){begin}[^{begin}{end}\n]+{end}(?!\w)" for begin, end in QUOTES.items() if begin not in "'`\u2018"
)
"""Quoted lettering to keep verbatim, such as the words on a sign. Single quotes are left out: they may be
apostrophes."""


def skip_characters(text: str, start: int, characters: str) -> int:
    """Return the first position from ``start`` on that holds none of the characters."""
    position = start
    while position < len(text) and text[position] in characters:
        position += 1
    return position
