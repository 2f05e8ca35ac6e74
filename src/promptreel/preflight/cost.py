"""The cost of a recipe, stage by stage, at most: known before anything is loaded or a directory is touched."""

from __future__ import annotations

from pathlib import Path

from promptreel import queries, registry
from promptreel.config import QueriesTable, Recipe
from promptreel.errors import QueryError, UnknownName
from promptreel.stages import KINDS, Cost


def costs(recipe: Recipe, until: str | None = None) -> tuple[list[Cost], list[str]]:
    """Return the cost of every stage in order, the last one ``until``, and the faults of their queries, one line each.

    Files of queries are read; named data sets and those of the hub are not: where a recipe takes all of one, the number
    stays unknown.
    """
    problems: dict[str, None] = {}
    counted: dict[str, int | None] = {}

    def count(table: QueriesTable) -> int | None:
        key = table.model_dump_json()
        if key not in counted:
            try:
                counted[key] = count_queries(table)
            except (QueryError, UnknownName) as error:
                counted[key] = table.take
                problems[str(error)] = None
        return counted[key]

    names = [stage.name for stage in recipe.stage]
    stages = recipe.stage[: names.index(until) + 1 if until else None]
    return [KINDS[stage.kind].cost(stage, recipe, count) for stage in stages], list(problems)


def count_queries(table: QueriesTable) -> int | None:
    """Return the number of queries in a slice; ``None`` for all of a data set, which is not read.

    Raises ``QueryError`` for a file that cannot be read or is too short, and ``UnknownName`` for an unknown data set.
    """
    if not Path(table.source).is_file():
        named = registry.names("dataset")
        if table.source in named or table.source.startswith("hub:"):
            return table.take
        if not Path(table.source).exists() and not Path(table.source).suffix:
            raise UnknownName("data set", table.source, named)
    return len(queries.read(table.source, table.skip, table.take, {}, near=table.near, split=table.split))
