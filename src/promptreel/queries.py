"""Reading queries: from files, from named data sets, from the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from promptreel.errors import QueryError, UnknownName
from promptreel.types import Query

LONGEST = 2000
"""Words of a query; what is longer is a document, and no prompt could keep what it says."""


def parse_query(text: str) -> Query:
    """A query from what a person typed. Raises ``QueryError`` for an empty or endless one."""
    words = text.split()
    if not words:
        raise QueryError("the query is empty; say what the video should show")
    if len(words) > LONGEST:
        raise QueryError(f"the query has {len(words)} words; at most {LONGEST} can be rewritten into a prompt")
    return Query(" ".join(words))


def read(
    source: str,
    skip: int = 0,
    take: int | None = None,
    named: Mapping[str, Callable[[], Iterable[Query]]] | None = None,
) -> list[Query]:
    """A slice of a source, without exact duplicates: of a file, or of a data set in ``named``.

    Raises ``QueryError`` when the source has fewer than asked for, or nothing.
    """
    stop = None if take is None else skip + take
    found = list(islice(_distinct(_source(source, named or {}, endless=stop is None)), skip, stop))
    if not found or (take is not None and len(found) < take):
        wanted = f"{take} after the first {skip}" if take else "any"
        raise QueryError(f"{source} has only {len(found)} of the queries asked for ({wanted})")
    return found


def _distinct(queries: Iterable[Query]) -> Iterator[Query]:
    seen: set[str] = set()
    for query in queries:
        if query.id not in seen:
            seen.add(query.id)
            yield query


def _source(source: str, named: Mapping[str, Callable[[], Iterable[Query]]], endless: bool) -> Iterable[Query]:
    if source in named:
        if endless:
            raise QueryError(f"{source} has no end; say how many queries to take")
        return named[source]()
    path = Path(source)
    if not path.exists():
        if path.suffix:
            raise QueryError(f"no file of queries at {source}")
        raise UnknownName("data set", source, named)
    return read_file(path)


def read_file(path: Path) -> Iterator[Query]:
    """Queries of a file: one a line (``.txt``), a ``query`` or ``prompt`` field (``.jsonl``, ``.csv``).

    Blank lines are skipped. Raises ``QueryError`` that names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"cannot read {path}: {error}") from error
    for number, value in _values(path, text):
        try:
            yield parse_query(value)
        except QueryError as error:
            raise QueryError(f"{path}, line {number}: {error}") from error


def _values(path: Path, text: str) -> Iterator[tuple[int, str]]:
    if path.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise QueryError(f"{path}, line {number}: not JSON ({error})") from error
                yield number, row if isinstance(row, str) else _field(row, path, number)
    elif path.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(text.splitlines()), 2):
            yield number, _field(row, path, number)
    else:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield number, line


def _field(row: object, path: Path, number: int) -> str:
    if isinstance(row, dict):
        for name in ("query", "prompt", "text"):
            if isinstance(row.get(name), str):
                return str(row[name])
    raise QueryError(f"{path}, line {number}: no text under 'query', 'prompt' or 'text'")
