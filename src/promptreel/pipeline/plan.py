"""What a recipe will ask for, stage by stage, at most: known before anything is loaded or a directory is touched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from promptreel import queries, registry
from promptreel.config import CritiqueStage, EvaluateStage, EvolveStage, QueriesTable, Recipe, SampleStage, SystemTable
from promptreel.errors import QueryError, UnknownName


@dataclass(frozen=True)
class Planned:
    """One stage. Numbers are upper bounds: the gate, repetitions and what is in the cache save some."""

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    queries: int | None = 0
    """``None``, as for the others, where nobody can say without fetching or reading what is not there."""
    replies: int | None = 0
    """Prompts that language models write."""
    verdicts: int | None = 0
    """Texts that the judge reads."""
    renders: int | None = 0

    def __add__(self, other: Planned) -> Planned:
        sums = (_sum(getattr(self, name), getattr(other, name)) for name in NUMBERS)
        return Planned(self.name, self.kind, self.inputs, *sums)


NUMBERS = ("queries", "replies", "verdicts", "renders")


def _sum(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else a + b


def plan(recipe: Recipe, until: str | None = None) -> tuple[list[Planned], list[str]]:
    """Every stage of a recipe in order, the last one ``until``, and what is wrong with their queries, one line each.

    Files of queries are read, named data sets and those of the hub are not: where a recipe takes all of one, the
    number stays open.
    """
    problems: dict[str, None] = {}
    counted: dict[str, int | None] = {}

    def count(table: QueriesTable) -> int | None:
        key = table.model_dump_json()
        if key not in counted:
            try:
                counted[key] = _count(table)
            except (QueryError, UnknownName) as error:
                counted[key] = table.take
                problems[str(error)] = None
        return counted[key]

    names = [stage.name for stage in recipe.stage]
    stages = recipe.stage[: names.index(until) + 1 if until else None]
    return [planned(stage, count, recipe.systems) for stage in stages], list(problems)


def _count(table: QueriesTable) -> int | None:
    named = registry.names("dataset")
    if table.source in named or table.source.startswith("hub:"):
        return table.take
    if not Path(table.source).exists() and not Path(table.source).suffix:
        raise UnknownName("data set", table.source, named)
    found = queries.read(table.source, table.skip, table.take, {}, near=table.near, split=table.split)
    return len(found)


def planned(stage: object, count: Callable[[QueriesTable], int | None], systems: Mapping[str, SystemTable]) -> Planned:
    """What one stage asks for at most. ``count`` says how many queries a table gives, ``systems`` how often those of a
    recipe draw.
    """
    of = getattr(stage, "name", ""), getattr(stage, "kind", ""), tuple(getattr(stage, "inputs", ()))
    if isinstance(stage, EvaluateStage):
        names = [*stage.systems, *([stage.ceiling] if stage.ceiling else [])]
        tries = [systems[name].attempts if name in systems else 1 for name in names if name != "raw"]
        checked = sum(attempts for attempts in tries if attempts > 1)
        tables = stage.benchmarks.values()
        parts = [
            Planned(*of, *_times(count(t.queries), 1, sum(tries), len(names) + checked, len(names) * t.seeds))
            for t in tables
        ]
        return sum(parts, Planned(*of))
    if isinstance(stage, EvolveStage):
        children = stage.rounds * stage.children
        tried = 1 + children
        return Planned(*of, *_times(count(stage.queries), 1, children, tried, tried * stage.seeds))
    if isinstance(stage, SampleStage):
        drawn = stage.candidates
        return Planned(*of, *_times(count(stage.queries), 1, drawn, drawn, drawn * stage.seeds))
    if isinstance(stage, CritiqueStage):
        drafts = stage.candidates * (1 + stage.rounds)
        return Planned(*of, *_times(count(stage.queries), 1, drafts, drafts, 0))
    return Planned(*of)


def _times(number: int | None, *each: int) -> list[int | None]:
    """So many queries, with so much of everything for each; none of something is none, whatever the number."""
    return [None if number is None and of_one else (number or 0) * of_one for of_one in each]
