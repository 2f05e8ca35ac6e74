"""A database: connections, transactions, and the content that all runs in it share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, select

from promptreel.errors import RunError
from promptreel.store import dialect
from promptreel.store.migrations import layout, migrate
from promptreel.store.tables import queries
from promptreel.types import Attachment, Query


class Database:
    """One database, by URL. ``writable=False`` opens it to look at: nothing in it changes, not even its layout."""

    def __init__(self, url: str, writable: bool = True) -> None:
        self.engine = dialect.connect(url, writable)
        with self.reading() as connection:
            found = layout(connection)
        self.new = found.empty
        """True if there was nothing in it before."""
        if found.missing and not writable:
            lacking = found.missing[0].__name__
            raise RunError(f"the database lacks the migration {lacking}: go on with the run to have it applied")
        if found.missing:
            with self.engine.execution_options(**{dialect.WRITES: True}).begin() as connection:
                migrate(connection)

    def flaw(self) -> str | None:
        """Return the first damage in the database's file, or ``None``."""
        with self.reading() as connection:
            return dialect.flaw(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection to read by, in one transaction."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction, committed when the block ends well."""
        with self.engine.begin() as connection:
            yield connection

    def add(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows in a transaction of their own; a row whose key exists already is kept."""
        if rows:
            with self.writing() as connection:
                dialect.insert_missing(connection, table, rows)

    def close(self) -> None:
        self.engine.dispose()


def among(
    connection: Connection, table: Table, column: ColumnElement[Any], values: Iterable[str], *where: ColumnElement[bool]
) -> list[Row[Any]]:
    """Return the rows of a table whose column has one of many values."""
    wanted = list(dict.fromkeys(values))
    rows: list[Row[Any]] = []
    for at in range(0, len(wanted), dialect.LOOKUP):
        statement = select(table).where(column.in_(wanted[at : at + dialect.LOOKUP]), *where)
        rows += connection.execute(statement).all()
    return rows


def add_queries(connection: Connection, items: Iterable[Query]) -> None:
    """Store queries, each once."""
    rows = {
        query.row_id: {
            "id": query.row_id,
            "text": query.text,
            "negative": query.negative,
            "options": query.options,
            "attachments": [[a.role, a.sha256, a.uri] for a in query.attachments],
        }
        for query in items
    }
    dialect.insert_missing(connection, queries, list(rows.values()))


def read_queries(connection: Connection, ids: Iterable[str]) -> dict[str, Query]:
    """Return queries by the ids of their rows."""
    return {
        row.id: Query(
            row.text,
            row.negative,
            tuple((name, value) for name, value in row.options or []),
            tuple(Attachment(*attachment) for attachment in row.attachments or []),
        )
        for row in among(connection, queries, queries.c.id, ids)
    }
