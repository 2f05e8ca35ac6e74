"""Which queries are nearly the same, and which part of a split a query belongs to: by content, never by place."""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from itertools import pairwise

from promptreel.types import Query

_WORDS = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]"  # no spaces between
    r"|[^\W_]+"
)
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
"""The parts of a split, as shares of all content."""
TINY = 1e-9
"""What a product of a count and a similarity may be off by."""


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation and compatibility forms; single characters where a script has
    no spaces. A text without any word is one word.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _WORDS.findall(plain) or [plain.strip()]


def split_of(query: Query) -> str:
    """``train``, ``dev`` or ``test``: the same for all queries with the same words, in whatever source they are."""
    digest = hashlib.sha256(" ".join(words(query.text)).encode()).hexdigest()
    at = int(digest[:13], 16) / 16**13
    for part, share in SHARES.items():
        at -= share
        if at < 0:
            return part
    return part


class Likeness:
    """Remembers queries and knows whether a new one is nearly one of them.

    Two are alike when the Jaccard similarity of their pairs of adjacent words is at least ``near`` (0..1]; exactly,
    not by estimate. Only what shares a rare enough pair is compared: sets that are alike must have one of the first
    ``n - ceil(near * n) + 1`` pairs of each in common, in any order that is the same for all (prefix filtering;
    Chaudhuri, Ganti and Kaushik, ICDE 2006).
    """

    def __init__(self, near: float) -> None:
        if not 0 < near <= 1:
            raise ValueError(f"a similarity is above 0 and at most 1, not {near}")
        self.near = near
        self._seen: list[frozenset[int]] = []
        self._having: dict[int, list[int]] = {}

    def known(self, query: Query) -> bool:
        """Whether a query is like one that is remembered; if it is not, it is remembered."""
        pairs = _pairs(query.text)
        first = sorted(pairs)[: len(pairs) - math.ceil(self.near * len(pairs) - TINY) + 1]
        for number in {number for pair in first for number in self._having.get(pair, ())}:
            other = self._seen[number]
            common = len(pairs & other)
            if common >= self.near * (len(pairs) + len(other) - common) - TINY:
                return True
        for pair in first:
            self._having.setdefault(pair, []).append(len(self._seen))
        self._seen.append(pairs)
        return False


def _pairs(text: str) -> frozenset[int]:
    """Pairs of adjacent words as hashes, which puts common ones nowhere in particular; a single word is its own."""
    found = words(text)
    pairs = [" ".join(pair) for pair in pairwise(found)] or found
    return frozenset(int.from_bytes(hashlib.blake2b(pair.encode(), digest_size=8).digest()) for pair in pairs)
