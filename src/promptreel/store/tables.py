"""Tables of the run database.

Content tables (queries, clips, scores, completions, verdicts) are keyed by content id and shared by all runs in the
database. All other tables belong to a run and have a ``run`` column.
"""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

migrations = Table("migrations", metadata, Column("name", String, primary_key=True))

# Content, shared between runs

queries = Table(
    "queries",
    metadata,
    Column("id", String(64), primary_key=True, doc="Of everything typed; other tables name a query by it."),
    Column("text", Text, nullable=False),
    Column("negative", Text, nullable=False),
    Column("options", JSON),
    Column("attachments", JSON),
)
clips = Table(
    "clips",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("generator", Text, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("negative", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("aspect", String, doc="Ratio asked for, as 16:9; empty for the model's default."),
    Column("fps", Float),
    Column("failure", String, doc="Reason, when there is no clip; null when there is one."),
    Column("detail", Text),
    Column("batch", String(64), nullable=False, doc="Id of the batch that it was rendered in."),
)
render_batches = Table(
    "render_batches",
    metadata,
    Column("batch", String(64), primary_key=True, doc="Of the clips in it, whose pixels may depend on each other."),
    Column("place", Integer, primary_key=True),
    Column("clip", String(64), nullable=False),
)
scores = Table(
    "scores",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("clip", String(64), nullable=False, index=True),
    Column("query", String(64), nullable=False),
    Column("reward", Text, nullable=False),
    Column("scores", JSON(none_as_null=True), doc="Dimension to value; null if the reward model failed."),
    Column("detail", Text, doc="Reason of the failure."),
    Column("explanation", Text, doc="Description of the clip, by reward models that give one."),
)
completions = Table(
    "completions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("llm", Text, nullable=False),
    Column("text", Text),
    Column("failure", String, doc="Reason, when there is no completion."),
    Column("detail", Text),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("cost", Float, nullable=False),
)
verdicts = Table(
    "verdicts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("judge", Text, nullable=False),
    Column("query", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("verdict", JSON(none_as_null=True), doc="Null when the judge could not tell."),
)

# Owned by a run

runs = Table(
    "runs",
    metadata,
    Column("id", String, primary_key=True),
    Column("environments", JSON, nullable=False, doc="Versions and threads it was begun and continued with."),
)
batches = Table(
    "batches",
    metadata,
    Column("run", String, primary_key=True),
    Column("step", String, primary_key=True),
    Column("kind", String, primary_key=True, doc="complete, judge, render, or score NAME."),
    Column("number", Integer, primary_key=True),
    Column("part", String, primary_key=True, doc="Path of halvings, as 0 and 1; empty for the whole batch."),
    Column("halved", String, doc="Reason for which it could not be done whole."),
    Column("done", Boolean, nullable=False),
    Column("cached", Boolean, nullable=False, doc="True if every result was stored already, by another run."),
)
batch_items = Table(
    "batch_items",
    metadata,
    Column("run", String, primary_key=True),
    Column("kind", String, primary_key=True),
    Column("item", String(64), primary_key=True, doc="Content id of the result."),
    Column("step", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("place", Integer, nullable=False),
    Index("batch_items_by_step", "run", "step", "kind", "number"),
)
candidates = Table(
    "candidates",
    metadata,
    Column("run", String, primary_key=True),
    Column("stage", String, primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("position", Integer, nullable=False, doc="Order within the stage."),
    Column("query", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("verdict", JSON(none_as_null=True)),
    Column("tokens", Integer),
    Column("fits", Boolean, nullable=False),
    Column("rejected", String, doc="Reason for which the policy did not accept it; null when it did."),
    Column("withheld", String),
    Column("clips", JSON, nullable=False, doc="One by one: generator, fidelity, seed index, clip or failure, scores."),
    Column("reward", Float, doc="Value of the stage's objective; null when it was not rendered."),
)
pairs = Table(
    "pairs",
    metadata,
    Column("run", String, primary_key=True),
    Column("stage", String, primary_key=True),
    Column("position", Integer, primary_key=True, doc="Order within the stage."),
    Column("query", String(64), nullable=False),
    Column("chosen", Text, nullable=False),
    Column("rejected", Text, nullable=False),
    Column("rule", String, nullable=False),
    Column("margin", Float, nullable=False),
)
evaluations = Table(
    "evaluations",
    metadata,
    Column("run", String, primary_key=True),
    Column("benchmark", String, primary_key=True),
    Column("system", String, primary_key=True),
    Column("query", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
    Column("candidate", JSON, nullable=False, doc="The system's prompt for the query, with its clips."),
)
stages = Table(
    "stages",
    metadata,
    Column("run", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("state", String, nullable=False, doc="running or done"),
    Column("seconds", Float, nullable=False),
    Column("output", JSON, nullable=False),
)
failures = Table(
    "failures",
    metadata,
    Column("run", String, primary_key=True),
    Column("stage", String, primary_key=True),
    Column("reason", String, primary_key=True),
    Column("count", Integer, nullable=False),
)
