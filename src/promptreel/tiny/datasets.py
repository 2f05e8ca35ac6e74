"""The tiny world's queries as data sets: ``tiny-train``, ``tiny-dev``, ``tiny-test``, ``tiny-ood``."""

from __future__ import annotations

from collections.abc import Iterator

from promptreel.tiny.wording import typed_queries
from promptreel.types import Query


def train() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("train"))


def dev() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("dev"))


def test() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("test"))


def ood() -> Iterator[Query]:
    return (Query(text) for text, _ in typed_queries("ood"))
