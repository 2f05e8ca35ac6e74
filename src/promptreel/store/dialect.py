"""The SQL dialect: everything that depends on the kind of database. Today that is SQLite."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects.sqlite import insert

from promptreel.errors import UserError

BUSY_SECONDS = 10
"""Time to wait for another program that holds the database."""
LOOKUP = 500
"""Values in one ``IN`` clause. SQLite's own limit on parameters is 999 in old builds."""

FULL_WORDS = ("no space left on device", "database or disk is full", "disk quota exceeded")
"""Messages of a full disk from libraries that pass on no error number: SQLite, and the writer of safetensors."""
HELD_WORDS = ("locked",)
WRITES = "writes"
"""Execution option of connections whose transactions write, whatever they do first."""
DAMAGED_WORDS = ("malformed", "not a database")


def connect(url: str, writable: bool = True) -> Engine:
    """Return an engine for a database URL. Raises ``UserError`` for a kind of database that is not supported."""
    kind = make_url(url).get_backend_name()
    if kind != "sqlite":
        raise UserError(f"a database of kind {kind!r} is not supported: give a URL that begins with sqlite:///")
    if writable:
        engine = create_engine(url, json_serializer=_compact)
    else:
        file = Path(make_url(url).database or "").absolute()
        engine = create_engine(url, json_serializer=_compact, creator=lambda: _open_to_read(file))
    event.listen(engine, "connect", _configure if writable else _configure_to_read)
    event.listen(engine, "begin", _begin)
    return engine


def absolute(url: str) -> str:
    """Return the URL of a database with an absolute path, which means the same from every directory."""
    parsed = make_url(url)
    if not parsed.database or parsed.database == ":memory:":
        return url
    return parsed.set(database=str(Path(parsed.database).absolute())).render_as_string(hide_password=False)


def folder_of(url: str) -> Path:
    """Return the folder of a database's file. Raises ``UserError`` for a database that is no file."""
    database = make_url(url).database
    if not database or database == ":memory:":
        raise UserError(f"{url!r} is no database file: name a clip store for its runs, too")
    return Path(database).parent


def insert_missing(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; a row whose key exists already is kept as it is."""
    if rows:
        connection.execute(insert(table).on_conflict_do_nothing(), list(rows))


def insert_or_replace(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows; the columns given replace those of a row whose key exists already."""
    if rows:
        keys = [column.name for column in table.primary_key]
        statement = insert(table)
        changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), list(rows))


def flaw(connection: Connection) -> str | None:
    """Return the first damage that the database finds in its file, or ``None``."""
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    return None if said == "ok" else str(said)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would leave changes of tables outside of transactions
    for setting in (f"busy_timeout={BUSY_SECONDS * 1000}", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {setting}").close()
    _keep_log(connection)


def _keep_log(connection: Any) -> None:
    """Have the database write ahead into a log. SQLite does not wait here for another process that does the same."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if not any(said in str(error) for said in HELD_WORDS) or time.monotonic() > end:
                raise
        time.sleep(0.01)


def _open_to_read(file: Path) -> sqlite3.Connection:
    """Open a file without changing it: a connection that may write tidies up as it closes, even if it wrote nothing.

    Without a write-ahead log beside the file no process has it open to write; a log is not made then, either.
    """
    settled = not file.with_name(f"{file.name}-wal").exists()
    address = f"{file.as_uri()}?mode=ro{'&immutable=1' if settled else ''}"
    return sqlite3.connect(address, uri=True, check_same_thread=False)


def _configure_to_read(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    for setting in (f"busy_timeout={BUSY_SECONDS * 1000}", "query_only=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _begin(connection: Connection) -> None:
    """Begin a transaction; one that reads before it writes takes the lock for writing first (``WRITES``)."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN")
