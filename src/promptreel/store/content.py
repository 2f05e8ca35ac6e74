"""Stored content: clips, scores, completions and verdicts. Each class turns results into rows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, ClassVar

from sqlalchemy import Connection, Table

from promptreel.fingerprint import content_id
from promptreel.store.database import among
from promptreel.store.tables import clips, completions, render_batches, scores, verdicts
from promptreel.types import Candidate, ClipToScore, Completion, Failure, Query, RenderRequest, ScoreResult, Verdict

Rows = list[dict[str, Any]]


class Content:
    """Base of the kinds of content.

    ``items`` were asked for, and ``results`` came of them. ``ids`` are the ids of both.
    ``fingerprint`` is that of the component that made them.
    """

    table: ClassVar[Table]

    @staticmethod
    def rows(fingerprint: str, ids: Sequence[str], items: Sequence[Any], results: Sequence[Any]) -> Rows:
        """Return the rows that store a batch of results."""
        raise NotImplementedError

    @staticmethod
    def read(connection: Connection, ids: Iterable[str]) -> dict[str, Any]:
        """Return the stored results, by id."""
        raise NotImplementedError

    @staticmethod
    def queries(items: Sequence[Any]) -> list[Query]:
        """Return the queries that the rows refer to; none for most kinds."""
        return []

    @staticmethod
    def batch_rows(ids: Sequence[str]) -> Rows:
        """Return rows of ``render_batches`` that record the batch; none if it is never needed again."""
        return []


class Clips(Content):
    """Renders by a generator: the frames per second of each clip, or its failure."""

    table: ClassVar[Table] = clips

    @staticmethod
    def rows(
        fingerprint: str, ids: Sequence[str], items: Sequence[RenderRequest], results: Sequence[float | Failure]
    ) -> Rows:
        batch = _batch_id(ids)
        rows = []
        for key, request, result in zip(ids, items, results, strict=True):
            failure = result if isinstance(result, Failure) else None
            rows.append(
                {
                    "id": key,
                    "generator": fingerprint,
                    "prompt": request.prompt,
                    "negative": request.negative,
                    "seed": request.seed,
                    "aspect": request.aspect,
                    "fps": None if failure else result,
                    "failure": failure.reason if failure else None,
                    "detail": failure.detail if failure else None,
                    "batch": batch,
                }
            )
        return rows

    @staticmethod
    def read(connection: Connection, ids: Iterable[str]) -> dict[str, float | Failure]:
        return {
            row.id: Failure(row.failure, row.detail or "") if row.failure else float(row.fps)
            for row in among(connection, clips, clips.c.id, ids)
        }

    @staticmethod
    def batch_rows(ids: Sequence[str]) -> Rows:
        batch = _batch_id(ids)
        return [{"batch": batch, "place": place, "clip": key} for place, key in enumerate(ids)]


def _batch_id(ids: Sequence[str]) -> str:
    return content_id("rendered together", list(ids))


def read_render_batches(connection: Connection, ids: Iterable[str]) -> list[list[RenderRequest]]:
    """Return the batches, each in order, that these clips were rendered in."""
    keys = sorted({row.batch for row in among(connection, clips, clips.c.id, ids)})
    places = sorted(
        among(connection, render_batches, render_batches.c.batch, keys), key=lambda row: (row.batch, row.place)
    )
    requests = {
        row.id: RenderRequest(row.prompt, row.negative, row.seed, row.aspect or "")
        for row in among(connection, clips, clips.c.id, (row.clip for row in places))
    }
    return [[requests[row.clip] for row in group] for _, group in groupby(places, key=lambda row: row.batch)]


class ClipScores(Content):
    """Scores by a reward model."""

    table: ClassVar[Table] = scores

    @staticmethod
    def rows(
        fingerprint: str, ids: Sequence[str], items: Sequence[ClipToScore], results: Sequence[ScoreResult]
    ) -> Rows:
        return [
            {
                "id": key,
                "clip": item.clip,
                "query": item.query.row_id,
                "reward": fingerprint,
                "scores": None if result.scores is None else dict(result.scores),
                "detail": result.detail or None,
                "explanation": result.explanation or None,
            }
            for key, item, result in zip(ids, items, results, strict=True)
        ]

    @staticmethod
    def read(connection: Connection, ids: Iterable[str]) -> dict[str, ScoreResult]:
        return {
            row.id: ScoreResult(row.scores, row.detail or "", row.explanation or "")
            for row in among(connection, scores, scores.c.id, ids)
        }

    @staticmethod
    def queries(items: Sequence[ClipToScore]) -> list[Query]:
        return [item.query for item in items]


class Completions(Content):
    """Completions by a language model."""

    table: ClassVar[Table] = completions

    @staticmethod
    def rows(
        fingerprint: str, ids: Sequence[str], items: Sequence[Any], results: Sequence[Completion | Failure]
    ) -> Rows:
        return [
            {
                "id": key,
                "llm": fingerprint,
                "text": None if isinstance(result, Failure) else result.text,
                "failure": result.reason if isinstance(result, Failure) else None,
                "detail": result.detail if isinstance(result, Failure) else None,
                "prompt_tokens": result.prompt_tokens,
                "completion_tokens": result.completion_tokens,
                "cost": result.cost,
            }
            for key, result in zip(ids, results, strict=True)
        ]

    @staticmethod
    def read(connection: Connection, ids: Iterable[str]) -> dict[str, Completion | Failure]:
        found: dict[str, Completion | Failure] = {}
        for row in among(connection, completions, completions.c.id, ids):
            usage = (row.prompt_tokens, row.completion_tokens, row.cost)
            if row.failure:
                found[row.id] = Failure(row.failure, row.detail or "", *usage)
            else:
                found[row.id] = Completion(row.text or "", *usage)
        return found


class Verdicts(Content):
    """Verdicts by a judge; ``None`` where it could not tell."""

    table: ClassVar[Table] = verdicts

    @staticmethod
    def rows(
        fingerprint: str, ids: Sequence[str], items: Sequence[Candidate], results: Sequence[Verdict | None]
    ) -> Rows:
        return [
            {
                "id": key,
                "judge": fingerprint,
                "query": candidate.query.row_id,
                "text": candidate.text,
                "verdict": verdict.to_json() if verdict else None,
            }
            for key, candidate, verdict in zip(ids, items, results, strict=True)
        ]

    @staticmethod
    def read(connection: Connection, ids: Iterable[str]) -> dict[str, Verdict | None]:
        return {
            row.id: None if row.verdict is None else Verdict.from_json(row.verdict)
            for row in among(connection, verdicts, verdicts.c.id, ids)
        }

    @staticmethod
    def queries(items: Sequence[Candidate]) -> list[Query]:
        return [candidate.query for candidate in items]
