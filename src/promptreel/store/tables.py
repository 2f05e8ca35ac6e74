"""What the run database holds, table by table, and how an older one is brought up to date.

Everything is keyed by content id. Rows carry their *origin*, the step of the run that made them
(``evolve/2``): a step plans its batches without what earlier steps have, and with everything of its own,
so that a resumed run computes the very same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import JSON, Column, Connection, Float, Integer, MetaData, String, Table, Text, inspect, select

from promptreel.errors import RunError

metadata = MetaData()

meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", Text, nullable=False))
queries = Table(
    "queries",
    metadata,
    Column("id", String(64), primary_key=True, doc="Of all that was typed; other tables name a query by it."),
    Column("text", Text, nullable=False),
    Column("negative", Text, nullable=False),
    Column("options", JSON),
)
clips = Table(
    "clips",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("generator", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("negative", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("aspect", String, doc="Ratio asked for, as 16:9; empty or null for the model's own."),
    Column("fps", Float),
    Column("failure", String, doc="Reason, when there is no clip; null when there is one."),
    Column("detail", Text),
    Column("batch", String(64), nullable=False, index=True, doc="What was rendered together, in order of place."),
    Column("place", Integer, nullable=False),
    Column("origin", String, nullable=False, index=True),
)
halved = Table(
    "halved",
    metadata,
    Column("batch", String(64), primary_key=True, doc="A batch that could not be done whole."),
    Column("reason", String, nullable=False),
)
scores = Table(
    "scores",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("clip", String(64), nullable=False, index=True),
    Column("query", String(64), nullable=False, index=True),
    Column("reward", Text, nullable=False),
    Column("dimensions", JSON(none_as_null=True), doc="Dimension to value; null if the reward failed."),
    Column("detail", Text, doc="Why it failed."),
    Column("origin", String, nullable=False, index=True),
)
replies = Table(
    "replies",
    metadata,
    Column("id", String(64), primary_key=True, doc="Of the whole batch: model, conversations, sampling."),
    Column("llm", Text, nullable=False),
    Column("replies", JSON, nullable=False),
    Column("read", Integer, nullable=False, doc="Tokens."),
    Column("written", Integer, nullable=False, doc="Tokens."),
    Column("cost", Float, nullable=False),
    Column("origin", String, nullable=False, index=True),
)
verdicts = Table(
    "verdicts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("judge", Text, nullable=False),
    Column("query", String(64), nullable=False, index=True),
    Column("rewrite", Text, nullable=False),
    Column("verdict", JSON(none_as_null=True), doc="Null when the judge could not tell."),
    Column("origin", String, nullable=False, index=True),
)
rewrites = Table(
    "rewrites",
    metadata,
    Column("stage", String, primary_key=True),
    Column("query", String(64), primary_key=True),
    Column("rewrite", Text, primary_key=True),
    Column("position", Integer, nullable=False, doc="Order within the stage."),
    Column("round", Integer, nullable=False),
    Column("total", Float, doc="The stage's blend of its scores; null when it was not rendered."),
    Column("dropped", String, doc="Why it went no further; null when it did."),
    Column("dimensions", JSON),
)
pairs = Table(
    "pairs",
    metadata,
    Column("stage", String, primary_key=True),
    Column("query", String(64), primary_key=True),
    Column("chosen", Text, primary_key=True),
    Column("rejected", Text, primary_key=True),
    Column("position", Integer, nullable=False, doc="Order within the stage."),
    Column("rule", String, nullable=False),
    Column("margin", Float, nullable=False),
)
evaluations = Table(
    "evaluations",
    metadata,
    Column("benchmark", String, primary_key=True),
    Column("system", String, primary_key=True),
    Column("query", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("row", JSON, nullable=False, doc="What the system did with the query."),
)
stages = Table(
    "stages",
    metadata,
    Column("name", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False, doc="running or done"),
    Column("seconds", Float, nullable=False),
    Column("output", JSON, nullable=False),
)
losses = Table(
    "losses",
    metadata,
    Column("origin", String, primary_key=True),
    Column("reason", String, primary_key=True),
    Column("count", Integer, nullable=False),
)


def _keep_details(connection: Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE scores ADD COLUMN detail TEXT")
    connection.exec_driver_sql("ALTER TABLE queries ADD COLUMN options JSON")
    connection.exec_driver_sql("ALTER TABLE clips ADD COLUMN aspect VARCHAR")


MIGRATIONS: list[Callable[[Connection], None]] = [_keep_details]
"""What brings an older database up to date, in order, append-only. The first leads from version 1 to 2."""
VERSION = 1 + len(MIGRATIONS)


def migrate(connection: Connection) -> int:
    """Create the tables, or change those of an older version; the version that was there, 0 for none.

    Raises ``RunError`` for a database of a newer version.
    """
    version = 0
    if inspect(connection).has_table("meta"):
        version = int(connection.scalar(select(meta.c.value).where(meta.c.key == "version")) or 0)
    if version > VERSION:
        raise RunError(
            f"the run database has version {version}, this promptreel knows up to {VERSION}: "
            "use the newer promptreel that made it"
        )
    if version == 0:
        metadata.create_all(connection)
    for migration in MIGRATIONS[version - 1 :] if version else []:
        migration(connection)
    return version
