"""Reading many queries: files (text, JSONL, CSV, Parquet), data sets of the hub, and those that come by name."""

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

from promptreel.errors import QueryError, UnknownName, did_you_mean, importing
from promptreel.queries.likeness import Likeness, split_of
from promptreel.queries.parse import ask_for, parse_query, too_long
from promptreel.types import Query

COLUMNS = ("query", "prompt", "text")
"""Where a row of a table has its query, unless it is said; the first that it has."""
_HUB = re.compile(r"hub:(?P<name>[\w.-]+/[\w.-]+)(?::(?P<split>[^#]+))?(?:#(?P<column>.+))?")

Named = Mapping[str, Callable[[], Iterable[Query]]]


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
    """A slice of a source: of a file, of ``hub:OWNER/NAME[:SPLIT][#COLUMN]``, or of a data set in ``named``.

    Exact duplicates are left out; with ``near`` (0..1] also what is that similar to an earlier query; with ``split``
    (``train``, ``dev``, ``test``) what belongs to another part. ``left_out`` counts under its reason every query
    that was read and left out. Raises ``QueryError`` when the source has fewer than asked for, or nothing.
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
    seen: set[str] = set()
    likeness = Likeness(near) if near else None
    for query in queries:
        if query.id in seen:
            left_out["duplicate"] += 1
        elif likeness and likeness.known(query):
            left_out["near-duplicate"] += 1
        elif split and split_of(query) != split:
            left_out["other split"] += 1
        else:
            yield query
        seen.add(query.id)


def _source(source: str, named: Named, endless: bool, left_out: Counter[str]) -> Iterable[Query]:
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
    """Queries of a file: one a line (``.txt``), a ``query``, ``prompt`` or ``text`` field (``.jsonl``, ``.csv``,
    ``.parquet``).

    Blank lines are skipped. Raises ``QueryError`` that names the line, also for one that has no text or asks for
    nothing.
    """
    for number, value in enumerate(_parquet(path), 1) if path.suffix == ".parquet" else _rows(path):
        try:
            if not isinstance(value, str):
                raise QueryError(f"{value!r} is no text")
            yield ask_for(value)
        except QueryError as error:
            raise QueryError(f"{path}, line {number}: {error}") from error


def _usable(values: Iterable[object], left_out: Counter[str]) -> Iterator[Query]:
    """The queries of a data set that nobody will mend: what is no text, asks for nothing, or never ends is counted
    instead.
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
    """Line number and value of each query of a text file. Lines end at line feeds alone: JSON strings and quoted
    CSV cells may hold any other separator.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"cannot read {path}: {error}") from error
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        try:
            for row in reader:
                yield reader.line_num, _field(row, path, reader.line_num)
        except csv.Error as error:
            raise QueryError(f"{path}, line {reader.line_num}: not CSV ({error})") from error
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


def _field(row: object, path: Path, number: int) -> str:
    if isinstance(row, dict):
        for name in COLUMNS:
            if isinstance(row.get(name), str):
                return str(row[name])
    raise QueryError(f"{path}, line {number}: no text under {_listed(COLUMNS)}")


def _listed(names: Iterable[str]) -> str:
    *most, last = (repr(name) for name in names)
    return f"{', '.join(most)} or {last}" if most else last


def _parquet(path: Path) -> Iterator[object]:
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
    """The values of a column of a data set of the hub. It is downloaded whole, once, and then read from the disk."""
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
        # No network, no such data set or split, a set that is a script, files that cannot be read: that says no more.
        says = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else None
        reason = " ".join(str(says or error).split())
        advice = "; give it as a file (.parquet, .jsonl, .csv, .txt)" if "scripts are no longer" in reason else ""
        raise QueryError(
            f"cannot get the data set {name!r} (split {split!r}) from the hub: {reason[:300]}{advice}"
        ) from error
    values: Iterable[object] = table[_column(table.column_names, parts["column"], source)]
    return values


def _column(known: Iterable[str], wanted: str | None, where: str) -> str:
    known = list(known)
    if wanted is not None and wanted not in known:
        raise QueryError(f"{where} has no column {wanted!r}{did_you_mean(wanted, known)}")
    found = wanted or next((name for name in COLUMNS if name in known), None)
    if found is None:
        raise QueryError(f"{where} has no column {_listed(COLUMNS)}{did_you_mean(COLUMNS[0], known)}")
    return found
