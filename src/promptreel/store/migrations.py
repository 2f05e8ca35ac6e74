"""Migrations of the database: named, numbered, append-only."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, inspect, select

from promptreel.errors import RunError
from promptreel.store import dialect
from promptreel.store.tables import metadata, migrations


def m001_tables(connection: Connection) -> None:
    """Create the tables of version 0.1."""
    metadata.create_all(connection)


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (m001_tables,)
"""All migrations, in order. A released one is never changed; a new one is appended."""
NAMES = tuple(migration.__name__ for migration in MIGRATIONS)


def migrate(connection: Connection, change: bool = True) -> bool:
    """Apply the migrations that a database lacks; return True if it was empty before.

    With ``change`` False, nothing is written. Raises ``RunError`` for a database of another layout: an older one that
    may not be changed here, one of a newer version, or one from before migrations had names.
    """
    tables = inspect(connection).get_table_names()
    if tables and migrations.name not in tables:
        raise RunError(
            "the database was made by a promptreel before 0.1 and has another layout: begin a new run with another "
            "--out, or delete it if it is a cache"
        )
    applied = set(connection.scalars(select(migrations.c.name))) if tables else set()
    if unknown := sorted(applied - set(NAMES)):
        raise RunError(f"the database has the migration {unknown[-1]}, made by a newer promptreel: use that one")
    missing = [migration for migration in MIGRATIONS if migration.__name__ not in applied]
    if missing and not change:
        raise RunError(f"the database lacks the migration {missing[0].__name__}: go on with the run to have it applied")
    for migration in missing:
        migration(connection)
        dialect.insert_missing(connection, migrations, [{"name": migration.__name__}])
    return not tables
