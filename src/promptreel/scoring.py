"""The one road from words to numbers: rewrites to verdicts, to clips, to scores, to one total.

Everything goes through the store. A step (``origin``) plans its batches from what it was asked for and
what earlier steps have stored; what it has stored itself only saves it from doing a batch again. So a
resumed step computes the same batches as an uninterrupted one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from promptreel.errors import RunError
from promptreel.protocols import Engine, Generator, Judge, Reward, Worker
from promptreel.registry import build
from promptreel.store import ClipCache, Run
from promptreel.store.database import scores as scores_table
from promptreel.store.database import verdicts as verdicts_table
from promptreel.types import Component, Failure, Query, RenderRequest, Scores, Verdict, content_id

SCORE_BATCH = 32
"""Clips that a reward is given at once."""
JUDGE_BATCH = 64
"""Rewrites that a judge is given at once."""

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
T = TypeVar("T")


@dataclass(frozen=True)
class Scored:
    """A rewrite of a query with its scores, averaged over the seeds whose clips could be had."""

    query: Query
    text: str
    dimensions: Scores
    clips: tuple[str, ...]
    """Ids, one for each seed, of the clips that could be rendered."""
    by_seed: tuple[Scores, ...] = ()


def render_worker(generator: Component, cache: Path) -> Worker:
    """Renders requests into the cache; gives the fps of each clip or its failure."""
    model: Generator = build(generator)
    clips = ClipCache(cache)

    def work(requests: Sequence[RenderRequest]) -> list[float | Failure]:
        results: list[float | Failure] = []
        for clip in model.render(requests):
            if isinstance(clip, Failure):
                results.append(clip)
            else:
                clips.write(clip)
                results.append(clip.fps)
        return results

    return work


def reward_worker(reward: Component, cache: Path) -> Worker:
    """Scores (query, clip id, fps) on the clip as read back from the cache."""
    model: Reward = build(reward)
    clips = ClipCache(cache)

    def work(items: Sequence[tuple[Query, str, float]]) -> list[Scores]:
        return model.score([(query, clips.read(clip, fps)) for query, clip, fps in items])

    return work


def judge_worker(judge: Component) -> Worker:
    model: Judge = build(judge)
    return model.judge


class Scorer:
    """Judges, renders and scores for one run. ``losses`` counts what could not be had since ``begin``."""

    def __init__(
        self,
        run: Run,
        engine: Engine,
        generator: Component,
        judge: Component,
        report: Report = lambda what, done, total: None,
    ) -> None:
        self.run, self.engine, self.report = run, engine, report
        self.generator, self.judge_component = generator, judge
        built: Generator = build(generator)
        self._generator, self._render_batch = built.fingerprint, built.batch_size
        self._judge: str = build(judge).fingerprint
        self.losses: Counter[str] = Counter()

    def judge(self, items: Sequence[tuple[Query, str]], origin: str) -> list[Verdict | None]:
        """A verdict for each rewrite of each query."""
        keys = {item: content_id("verdict", self._judge, item[0].id, item[1]) for item in items}
        known = self.run.database.verdicts(keys.values())

        def store(batch: Sequence[tuple[Query, str]], results: Sequence[Verdict | None]) -> None:
            rows = [
                {
                    "id": keys[query, text],
                    "judge": self._judge,
                    "query": query.id,
                    "rewrite": text,
                    "verdict": verdict.to_json() if verdict else None,
                    "origin": origin,
                }
                for (query, text), verdict in zip(batch, results, strict=True)
            ]
            self.run.database.add(verdicts_table, rows)

        self._batches(
            "judge", keys, {k: v[0] for k, v in known.items()}, origin, JUDGE_BATCH,
            judge_worker, {"judge": self.judge_component}, store,
        )  # fmt: skip
        found = self.run.database.verdicts(keys.values())
        return [found[keys[item]][1] for item in items]

    def render(self, requests: Iterable[RenderRequest], origin: str) -> dict[RenderRequest, str | None]:
        """The id of the clip of each request, ``None`` where it could not be rendered."""
        keys = {request: request.clip_id(self._generator) for request in requests}
        known = self.run.database.clips(keys.values())

        def store(batch: Sequence[RenderRequest], results: Sequence[float | Failure]) -> None:
            self.run.database.add_clips(self._generator, list(zip(batch, results, strict=True)), origin)

        self._batches(
            "render", keys, {k: v[0] for k, v in known.items()}, origin, self._render_batch,
            render_worker, {"generator": self.generator, "cache": self.run.clips.directory}, store,
        )  # fmt: skip
        found = self.run.database.clips(keys.values())
        failures = [found[key][1] for key in keys.values()]
        self.losses.update(failure.reason for failure in failures if failure)
        return {request: None if found[key][1] else key for request, key in keys.items()}

    def score(
        self,
        items: Sequence[tuple[Query, str]],
        seeds: Sequence[int],
        rewards: Mapping[str, Component],
        origin: str,
    ) -> list[Scored]:
        """Render each rewrite of each query with all seeds and score the clips by all rewards."""
        requests = {
            (query, text): [RenderRequest(text, query.negative, seed) for seed in seeds] for query, text in items
        }
        clips = self.render([request for row in requests.values() for request in row], origin)
        fps = {key: row[2] for key, row in self.run.database.clips(c for c in clips.values() if c).items()}
        rendered = [
            (item[0], clip, fps[clip]) for item, row in requests.items() for r in row if (clip := clips[r]) is not None
        ]
        rendered = list(dict.fromkeys(rendered))
        by_reward = [self._score_with(reward, rendered, origin) for reward in rewards.values()]
        results = []
        for item in items:
            ids = [clip for request in requests[item] if (clip := clips[request])]
            by_seed = [_merge(found[item[0], clip] for found in by_reward) for clip in ids]
            results.append(Scored(*item, _mean(by_seed), tuple(ids), tuple(by_seed)))
        return results

    def _score_with(
        self, reward: Component, rendered: Sequence[tuple[Query, str, float]], origin: str
    ) -> dict[tuple[Query, str], Scores]:
        model: Reward = build(reward)
        keys = {item: content_id("score", model.fingerprint, item[0].id, item[1]) for item in rendered}
        known = self.run.database.scores(keys.values())

        def store(batch: Sequence[tuple[Query, str, float]], results: Sequence[Scores]) -> None:
            rows = [
                {
                    "id": keys[item],
                    "clip": item[1],
                    "query": item[0].id,
                    "reward": model.fingerprint,
                    "dimensions": dict(dimensions),
                    "origin": origin,
                }
                for item, dimensions in zip(batch, results, strict=True)
            ]
            self.run.database.add(scores_table, rows)

        self._batches(
            f"score {reward.name}", keys, {k: v[0] for k, v in known.items()}, origin, SCORE_BATCH,
            reward_worker, {"reward": reward, "cache": self.run.clips.directory}, store,
        )  # fmt: skip
        found = self.run.database.scores(keys.values())
        return {(item[0], item[1]): found[key][1] for item, key in keys.items()}

    def _batches(
        self,
        what: str,
        keys: Mapping[T, str],
        origins: Mapping[str, str],
        origin: str,
        size: int,
        factory: Callable[..., Worker],
        options: Mapping[str, Any],
        store: Callable[[Sequence[T], Sequence[Any]], None],
    ) -> None:
        """Do, in batches planned from ``keys`` without what other origins have, what is not done yet."""
        planned = [item for item, key in keys.items() if origins.get(key, origin) == origin]
        batches = [planned[at : at + size] for at in range(0, len(planned), size)]
        left = [batch for batch in batches if any(keys[item] not in origins for item in batch)]
        done = len(planned) - sum(map(len, left))
        if left:
            self.report(f"{origin}: {what}", done, len(planned))
        for batch in left:
            (results,) = self.engine.map(factory, options, batch, size)
            store(batch, results)
            done += len(batch)
            self.report(f"{origin}: {what}", done, len(planned))


def _merge(parts: Iterable[Scores]) -> Scores:
    merged: dict[str, float | None] = {}
    for part in parts:
        if twice := merged.keys() & part.keys():
            raise RunError(f"two rewards measure {sorted(twice)[0]!r}; rename a dimension of one")
        merged.update(part)
    return merged


def _mean(rows: Sequence[Scores]) -> Scores:
    """The mean of each dimension over the seeds that have it; missing where none has."""
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [value for row in rows if (value := row.get(name)) is not None]
        means[name] = sum(values) / len(values) if values else None
    return means


def total(dimensions: Scores, weights: Mapping[str, float]) -> float | None:
    """The blend of a rewrite's scores: their weighted sum, missing if any of them is."""
    parts = [(weight, dimensions.get(name)) for name, weight in weights.items()]
    if any(value is None for _, value in parts):
        return None
    return sum(weight * value for weight, value in parts if value is not None)


def clears(dimensions: Scores, floors: Mapping[str, float]) -> bool:
    """Whether every dimension with a floor is there and reaches it."""
    return all((value := dimensions.get(name)) is not None and value >= floor for name, floor in floors.items())
