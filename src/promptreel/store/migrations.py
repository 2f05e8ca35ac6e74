"""Migrations of the database: named, numbered, append-only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, inspect, select

from promptreel.errors import RunError
from promptreel.store import dialect
from promptreel.store.tables import metadata, migrations


def m001_tables(connection: Connection) -> None:
    """Create the tables of version 0.1. Before a second migration, its statements are written out here."""
    metadata.create_all(connection)


Migration = Callable[[Connection], None]
MIGRATIONS: tuple[Migration, ...] = (m001_tables,)
"""All migrations, in order. A released one is never changed; a new one is appended."""
NAMES = tuple(migration.__name__ for migration in MIGRATIONS)


@dataclass(frozen=True)
class Layout:
    """The layout of a database."""

    empty: bool
    """True if there is nothing in it."""
    missing: tuple[Migration, ...]
    """Migrations that it lacks, in order."""


def layout(connection: Connection) -> Layout:
    """Return the layout of a database.

    Raises ``RunError`` for one that a newer version made, or one from before migrations had names.
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
    return Layout(not tables, tuple(migration for migration in MIGRATIONS if migration.__name__ not in applied))


def migrate(connection: Connection) -> None:
    """Apply the migrations that a database lacks, in a transaction that holds its lock for writing."""
    for migration in layout(connection).missing:
        migration(connection)
        dialect.insert_missing(connection, migrations, [{"name": migration.__name__}])
