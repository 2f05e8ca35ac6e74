"""The run database: reading and writing what ``tables`` describes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Table, create_engine, event, func, literal, select
from sqlalchemy.dialects.sqlite import insert

from promptreel.store.tables import (
    VERSION,
    clips,
    evaluations,
    halved,
    losses,
    meta,
    migrate,
    pairs,
    queries,
    replies,
    rewrites,
    scores,
    stages,
    verdicts,
)
from promptreel.types import Failure, Pair, Query, RenderRequest, Reply, Scores, Verdict, content_id

BUSY_SECONDS = 10
"""How long to wait for another program that holds the database."""


class Database:
    """One SQLite database, by URL."""

    def __init__(self, url: str) -> None:
        self.engine: Engine = create_engine(url, json_serializer=_compact)
        event.listen(self.engine, "connect", _set_up)
        event.listen(self.engine, "begin", _begin)
        with self.engine.begin() as connection:
            version = migrate(connection)
            if version < VERSION:
                self._insert(connection, meta, [{"key": "version", "value": str(VERSION)}], replace=True)
        self.new = version == 0
        """Whether there was nothing before."""

    def flaw(self) -> str | None:
        """What is wrong with the file of the database; ``None`` when it is whole."""
        with self.engine.connect() as connection:
            said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        return None if said == "ok" else str(said)

    def _insert(
        self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], replace: bool = False
    ) -> None:
        """Insert rows; a row whose key is there already is kept, or replaced if asked."""
        if not rows:
            return
        statement = insert(table)
        keys = [column.name for column in table.primary_key]
        if replace:
            changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), rows)
        else:
            connection.execute(statement.on_conflict_do_nothing(), rows)

    def add(self, table: Table, rows: Sequence[Mapping[str, Any]], replace: bool = False) -> None:
        """Insert rows in one transaction."""
        with self.engine.begin() as connection:
            self._insert(connection, table, rows, replace)

    def environments(self) -> list[dict[str, str]]:
        """What the run was begun with (versions, threads), and what else it went on with, in order."""
        with self.engine.connect() as connection:
            stored = connection.scalar(select(meta.c.value).where(meta.c.key == "environments"))
        return json.loads(stored) if stored else []

    def note_environment(self, found: Mapping[str, str]) -> None:
        known = self.environments()
        if found not in known:
            self.add(meta, [{"key": "environments", "value": json.dumps([*known, dict(found)])}], replace=True)

    # Queries

    def add_queries(self, items: Iterable[Query]) -> None:
        rows = [{"id": _key(q), "text": q.text, "negative": q.negative, "options": q.options} for q in items]
        self.add(queries, rows)

    def query_texts(self) -> dict[str, Query]:
        with self.engine.connect() as connection:
            rows = connection.execute(select(queries)).all()
        return {row.id: Query(row.text, row.negative, tuple((k, v) for k, v in row.options or [])) for row in rows}

    # Clips

    def clips(self, ids: Iterable[str]) -> dict[str, tuple[str, Failure | None, float]]:
        """Origin, failure and fps of each of the clips that is stored."""
        return {
            row.id: (row.origin, Failure(row.failure, row.detail or "") if row.failure else None, row.fps or 0.0)
            for row in self._among(clips, clips.c.id, ids)
        }

    def add_clips(
        self,
        generator: str,
        results: Sequence[tuple[RenderRequest, float | Failure]],
        origin: str,
    ) -> None:
        """Store what a batch of renders gave: the fps of each clip, or its failure."""
        ids = [request.clip_id(generator) for request, _ in results]
        batch = content_id("rendered together", ids)
        rows = []
        for place, (request, result) in enumerate(results):
            failure = result if isinstance(result, Failure) else None
            rows.append(
                {
                    "id": ids[place],
                    "generator": generator,
                    "prompt": request.prompt,
                    "negative": request.negative,
                    "seed": request.seed,
                    "aspect": request.aspect,
                    "fps": None if failure else result,
                    "failure": failure.reason if failure else None,
                    "detail": failure.detail if failure else None,
                    "batch": batch,
                    "place": place,
                    "origin": origin,
                }
            )
        self.add(clips, rows)

    def batches_of(self, ids: Iterable[str]) -> list[list[RenderRequest]]:
        """The batches, each in order, that these clips were rendered in."""
        keys = sorted({row.batch for row in self._among(clips, clips.c.id, ids)})
        rows = sorted(self._among(clips, clips.c.batch, keys), key=lambda row: (row.batch, row.place))
        return [
            [RenderRequest(row.prompt, row.negative, row.seed, row.aspect or "") for row in group]
            for _, group in groupby(rows, key=lambda row: row.batch)
        ]

    def is_halved(self, batch: str) -> bool:
        with self.engine.connect() as connection:
            return connection.scalar(select(halved.c.batch).where(halved.c.batch == batch)) is not None

    def halve(self, batches: Mapping[str, str]) -> None:
        """Record for what reasons batches could not be done whole, so that they are not tried again."""
        self.add(halved, [{"batch": batch, "reason": reason} for batch, reason in batches.items()])

    # Scores

    def add_scores(self, reward: str, results: Iterable[tuple[str, str, Query, Scores | Failure]], origin: str) -> None:
        """Store a batch: id, clip, query and dimensions of each score, or why the reward failed."""
        rows = [
            {
                "id": key,
                "clip": clip,
                "query": _key(query),
                "reward": reward,
                "dimensions": None if isinstance(result, Failure) else dict(result),
                "detail": result.detail if isinstance(result, Failure) else None,
                "origin": origin,
            }
            for key, clip, query, result in results
        ]
        self.add(scores, rows)

    def scores(self, ids: Iterable[str]) -> dict[str, tuple[str, Scores | None]]:
        """Origin and dimensions of each of the scores that is stored."""
        return {row.id: (row.origin, row.dimensions) for row in self._among(scores, scores.c.id, ids)}

    # Replies

    def reply_batch(self, batch: str) -> list[Reply | Failure] | None:
        with self.engine.connect() as connection:
            stored = connection.scalar(select(replies.c.replies).where(replies.c.id == batch))
        if stored is None:
            return None
        return [Failure(**entry) if "reason" in entry else Reply(**entry) for entry in stored]

    def add_reply_batch(self, batch: str, llm: str, answers: Sequence[Reply | Failure], origin: str) -> None:
        """Store a batch whole, with what it took, also for replies that could not be used."""
        row = {
            "id": batch,
            "llm": llm,
            "replies": [asdict(answer) for answer in answers],
            "read": sum(answer.read for answer in answers),
            "written": sum(answer.written for answer in answers),
            "cost": sum(answer.cost for answer in answers),
            "origin": origin,
        }
        self.add(replies, [row])

    def usage(self, step: str) -> dict[str, float]:
        """Tokens read and written, and money spent, by a stage with all its steps."""
        columns = [func.coalesce(func.sum(replies.c[name]), 0) for name in ("read", "written", "cost")]
        with self.engine.connect() as connection:
            row = connection.execute(select(*columns).where(_made_by(replies, step))).one()
        return {"read": int(row[0]), "written": int(row[1]), "cost": float(row[2])}

    # Verdicts

    def add_verdicts(self, judge: str, results: Iterable[tuple[str, Query, str, Verdict | None]], origin: str) -> None:
        """Store a batch: id, query, rewrite and verdict of each; ``None`` where the judge could not tell."""
        rows = [
            {
                "id": key,
                "judge": judge,
                "query": _key(query),
                "rewrite": text,
                "verdict": verdict.to_json() if verdict else None,
                "origin": origin,
            }
            for key, query, text, verdict in results
        ]
        self.add(verdicts, rows)

    def verdicts(self, ids: Iterable[str]) -> dict[str, tuple[str, Verdict | None]]:
        return {
            row.id: (row.origin, None if row.verdict is None else Verdict.from_json(row.verdict))
            for row in self._among(verdicts, verdicts.c.id, ids)
        }

    # What stages made

    def add_rewrites(self, stage: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Store the candidates of a stage, in order: query, rewrite, round, total, dropped, dimensions."""
        numbered = [
            {"stage": stage, "position": position, **row, "query": _key(row["query"])}
            for position, row in enumerate(rows)
        ]
        self.add(rewrites, numbered)

    def rewrites(self, stage: str) -> list[tuple[Query, Any]]:
        """The candidates of a stage, in order, each with its query."""
        texts = self.query_texts()
        statement = select(rewrites).where(rewrites.c.stage == stage).order_by(rewrites.c.position)
        with self.engine.connect() as connection:
            return [(texts[row.query], row) for row in connection.execute(statement)]

    def add_pairs(self, stage: str, made: Sequence[Pair]) -> None:
        rows = [
            {
                "stage": stage,
                "position": position,
                "query": _key(pair.query),
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "rule": pair.rule,
                "margin": pair.margin,
            }
            for position, pair in enumerate(made)
        ]
        self.add(pairs, rows)

    def pairs(self, stage: str) -> list[Pair]:
        """The pairs of a stage, in order."""
        texts = self.query_texts()
        statement = select(pairs).where(pairs.c.stage == stage).order_by(pairs.c.position)
        with self.engine.connect() as connection:
            return [
                Pair(texts[row.query], row.chosen, row.rejected, row.rule, row.margin)
                for row in connection.execute(statement)
            ]

    # Evaluations

    def add_evaluation(self, benchmark: str, system: str, rows: Mapping[Query, Mapping[str, Any]]) -> None:
        """Store what a system did with the queries of a benchmark, in order."""
        numbered = [
            {"benchmark": benchmark, "system": system, "query": _key(query), "position": position, "row": dict(row)}
            for position, (query, row) in enumerate(rows.items())
        ]
        self.add(evaluations, numbered, replace=True)

    def evaluation(self, benchmark: str) -> dict[str, dict[Query, dict[str, Any]]]:
        """What each system did with each query of a benchmark, in order."""
        texts = self.query_texts()
        statement = select(evaluations).where(evaluations.c.benchmark == benchmark).order_by(evaluations.c.position)
        found: dict[str, dict[Query, dict[str, Any]]] = {}
        with self.engine.connect() as connection:
            for row in connection.execute(statement):
                found.setdefault(row.system, {})[texts[row.query]] = row.row
        return found

    # Stages and losses

    def stage(self, name: str) -> tuple[str, float, dict[str, Any]] | None:
        """State, seconds and output of a stage that was begun."""
        with self.engine.connect() as connection:
            row = connection.execute(select(stages).where(stages.c.name == name)).first()
        return None if row is None else (row.state, row.seconds, row.output)

    def set_stage(self, name: str, kind: str, state: str, seconds: float, output: Mapping[str, Any]) -> None:
        row = {"name": name, "kind": kind, "state": state, "seconds": seconds, "output": dict(output)}
        self.add(stages, [row], replace=True)

    def set_losses(self, origin: str, counts: Mapping[str, int]) -> None:
        """Record what a step lost; recording the same step again replaces its counts."""
        rows = [{"origin": origin, "reason": reason, "count": count} for reason, count in counts.items() if count]
        self.add(losses, rows, replace=True)

    def losses(self) -> dict[str, int]:
        """Everything lost, by reason."""
        statement = select(losses.c.reason, func.sum(losses.c.count)).group_by(losses.c.reason)
        with self.engine.connect() as connection:
            return {reason: int(count) for reason, count in connection.execute(statement.order_by(losses.c.reason))}

    def details(self) -> dict[str, str]:
        """For each reason that clips or scores were lost for, what was said of one of them."""
        told = (
            select(clips.c.failure, func.min(clips.c.detail))
            .where(clips.c.failure.is_not(None))
            .group_by(clips.c.failure),
            select(literal("reward"), func.min(scores.c.detail)).where(scores.c.dimensions.is_(None)),
        )
        with self.engine.connect() as connection:
            rows = [tuple(row) for statement in told for row in connection.execute(statement)]
        return {reason: detail for reason, detail in rows if detail}

    def renders(self, step: str) -> int:
        """How many clips a stage, with all its steps, paid for."""
        statement = select(func.count()).where(clips.c.failure.is_(None), _made_by(clips, step))
        with self.engine.connect() as connection:
            return int(connection.scalar(statement) or 0)

    def _among(self, table: Table, column: Any, values: Iterable[str]) -> list[Any]:
        wanted = list(dict.fromkeys(values))
        rows: list[Any] = []
        with self.engine.connect() as connection:
            for at in range(0, len(wanted), 500):
                rows += connection.execute(select(table).where(column.in_(wanted[at : at + 500]))).all()
        return rows

    def close(self) -> None:
        self.engine.dispose()


def _key(query: Query) -> str:
    """The id of a query's row, which covers all that was typed; ``Query.id`` covers what it asks for alone."""
    return content_id("typed", query.text, query.negative, query.options)


def _made_by(table: Table, step: str) -> ColumnElement[bool]:
    return (table.c.origin == step) | table.c.origin.startswith(f"{step}/", autoescape=True)


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _set_up(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would leave changes of tables outside of transactions
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
