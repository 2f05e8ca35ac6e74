"""Near-duplicates among queries, by the similarity of their words."""

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
EPSILON = 1e-9
"""Rounding error of a product of a count and a similarity."""


def words(text: str) -> list[str]:
    """Return the words of a text without case, punctuation and compatibility forms.

    Scripts without spaces give single characters. A text without any word is one word.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _WORDS.findall(plain) or [plain.strip()]


class NearDuplicates:
    """Index of queries that finds near-duplicates of a new one.

    Two queries are near-duplicates if the Jaccard similarity of their pairs of adjacent words is at least ``near``
    (above 0, at most 1). The result is exact, not an estimate. Only queries that share a rare enough pair are
    compared: two sets of the wanted similarity share one of the first ``n - ceil(near * n) + 1`` pairs of each, in
    any order that is the same for all (prefix filtering; Chaudhuri, Ganti and Kaushik, ICDE 2006).
    """

    def __init__(self, near: float) -> None:
        if not 0 < near <= 1:
            raise ValueError(f"a similarity is above 0 and at most 1, not {near}")
        self.near = near
        self._indexed: list[frozenset[int]] = []
        self._by_pair: dict[int, list[int]] = {}
        """Pair to the numbers of the indexed queries that have it among their first ones."""

    def seen(self, query: Query) -> bool:
        """Return True for a near-duplicate of an indexed query. Otherwise index the query and return False."""
        pairs = _pairs(query.text)
        first = sorted(pairs)[: len(pairs) - math.ceil(self.near * len(pairs) - EPSILON) + 1]
        for number in {number for pair in first for number in self._by_pair.get(pair, ())}:
            other = self._indexed[number]
            common = len(pairs & other)
            if common >= self.near * (len(pairs) + len(other) - common) - EPSILON:
                return True
        for pair in first:
            self._by_pair.setdefault(pair, []).append(len(self._indexed))
        self._indexed.append(pairs)
        return False


def _pairs(text: str) -> frozenset[int]:
    """Return the pairs of adjacent words as hashes; a single word is its own pair.

    Sorted by hash, common pairs come at no particular place.
    """
    found = words(text)
    pairs = [" ".join(pair) for pair in pairwise(found)] or found
    return frozenset(int.from_bytes(hashlib.blake2b(pair.encode(), digest_size=8).digest()) for pair in pairs)
