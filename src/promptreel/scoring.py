"""The one road from words to numbers: rewrites to verdicts, to clips, to scores, to one total.

Everything goes through the store. A step (``origin``) plans its batches from what it was asked for and
what earlier steps have stored; what it has stored itself only saves it from doing a batch again. So a
resumed step computes the same batches as an uninterrupted one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from promptreel.errors import RenderError, RunError, faults
from promptreel.protocols import Engine, Generator, Judge, Reward, Worker
from promptreel.registry import build
from promptreel.store import ClipCache, Run
from promptreel.types import Clip, Component, Failure, Query, RenderRequest, Scores, Verdict, content_id

SCORE_BATCH = 32
"""Clips that a reward is given at once."""
JUDGE_BATCH = 64
"""Rewrites that a judge is given at once."""

Report = Callable[[str, int, int], None]
"""Called after every stored batch with what is being done, how much of it is done, and how much there is.

It may raise to stop the run: everything that was paid for is stored by then.
"""
T = TypeVar("T")


def silent(what: str, done: int, whole: int) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Scored:
    """A rewrite of a query with its scores, averaged over the seeds whose clips could be had."""

    query: Query
    text: str
    dimensions: Scores
    clips: tuple[str, ...]
    """Ids, one for each seed, of the clips that could be rendered."""
    by_seed: tuple[Scores, ...] = ()
    """One for each seed, in order; empty where its clip could not be had."""


@dataclass(frozen=True)
class Work(Generic[T]):
    """A kind of work on items: who does it, in what batches, and where results go."""

    name: str
    factory: Callable[..., Worker]
    options: Mapping[str, Any]
    size: int
    keys: Mapping[T, str]
    """Item to the id that its result is stored under."""
    known: Mapping[str, str]
    """Ids stored already, with the step that stored them."""
    store: Callable[[Sequence[T], Sequence[Any]], None]


def render_worker(generator: Component, cache: Path, fingerprint: str) -> Worker:
    """Renders requests into the cache; gives the fps of each clip or its failure.

    Raises ``RunError`` when the model is no longer the one of this fingerprint: its clips would lie under ids
    that nobody looks for.
    """
    model: Generator = build(generator)
    if model.fingerprint != fingerprint:
        raise RunError(f"the files of the video model changed while the run was at work (generator {generator.name!r})")
    clips = ClipCache(cache)

    def work(requests: Sequence[RenderRequest]) -> list[float | Failure]:
        with faults(f"generator {generator.name!r}"):
            rendered = model.render(requests)
        results: list[float | Failure] = []
        for clip in rendered:
            if isinstance(clip, Failure):
                results.append(clip)
            elif flaw := _flaw(clip):
                results.append(flaw)
            else:
                clips.write(clip)
                results.append(clip.fps)
        return results

    return work


BLACK = 2
"""A clip without any brighter value (0..255) is what broken pipelines and safety filters give, not media."""


def _flaw(clip: Clip) -> Failure | None:
    """Why what a generator gave is no clip, if it is none."""
    frames = clip.frames
    if np.issubdtype(frames.dtype, np.floating) and not np.isfinite(frames).all():
        return Failure("not a number", "the frames have values that are not numbers")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        return Failure("render", f"the frames are {frames.dtype} of shape {frames.shape}, not uint8 (T, H, W, 3)")
    if frames.max() <= BLACK:
        return Failure("black clip", f"no value above {BLACK} of 255")
    return None


def reward_worker(reward: Component, cache: Path) -> Worker:
    """Scores (query, clip id, fps) on the clip as read back from the cache.

    A clip that cannot be read is a ``Failure``; so is one at which the reward raises when it sees it alone, or
    of which it says what is not a number. Raises ``RenderError`` for want of memory: the batch may be too large; and
    ``RunError`` when the reward itself cannot be had.
    """
    model: Reward = build(reward)
    clips = ClipCache(cache)

    def work(items: Sequence[tuple[Query, str, float]]) -> list[Scores | Failure]:
        results: dict[int, Scores | Failure] = {}
        readable = []
        for index, (query, clip, fps) in enumerate(items):
            try:
                readable.append((index, (query, clips.read(clip, fps))))
            except RunError as error:
                results[index] = Failure("clip", str(error))
        try:
            with faults(f"reward {reward.name!r}"):
                results.update(zip([i for i, _ in readable], model.score([item for _, item in readable]), strict=True))
        except RenderError as error:
            if error.reason == "memory":
                raise
            # A reward is foreign code: what it raises costs a score, not the run.
            for index, item in readable:
                try:
                    with faults(f"reward {reward.name!r}"):
                        (results[index],) = model.score([item])
                except RenderError as alone:
                    if alone.reason == "memory":
                        raise
                    results[index] = Failure("reward", str(alone))
        return [_numbers(results[index]) for index in range(len(items))]

    return work


def _numbers(scores: Scores | Failure) -> Scores | Failure:
    """The scores, or a failure if any of them is neither missing nor a number."""
    if not isinstance(scores, Failure):
        for name, value in scores.items():
            if value is not None and not math.isfinite(value):
                return Failure("reward", f"{name} is {value}")
    return scores


def judge_worker(judge: Component) -> Worker:
    model: Judge = build(judge)
    return model.judge


class Scorer:
    """Judges, renders and scores for one run. ``losses`` counts what the current stage could not have."""

    def __init__(
        self, run: Run, engine: Engine, generator: Component, judge: Component, report: Report = silent
    ) -> None:
        self.run, self.engine, self.report = run, engine, report
        self.generator, self.judge_component = generator, judge
        self.losses: Counter[str] = Counter()

    # Built when there is something to do: whoever only looks at a run needs no library of models.

    @cached_property
    def _renderer(self) -> Generator:
        built: Generator = build(self.generator)
        return built

    @property
    def _generator(self) -> str:
        return self._renderer.fingerprint

    @cached_property
    def _judge(self) -> str:
        judge: Judge = build(self.judge_component)
        return judge.fingerprint

    def judge(self, items: Sequence[tuple[Query, str]], origin: str) -> list[Verdict | None]:
        """A verdict for each rewrite of each query."""
        database = self.run.database
        keys = {item: content_id("verdict", self._judge, item[0].id, item[1]) for item in items}

        def store(batch: Sequence[tuple[Query, str]], results: Sequence[Verdict | None]) -> None:
            database.add_verdicts(self._judge, [(keys[i], *i, r) for i, r in zip(batch, results, strict=True)], origin)

        known = {key: found for key, (found, _) in database.verdicts(keys.values()).items()}
        options = {"judge": self.judge_component}
        self._do(Work("judge", judge_worker, options, JUDGE_BATCH, keys, known, store), origin)
        verdicts = database.verdicts(keys.values())
        return [verdicts[keys[item]][1] for item in items]

    def render(self, requests: Iterable[RenderRequest], origin: str) -> dict[RenderRequest, str | None]:
        """The id of the clip of each request, ``None`` where it could not be rendered."""
        database = self.run.database
        keys = {request: request.clip_id(self._generator) for request in requests}

        def store(batch: Sequence[RenderRequest], results: Sequence[float | Failure]) -> None:
            database.add_clips(self._generator, list(zip(batch, results, strict=True)), origin)

        known = {key: found for key, (found, _, _) in database.clips(keys.values()).items()}
        options = {"generator": self.generator, "cache": self.run.clips.directory, "fingerprint": self._generator}
        self._do(Work("render", render_worker, options, self._renderer.batch_size, keys, known, store), origin)
        clips = database.clips(keys.values())
        failures = [failure for key in keys.values() if (failure := clips[key][1])]
        self.losses.update(failure.reason for failure in failures)
        return {request: None if clips[key][1] else key for request, key in keys.items()}

    def score(
        self,
        items: Sequence[tuple[Query, str]],
        seeds: Sequence[int],
        rewards: Mapping[str, Component],
        origin: str,
    ) -> list[Scored]:
        """Render each rewrite of each query with all seeds and score the clips by all rewards."""
        requests = {
            (query, text): [RenderRequest(text, query.negative, seed, query.aspect) for seed in seeds]
            for query, text in items
        }
        clips = self.render([request for row in requests.values() for request in row], origin)
        fps = {key: row[2] for key, row in self.run.database.clips(c for c in clips.values() if c).items()}
        rendered = dict.fromkeys(
            (item[0], clip, fps[clip]) for item, row in requests.items() for r in row if (clip := clips[r])
        )
        by_reward = [self._score_with(reward, list(rendered), origin) for reward in rewards.values()]
        results = []
        for item in items:
            ids = [clips[request] for request in requests[item]]
            by_seed = [_merge(found[item[0], clip] for found in by_reward) if clip else {} for clip in ids]
            results.append(Scored(*item, _mean(by_seed), tuple(clip for clip in ids if clip), tuple(by_seed)))
        return results

    def _score_with(
        self, reward: Component, rendered: Sequence[tuple[Query, str, float]], origin: str
    ) -> dict[tuple[Query, str], Scores]:
        model: Reward = build(reward)
        database = self.run.database
        keys = {item: content_id("score", model.fingerprint, item[0].id, item[1]) for item in rendered}
        options = {"reward": reward, "cache": self.run.clips.directory}

        def store(batch: Sequence[tuple[Query, str, float]], results: Sequence[Scores | Failure]) -> None:
            broken = [
                item for item, r in zip(batch, results, strict=True) if isinstance(r, Failure) and r.reason == "clip"
            ]
            if broken:
                self._render_again([clip for _, clip, _ in broken])
                (again,) = self.engine.map(reward_worker, options, list(batch), SCORE_BATCH)
                results = again
            rows = [(keys[i], i[1], i[0], r) for i, r in zip(batch, results, strict=True)]
            database.add_scores(model.fingerprint, rows, origin)

        known = {key: found for key, (found, _) in database.scores(keys.values()).items()}
        self._do(Work(f"score {reward.name}", reward_worker, options, SCORE_BATCH, keys, known, store), origin)
        scores = database.scores(keys.values())
        self.losses["reward"] += sum(scores[key][1] is None for key in keys.values())
        missing = dict.fromkeys(model.dimensions)
        return {(item[0], item[1]): scores[key][1] or missing for item, key in keys.items()}

    def _render_again(self, clips: Iterable[str]) -> None:
        """Replace damaged files, by the very batches that their clips were rendered in."""
        options = {"generator": self.generator, "cache": self.run.clips.directory, "fingerprint": self._generator}
        for batch in self.run.database.batches_of(clips):
            for _ in self.engine.map(render_worker, options, batch, len(batch)):
                pass

    def _do(self, work: Work[T], origin: str) -> None:
        """Do, in batches planned from the keys without what other steps have, what is not done yet."""
        planned = [item for item, key in work.keys.items() if work.known.get(key, origin) == origin]
        batches = [planned[at : at + work.size] for at in range(0, len(planned), work.size)]
        left = [batch for batch in batches if any(work.keys[item] not in work.known for item in batch)]
        done = len(planned) - sum(map(len, left))
        if left:
            self.report(f"{origin}: {work.name}", done, len(planned))
        for batch in left:
            halves: dict[str, str] = {}
            failed = self._attempt(work, batch, halves)
            if 1 < len(batch) == len(failed):
                detail = next(iter(failed.values())).detail
                raise RunError(
                    f"there is no memory for {work.name}, not even for one at a time ({detail}): make room, or load "
                    "the model smaller, and the same command goes on from here"
                )
            self.run.database.halve(halves)
            for item, failure in failed.items():
                work.store([item], [failure])
            done += len(batch)
            self.report(f"{origin}: {work.name}", done, len(planned))

    def _attempt(self, work: Work[T], batch: Sequence[T], halves: dict[str, str]) -> dict[T, Failure]:
        """Do a batch and store its results whole. One that cannot be done is halved, and that is recorded before
        any result of a half is, so that a resumed run halves it too.

        ``halves`` collects what is not recorded yet, with reasons. Gives the items that memory did not suffice for
        even alone: they are not stored, for where nothing else succeeds the machine is at fault.
        """
        if all(work.keys[item] in work.known for item in batch):
            return {}
        key = content_id("batch", work.name, [work.keys[item] for item in batch])
        if not self.run.database.is_halved(key):
            try:
                (results,) = self.engine.map(work.factory, work.options, list(batch), len(batch))
            except RenderError as error:
                failure = Failure(error.reason, str(error))
                if len(batch) > 1:
                    halves[key] = error.reason
                elif error.reason == "memory":
                    return {batch[0]: failure}
                else:
                    results = [failure]
            if key not in halves:
                self.run.database.halve(halves)
                work.store(batch, results)
                return {}
        middle = len(batch) // 2
        return self._attempt(work, batch[:middle], halves) | self._attempt(work, batch[middle:], halves)


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
        means[name] = mean(values) if values else None
    return means


def mean(values: Sequence[float]) -> float:
    """The mean, rounded once: the same values in another order give the same, so that ties stay ties."""
    return math.fsum(values) / len(values)


def total(dimensions: Scores, weights: Mapping[str, float]) -> float | None:
    """The blend of a rewrite's scores: their weighted sum, missing if any of them is."""
    parts = [(weight, dimensions.get(name)) for name, weight in weights.items()]
    if any(value is None for _, value in parts):
        return None
    return sum(weight * value for weight, value in parts if value is not None)


def clears(dimensions: Scores, floors: Mapping[str, float]) -> bool:
    """Whether every dimension with a floor is there and reaches it."""
    return all((value := dimensions.get(name)) is not None and value >= floor for name, floor in floors.items())
