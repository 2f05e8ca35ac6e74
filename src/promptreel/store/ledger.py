"""A run's ledger of batches: the only thing, beside the recipe, that its batches are planned from.

An item belongs to the step of the run that planned it first. If another step needs it before it is stored, since the
first one was stopped, it goes over to that step. A plan is written with the first result of its step, so that a step
killed before has planned nothing, and one killed later finds its batches as they were.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, func, select

from promptreel.store import dialect
from promptreel.store.content import Content
from promptreel.store.database import Database, add_queries, among
from promptreel.store.tables import batch_items, batches, render_batches
from promptreel.types import Failure


@dataclass(frozen=True)
class Batch:
    """One planned batch, or a part of one that was halved."""

    number: int
    ids: tuple[str, ...]
    """Content ids of its results, in order."""
    part: str = ""
    """Path of halvings, as 0 and 1; empty for the whole batch."""

    @property
    def halves(self) -> tuple[Batch, Batch]:
        middle = len(self.ids) // 2
        return (
            Batch(self.number, self.ids[:middle], f"{self.part}0"),
            Batch(self.number, self.ids[middle:], f"{self.part}1"),
        )


class Kind(Protocol):
    """A kind of work in a step, as the ledger knows it."""

    kind: str
    """``complete``, ``judge``, ``render`` or ``score NAME``."""
    content: type[Content]
    fingerprint: str
    """Fingerprint of the component that does it."""
    size: int
    """Items in a batch at most."""


@dataclass
class Plan:
    """The batches of one kind of work in one step."""

    step: str
    work: Kind
    batches: tuple[Batch, ...]
    known: dict[str, Any]
    """Results that are stored already, by id, also those that other steps and runs have stored."""
    left: list[Batch]
    """Batches, and parts of halved ones, with a result that is not stored yet."""
    unwritten: tuple[Batch, ...] = ()
    """Batches that are not in the ledger yet."""
    retried: frozenset[str] = frozenset()
    """Ids of results that another run stored as failures of its server or machine, and that are asked for again."""


def _parts(batch: Batch, halved: Container[tuple[int, str]], known: Container[str]) -> Iterator[Batch]:
    """Yield a batch, or the parts that it was halved into, without those whose results are all known."""
    if (batch.number, batch.part) in halved:
        for half in batch.halves:
            yield from _parts(half, halved, known)
    elif any(key not in known for key in batch.ids):
        yield batch


def _retryable(result: Any) -> bool:
    return isinstance(result, Failure) and result.retryable


class Ledger:
    """The ledger of one run."""

    def __init__(self, database: Database, run: str) -> None:
        self.database, self.run = database, run

    def plan(self, step: str, work: Kind, ids: Sequence[str]) -> Plan:
        """Plan the batches of a kind of work in a step, in the order of the ids.

        Items that another step of this run has planned and stored are left out. Items that this step has planned before
        stay in their batches.
        """
        size = work.size
        mine = batch_items.c.run == self.run, batch_items.c.kind == work.kind
        with self.database.reading() as connection:
            rows = {row.item: row for row in among(connection, batch_items, batch_items.c.item, ids, *mine)}
            own: dict[int, list[Any]] = {}
            for row in rows.values():
                if row.step == step:
                    own.setdefault(row.number, []).append(row)
            written = tuple(
                Batch(number, tuple(row.item for row in sorted(own[number], key=lambda row: row.place)))
                for number in sorted(own)
            )
            halved = self._halved(connection, step, work.kind) if written else set[tuple[int, str]]()
            known = work.content.read(connection, ids)
            retried = frozenset(key for key, result in known.items() if key not in rows and _retryable(result))
            known = {key: result for key, result in known.items() if key not in retried}
            owned = {key for key, row in rows.items() if row.step == step or key in known}
            new = list(dict.fromkeys(key for key in ids if key not in owned))
            top = select(func.max(batch_items.c.number)).where(*mine, batch_items.c.step == step)
            highest = connection.scalar(top) if new else None
        first = 0 if highest is None else highest + 1
        unwritten = tuple(Batch(first + at // size, tuple(new[at : at + size])) for at in range(0, len(new), size))
        planned = written + unwritten
        left = [part for batch in planned for part in _parts(batch, halved, known)]
        return Plan(step, work, planned, known, left, unwritten, retried)

    def _halved(self, connection: Connection, step: str, kind: str) -> set[tuple[int, str]]:
        own = batches.c.run == self.run, batches.c.step == step, batches.c.kind == kind
        found = connection.execute(select(batches).where(*own, batches.c.halved.is_not(None)))
        return {(row.number, row.part) for row in found}

    def commit(
        self,
        plan: Plan,
        batch: Batch | None = None,
        items: Sequence[Any] = (),
        results: Sequence[Any] = (),
        halved: Mapping[Batch, str] | None = None,
    ) -> None:
        """Store the results of a batch whole, with its entry, and the plan if it is not written yet.

        The plan then knows the results as they are stored: a result that was stored before stays as it was.
        ``halved`` are the batches that could not be done whole on the way, with the reasons. Without a batch, only the
        plan is written: everything in it was found.
        """
        if batch is None and not plan.unwritten:
            return
        content = plan.work.content
        with self.database.writing() as connection:
            self._write_plan(connection, plan)
            for part, reason in (halved or {}).items():
                entry = self._entry(plan, part, halved=reason)
                dialect.insert_or_replace(connection, batches, [entry])
            if batch is not None:
                add_queries(connection, content.queries(items))
                rows = content.rows(plan.work.fingerprint, batch.ids, items, results)
                dialect.insert_missing(connection, content.table, [r for r in rows if r["id"] not in plan.retried])
                dialect.insert_or_replace(connection, content.table, [r for r in rows if r["id"] in plan.retried])
                dialect.insert_missing(connection, render_batches, content.batch_rows(batch.ids))
                dialect.insert_or_replace(connection, batches, [self._entry(plan, batch, done=True)])
                plan.known |= content.read(connection, batch.ids)
        plan.unwritten = ()

    def _write_plan(self, connection: Connection, plan: Plan) -> None:
        items, entries = [], []
        for batch in plan.unwritten:
            cached = all(key in plan.known for key in batch.ids)
            entries.append(self._entry(plan, batch, done=cached, cached=cached))
            for place, key in enumerate(batch.ids):
                owner = {"run": self.run, "kind": plan.work.kind, "item": key, "step": plan.step}
                items.append({**owner, "number": batch.number, "place": place})
        dialect.insert_or_replace(connection, batch_items, items)
        dialect.insert_missing(connection, batches, entries)

    def _entry(
        self, plan: Plan, batch: Batch, done: bool = False, cached: bool = False, halved: str | None = None
    ) -> dict[str, Any]:
        key = {"run": self.run, "step": plan.step, "kind": plan.work.kind, "number": batch.number, "part": batch.part}
        return {**key, "halved": halved, "done": done, "cached": cached}
