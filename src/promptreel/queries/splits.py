"""Split of queries into parts (train, dev, test) by their content, never by their place in a source."""

from __future__ import annotations

import hashlib

from promptreel.queries.dedup import words
from promptreel.types import Query

SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
"""Fraction of all queries in each part of a split."""


def split_of(query: Query) -> str:
    """Return ``train``, ``dev`` or ``test``: the same part for all queries with the same words, in every source."""
    digest = hashlib.sha256(" ".join(words(query.text)).encode()).hexdigest()
    remainder = int(digest[:13], 16) / 16**13
    for part, share in SHARES.items():
        remainder -= share
        if remainder < 0:
            return part
    return part
