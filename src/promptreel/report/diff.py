"""Words of a query in a rewrite, kept and added. They are for display; the judge decides on facts."""

from __future__ import annotations

import re
from collections.abc import Iterator

LITTLE = frozenset(
    "a an and are as at be but by for from has have in into is it its of on onto or over so some that the their then "
    "there this to under up was were while with".split()
)
"""Words without content of their own."""
ENDINGS = ("ing", "ed", "es", "s", "e")
"""English endings, in the order in which they are tried."""


def compare(query: str, rewrite: str) -> Iterator[tuple[str, str]]:
    """Yield the pieces of a rewrite, in order and without gaps, each with its kind: ``kept``, ``added`` or empty."""
    asked = {_stem(word) for word in _words(query)}
    for piece in re.findall(r"\w+|\W+", rewrite):
        if not piece[0].isalnum() or piece.lower() in LITTLE:
            yield piece, ""
        else:
            yield piece, "kept" if _stem(piece) in asked else "added"


def unsaid(query: str, rewrite: str) -> list[str]:
    """Return the words of a query that a rewrite has in no form. It may use synonyms for them."""
    said = {_stem(word) for word in _words(rewrite)}
    words = dict.fromkeys(_words(query))
    return [word for word in words if word.lower() not in LITTLE and _stem(word) not in said]


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"\w+", text) if word[0].isalnum()]


def _stem(word: str) -> str:
    """Return a word without its English ending, roughly: ``surfing``, ``surfs`` and ``surfed`` give one stem."""
    word = word.lower()
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz" else word
