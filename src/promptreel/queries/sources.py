"""Queries from files (text, JSONL, CSV, Parquet), from data sets of the hub, and from registered data sets."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from promptreel.errors import QueryError, UnknownName, did_you_mean
from promptreel.extras import importing
from promptreel.queries.dedup import NearDuplicates
from promptreel.queries.parser.parse import ask_for, parse_query, too_long
from promptreel.queries.splits import split_of
from promptreel.types import Query

COLUMNS = ("query", "prompt", "text")
"""Columns of a table that may hold its queries, unless one is named; the first that it has is read."""
_HUB = re.compile(r"hub:(?P<name>[\w.-]+/[\w.-]+)(?::(?P<split>[^#]+))?(?:#(?P<column>.+))?")

Named = Mapping[str, Callable[[], Iterable[Query]]]
"""Registered data sets: name to a function that yields their queries."""


def read(
    source: str,
    skip: int = 0,
    take: int | None = None,
    named: Named | None = None,
    *,
    near: float | None = None,
    split: str | None = None,
    left_out: Counter[str] | None = None,
) -> list[Query]:
    """Return a slice of a source: of a file, of ``hub:OWNER/NAME[:SPLIT][#COLUMN]``, or of a data set in ``named``.

    Exact duplicates are left out. With ``near`` (above 0, at most 1), queries of at least this similarity to an
    earlier one are left out too; with ``split`` (``train``, ``dev``, ``test``), those of the other parts. ``left_out``
    counts every query that was read and left out, under its reason. Raises ``QueryError`` for a source with fewer
    queries than asked for, or with none.
    """
    left_out = Counter() if left_out is None else left_out
    stop = None if take is None else skip + take
    queries = _distinct(_source(source, named or {}, stop is None, left_out), near, split, left_out)
    found = list(islice(queries, skip, stop))
    if not found or (take is not None and len(found) < take):
        wanted = f"{take} after the first {skip}" if take else "any"
        without = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise QueryError(
            f"{source} has only {len(found)} of the queries asked for ({wanted})"
            + (f"; left out: {without}" if without else "")
        )
    return found


def _distinct(
    queries: Iterable[Query], near: float | None, split: str | None, left_out: Counter[str]
) -> Iterator[Query]:
    """Yield the queries of a part that are no duplicates of earlier ones; count the others in ``left_out``."""
    seen: set[str] = set()
    near_duplicates = NearDuplicates(near) if near else None
    for query in queries:
        if query.id in seen:
            left_out["duplicate"] += 1
        elif near_duplicates and near_duplicates.seen(query):
            left_out["near-duplicate"] += 1
        elif split and split_of(query) != split:
            left_out["other split"] += 1
        else:
            yield query
        seen.add(query.id)


def _source(source: str, named: Named, endless: bool, left_out: Counter[str]) -> Iterable[Query]:
    """Return all queries of a source. ``endless`` says that no number of queries was given."""
    if source in named:
        if endless:
            raise QueryError(f"{source} has no end; say how many queries to take")
        return named[source]()
    if source.startswith("hub:"):
        return _usable(_hub(source), left_out)
    path = Path(source)
    if not path.exists():
        if path.suffix:
            raise QueryError(f"no file of queries at {source}")
        raise UnknownName("data set", source, named)
    if path.suffix == ".parquet":
        return _usable(_parquet(path), left_out)
    return read_file(path)


def read_file(path: Path) -> Iterator[Query]:
    """Yield the queries of a file: one per line (``.txt``), or per row with a ``query``, ``prompt`` or ``text`` field
    (``.jsonl``, ``.csv``, ``.parquet``).

    Blank lines are skipped. Raises ``QueryError``, with the number of the line, for a line that cannot be read, and
    for a query that is empty or too long.
    """
    for number, value in enumerate(_parquet(path), 1) if path.suffix == ".parquet" else _rows(path):
        try:
            if not isinstance(value, str):
                raise QueryError(f"{value!r} is no text")
            yield ask_for(value)
        except QueryError as error:
            raise QueryError(f"{path}, line {number}: {error}") from error


def _usable(values: Iterable[object], left_out: Counter[str]) -> Iterator[Query]:
    """Yield the usable queries of a data set; count values without a text, and empty or too long queries.

    Unlike a user's own file, a public data set is not going to be mended.
    """
    for value in values:
        if not isinstance(value, str):
            left_out["no text"] += 1
            continue
        query = parse_query(value)
        if not query.text:
            left_out["asks for nothing"] += 1
        elif too_long(query):
            left_out["too long"] += 1
        else:
            yield query


def _rows(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and value of each query of a text file.

    Lines end at line feeds alone: JSON strings and quoted CSV cells may hold any other separator.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"cannot read {path}: {error}") from error
    if path.suffix == ".csv":
        yield from _csv_rows(path, text)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        if path.suffix == ".jsonl":
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # also a number of thousands of digits, a deep nest
                raise QueryError(f"{path}, line {number}: not JSON ({error})") from error
            yield number, row if isinstance(row, str) else _field(row, path, number)
        else:
            yield number, line


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and value of each query of a CSV file; the first row names the columns."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            yield reader.line_num, _field(row, path, reader.line_num)
    except csv.Error as error:
        raise QueryError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _field(row: object, path: Path, number: int) -> str:
    """Return the query of a row. Raises ``QueryError`` for a row without a text under one of ``COLUMNS``."""
    if isinstance(row, dict):
        for name in COLUMNS:
            if isinstance(row.get(name), str):
                return str(row[name])
    raise QueryError(f"{path}, line {number}: no text under {_listed(COLUMNS)}")


def _listed(names: Iterable[str]) -> str:
    """Return names as ``'a', 'b' or 'c'``."""
    *most, last = (repr(name) for name in names)
    return f"{', '.join(most)} or {last}" if most else last


def _parquet(path: Path) -> Iterator[object]:
    """Yield the values of the query column of a Parquet file, batch by batch."""
    with importing("reading Parquet"):
        import pyarrow.lib
        import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            column = _column(file.schema_arrow.names, None, str(path))
            for batch in file.iter_batches(columns=[column]):
                yield from batch.column(0).to_pylist()
    except (OSError, pyarrow.lib.ArrowException) as error:
        raise QueryError(f"cannot read {path}: {error}") from error


def _hub(source: str) -> Iterable[object]:
    """Return the values of a column of a data set of the hub.

    The data set is downloaded whole, once, and read from the disk from then on.
    """
    parts = _HUB.fullmatch(source)
    if parts is None:
        raise QueryError(f"cannot read the source {source!r}: write hub:OWNER/NAME[:SPLIT][#COLUMN]")
    with importing("reading data sets of the hub"):
        import datasets
        import datasets.exceptions
    name, split = parts["name"], parts["split"] or "train"
    try:
        table: Any = datasets.load_dataset(name, split=split)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        # No network, no such data set or split, a set that is a script, unreadable files. A generation error says no
        # more than that there was one: its cause has the reason.
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        reason = " ".join(str(cause or error).split())
        advice = "; give it as a file (.parquet, .jsonl, .csv, .txt)" if "scripts are no longer" in reason else ""
        raise QueryError(
            f"cannot get the data set {name!r} (split {split!r}) from the hub: {reason[:300]}{advice}"
        ) from error
    values: Iterable[object] = table[_column(table.column_names, parts["column"], source)]
    return values


def _column(known: Iterable[str], wanted: str | None, source: str) -> str:
    """Return the column that holds the queries: the wanted one, or the first of ``COLUMNS``.

    Raises ``QueryError`` for a source without it.
    """
    known = list(known)
    if wanted is not None and wanted not in known:
        raise QueryError(f"{source} has no column {wanted!r}{did_you_mean(wanted, known)}")
    found = wanted or next((name for name in COLUMNS if name in known), None)
    if found is None:
        raise QueryError(f"{source} has no column {_listed(COLUMNS)}{did_you_mean(COLUMNS[0], known)}")
    return found
