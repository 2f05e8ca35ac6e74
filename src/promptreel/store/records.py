"""The rows of one run: its stages, candidates, pairs, evaluations and failures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, func, literal, select

from promptreel.store import dialect
from promptreel.store.database import Database, add_queries, read_queries
from promptreel.store.ledger import Ledger
from promptreel.store.tables import (
    batch_items,
    batches,
    candidates,
    clips,
    completions,
    evaluations,
    failures,
    pairs,
    runs,
    scores,
    stages,
)
from promptreel.types import Candidate, Pair, Query, ScoredClip, StageRecord, Verdict


class Records:
    """Everything in a database that belongs to one run."""

    def __init__(self, database: Database, run: str) -> None:
        self.database, self.run = database, run
        self.ledger = Ledger(database, run)

    # The run

    def environments(self) -> list[dict[str, str]]:
        """Return the versions and threads that the run was begun with, and those it was continued with, in order."""
        with self.database.reading() as connection:
            stored = connection.scalar(select(runs.c.environments).where(runs.c.id == self.run))
        return list(stored or [])

    def note_environment(self, found: Mapping[str, str]) -> None:
        known = self.environments()
        if found not in known:
            row = {"id": self.run, "environments": [*known, dict(found)]}
            with self.database.writing() as connection:
                dialect.insert_or_replace(connection, runs, [row])

    # Stages

    def stages(self) -> dict[str, StageRecord]:
        """Return every stage that was begun, by name."""
        with self.database.reading() as connection:
            rows = connection.execute(select(stages).where(stages.c.run == self.run)).all()
        return {row.name: StageRecord(row.name, row.kind, row.state, row.seconds, row.output) for row in rows}

    def stage(self, name: str) -> StageRecord:
        return self.stages().get(name, StageRecord(name))

    def put_stage(self, record: StageRecord) -> None:
        with self.database.writing() as connection:
            self._put_stage(connection, record)

    def finish_stage(
        self,
        record: StageRecord,
        found: Sequence[Candidate],
        made: Sequence[Pair],
        counts: Mapping[str, int],
        queries: Iterable[Query],
    ) -> None:
        """Store everything that a stage made, and its record, in one transaction."""
        with self.database.writing() as connection:
            add_queries(connection, queries)
            self._add_candidates(connection, record.name, found)
            self._add_pairs(connection, record.name, made)
            self._put_failures(connection, record.name, counts)
            self._put_stage(connection, record)

    def _put_stage(self, connection: Connection, record: StageRecord) -> None:
        row = {
            "run": self.run,
            "name": record.name,
            "kind": record.kind,
            "state": record.state,
            "seconds": record.seconds,
            "output": dict(record.output),
        }
        dialect.insert_or_replace(connection, stages, [row])

    # Candidates

    def _add_candidates(self, connection: Connection, stage: str, found: Sequence[Candidate]) -> None:
        add_queries(connection, (candidate.query for candidate in found))
        rows = [
            {
                **candidate.to_json(),
                "run": self.run,
                "stage": stage,
                "id": candidate.id,
                "position": position,
                "query": candidate.query.row_id,
            }
            for position, candidate in enumerate(found)
        ]
        dialect.insert_missing(connection, candidates, rows)

    def candidates(self, stage: str) -> list[Candidate]:
        """Return the candidates of a stage, in order."""
        own = candidates.c.run == self.run, candidates.c.stage == stage
        with self.database.reading() as connection:
            rows = connection.execute(select(candidates).where(*own).order_by(candidates.c.position)).all()
            queries = read_queries(connection, (row.query for row in rows))
        return [
            Candidate(
                queries[row.query],
                row.text,
                row.round,
                None if row.verdict is None else Verdict.from_json(row.verdict),
                row.tokens,
                row.fits,
                row.rejected,
                row.withheld,
                tuple(ScoredClip(**clip) for clip in row.clips),
                row.reward,
            )
            for row in rows
        ]

    # Pairs

    def _add_pairs(self, connection: Connection, stage: str, made: Sequence[Pair]) -> None:
        rows = [
            {
                "run": self.run,
                "stage": stage,
                "position": position,
                "query": pair.query.row_id,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "rule": pair.rule,
                "margin": pair.margin,
            }
            for position, pair in enumerate(made)
        ]
        dialect.insert_missing(connection, pairs, rows)

    def pairs(self, stage: str) -> list[Pair]:
        """Return the pairs of a stage, in order."""
        own = pairs.c.run == self.run, pairs.c.stage == stage
        with self.database.reading() as connection:
            rows = connection.execute(select(pairs).where(*own).order_by(pairs.c.position)).all()
            queries = read_queries(connection, (row.query for row in rows))
        return [Pair(queries[row.query], row.chosen, row.rejected, row.rule, row.margin) for row in rows]

    # Evaluations

    def add_evaluation(self, benchmark: str, results: Mapping[str, Mapping[Query, Candidate]]) -> None:
        """Store each system's candidates for the queries of a benchmark, in order."""
        rows = [
            {
                "run": self.run,
                "benchmark": benchmark,
                "system": system,
                "query": query.row_id,
                "position": position,
                "candidate": candidate.to_json(),
            }
            for system, by_query in results.items()
            for position, (query, candidate) in enumerate(by_query.items())
        ]
        with self.database.writing() as connection:
            add_queries(connection, (query for by_query in results.values() for query in by_query))
            dialect.insert_or_replace(connection, evaluations, rows)

    def evaluation(self, benchmark: str) -> dict[str, dict[Query, Candidate]]:
        """Return each system's candidates for the queries of a benchmark, in order."""
        own = evaluations.c.run == self.run, evaluations.c.benchmark == benchmark
        found: dict[str, dict[Query, Candidate]] = {}
        with self.database.reading() as connection:
            rows = connection.execute(select(evaluations).where(*own).order_by(evaluations.c.position)).all()
            queries = read_queries(connection, (row.query for row in rows))
        for row in rows:
            query = queries[row.query]
            found.setdefault(row.system, {})[query] = Candidate.from_json(query, row.candidate)
        return found

    def explanations(self, query: Query, asked: Iterable[str]) -> dict[str, str]:
        """Return the descriptions that this run's reward models gave of clips of a query, by the clip's id.

        Of several descriptions of a clip the first by id is returned.
        """
        described = scores.c.explanation.is_not(None), scores.c.query == query.row_id, scores.c.clip.in_(list(asked))
        statement = self._made(scores, select(scores.c.clip, scores.c.explanation), *described)
        with self.database.reading() as connection:
            rows = connection.execute(statement.order_by(scores.c.id.desc())).all()
        return {row.clip: row.explanation for row in rows}

    # Failures and costs

    def _put_failures(self, connection: Connection, stage: str, counts: Mapping[str, int]) -> None:
        rows = [
            {"run": self.run, "stage": stage, "reason": reason, "count": count}
            for reason, count in counts.items()
            if count
        ]
        dialect.insert_or_replace(connection, failures, rows)

    def failures(self) -> dict[str, int]:
        """Return the number of results that could not be had, by reason."""
        statement = (
            select(failures.c.reason, func.sum(failures.c.count))
            .where(failures.c.run == self.run)
            .group_by(failures.c.reason)
            .order_by(failures.c.reason)
        )
        with self.database.reading() as connection:
            return {reason: int(count) for reason, count in connection.execute(statement)}

    def failure_details(self) -> dict[str, str]:
        """Return the detail of one failed clip or score for each reason."""
        failed = clips.c.failure.is_not(None)
        statements = (
            self._made(clips, select(clips.c.failure, func.min(clips.c.detail)), failed).group_by(clips.c.failure),
            self._made(scores, select(literal("reward"), func.min(scores.c.detail)), scores.c.scores.is_(None)),
        )
        with self.database.reading() as connection:
            rows = [tuple(row) for statement in statements for row in connection.execute(statement)]
        return {reason: detail for reason, detail in rows if detail}

    def renders(self, stage: str) -> int:
        """Return the number of clips that a stage, with all its steps, paid for."""
        counted = self._made(clips, select(func.count()), clips.c.failure.is_(None), self._steps(stage))
        with self.database.reading() as connection:
            return int(connection.scalar(counted.where(~batches.c.cached)) or 0)

    def usage(self, stage: str) -> dict[str, float]:
        """Return the tokens and money that a stage, with all its steps, paid for."""
        names = ("prompt_tokens", "completion_tokens", "cost")
        sums = [func.coalesce(func.sum(completions.c[name]), 0) for name in names]
        statement = self._made(completions, select(*sums), self._steps(stage)).where(~batches.c.cached)
        with self.database.reading() as connection:
            row = connection.execute(statement).one()
        return {"prompt_tokens": int(row[0]), "completion_tokens": int(row[1]), "cost": float(row[2])}

    def _made(self, table: Table, statement: Any, *where: ColumnElement[bool]) -> Any:
        """Join a content table with the batches of this run that made its rows."""
        item = batch_items.c.item == table.c.id
        batch = and_(
            batches.c.run == batch_items.c.run,
            batches.c.step == batch_items.c.step,
            batches.c.kind == batch_items.c.kind,
            batches.c.number == batch_items.c.number,
            batches.c.part == "",
        )
        source = table.join(batch_items, item).join(batches, batch)
        return statement.select_from(source).where(batch_items.c.run == self.run, *where)

    @staticmethod
    def _steps(stage: str) -> ColumnElement[bool]:
        """Match the steps of a stage."""
        step = batch_items.c.step
        return (step == stage) | step.startswith(f"{stage}/", autoescape=True)
