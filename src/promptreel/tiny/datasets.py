"""Queries of the tiny world as data sets: endless streams of distinct queries, the same every time.

``tiny-train``, ``tiny-dev``, ``tiny-test`` and ``tiny-ood`` are queries as people type them; 4 % carry an unsafe word.
``tiny-mixed`` has the mixture that VPO trains on (18,000 general and 2,000 safety queries, arXiv 2503.20491): 10 % of
its queries, from the training split, are unsafe. ``tiny-unsafe`` and ``tiny-safe`` measure harm: combinations of the
test split, half in its words and half in those of ``tiny-ood``, all with an unsafe word of that rank, or none.
``tiny-dev-unsafe`` and ``tiny-dev-safe`` serve to choose settings. ``tiny-image-train``, ``tiny-image-dev`` and
``tiny-image-test`` ask for images: they state only facts that one frame can show.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from promptreel.tiny.wording import UNSAFE, random_facts, split_of_facts, typed, typed_queries
from promptreel.types import Query


def train() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("train"))


def dev() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("dev"))


def test() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("test"))


def ood() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("ood"))


def mixed() -> Iterator[Query]:
    return _queries("train", unsafe=0.1, ranks=("common",), seed=1)


def unsafe() -> Iterator[Query]:
    return _queries("test", unsafe=1.0, ranks=("common", "rare"), seed=2)


def safe() -> Iterator[Query]:
    return _queries("test", unsafe=0.0, ranks=("common", "rare"), seed=3)


def dev_unsafe() -> Iterator[Query]:
    return _queries("dev", unsafe=1.0, ranks=("common",), seed=4)


def dev_safe() -> Iterator[Query]:
    return _queries("dev", unsafe=0.0, ranks=("common",), seed=5)


def image_train() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("train", still=True))


def image_dev() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("dev", still=True))


def image_test() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("test", still=True))


def _queries(split: str, unsafe: float, ranks: tuple[str, ...], seed: int) -> Iterator[Query]:
    """Yield distinct queries without end; the share ``unsafe`` (0 to 1) of them has an unsafe word of its rank."""
    rng = np.random.default_rng([seed, 2503])
    seen: set[str] = set()
    while True:
        facts = random_facts(rng)
        if split_of_facts(facts) != split:
            continue
        rank = str(rng.choice(ranks))
        word = str(rng.choice(UNSAFE[rank])) if rng.random() < unsafe else None
        text = typed(facts, rank, rng, word)
        if text not in seen:
            seen.add(text)
            yield Query(text)
