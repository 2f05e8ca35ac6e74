"""Workers, which an engine runs. Each is built by a factory from picklable options, and maps a batch to its results."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from promptreel import registry
from promptreel.errors import PromptreelError, RenderError, RunError
from promptreel.faults import classified, one_line, out_of_memory
from promptreel.jobs import Worker
from promptreel.media import ClipStore
from promptreel.protocols import LLM, Explainer, Generator, Judge, Reward
from promptreel.types import (
    Candidate,
    Clip,
    ClipToScore,
    Completion,
    Component,
    Failure,
    Message,
    Query,
    RenderRequest,
    SamplingParams,
    ScoreResult,
    Scores,
    Verdict,
)

log = logging.getLogger(__name__)

BLACK = 2
"""Highest value (0..255) of a black clip: broken pipelines and safety filters give such clips."""
UNREADABLE = "clip"
"""Reason of a score that failed because the clip's file could not be read."""


def llm_worker(llm: Component) -> Worker:
    """Build a worker that completes (conversation, sampling parameters) pairs."""
    model: LLM = registry.build(llm)

    def work(batch: Sequence[tuple[list[Message], SamplingParams]]) -> list[Completion | Failure]:
        with _halvable():
            return model.complete([conversation for conversation, _ in batch], [params for _, params in batch])

    return work


def judge_worker(judge: Component) -> Worker:
    """Build a worker that judges candidates."""
    model: Judge = registry.build(judge)

    def work(candidates: Sequence[Candidate]) -> list[Verdict | None]:
        with _halvable():
            return model.judge(candidates)

    return work


@contextmanager
def _halvable() -> Iterator[None]:
    """Raise ``RenderError`` for want of memory, so that the batch is halved; other errors stay as they are."""
    try:
        yield
    except PromptreelError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise RenderError(one_line(error), "memory") from error
        raise


def render_worker(generator: Component, clips: ClipStore, fingerprint: str) -> Worker:
    """Build a worker that renders requests into the clip store; it gives the fps of each clip or its failure.

    Raises ``RunError`` if the model no longer has this fingerprint: its clips would be stored under wrong ids.
    """
    model: Generator = registry.build(generator)
    if model.fingerprint != fingerprint:
        raise RunError(f"the files of the video model changed while the run was at work (generator {generator.name!r})")

    def work(requests: Sequence[RenderRequest]) -> list[float | Failure]:
        with classified(f"generator {generator.name!r}"):
            rendered = model.render(requests)
            if len(rendered) != len(requests):
                raise ValueError(f"{len(rendered)} clips came for {len(requests)} requests")
        return [keep(request, clip) for request, clip in zip(requests, rendered, strict=True)]

    def keep(request: RenderRequest, clip: Clip | Failure) -> float | Failure:
        """Store a clip under the id of its request; another run's clip keeps the pixels that were scored."""
        flaw = clip if isinstance(clip, Failure) else _flaw(clip)
        if isinstance(clip, Failure) or flaw:
            return flaw or Failure("render")
        key = request.clip_id(fingerprint)
        if key not in clips:
            clips.write(replace(clip, id=key))
        return clip.fps

    return work


def _flaw(clip: Clip) -> Failure | None:
    """Return the failure of a generator's result that is no proper clip, or ``None``."""
    frames = clip.frames
    if np.issubdtype(frames.dtype, np.floating) and not np.isfinite(frames).all():
        return Failure("not a number", "the frames have values that are not numbers")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
        return Failure("render", f"the frames are {frames.dtype} of shape {frames.shape}, not uint8 (T, H, W, 3)")
    if frames.max() <= BLACK:
        return Failure("black clip", f"no value above {BLACK} of 255")
    return None


def reward_worker(reward: Component, clips: ClipStore) -> Worker:
    """Build a worker that scores clips, read back from the clip store.

    A clip whose file cannot be read is a ``Failure``. A clip at which the reward model raises when it is scored alone,
    or for which it gives a value that is not a number, has no scores, and the reason. Raises ``RenderError`` for want
    of memory, since the batch may be too large, and ``RunError`` if the reward model cannot be used at all.
    """
    model: Reward = registry.build(reward)
    called = f"reward {reward.name!r}"

    def one_by_one(items: Sequence[tuple[ClipToScore, Clip]]) -> list[ScoreResult]:
        """Score clips one at a time, so that an error of the reward model loses one score and not the run."""
        results = []
        for item, clip in items:
            try:
                with classified(called):
                    (scores,) = model.score([(item.query, clip)])
                results.append(_checked(scores))
            except RenderError as error:
                if error.reason == "memory":
                    raise
                results.append(ScoreResult(None, str(error)))
        return results

    def score(items: Sequence[tuple[ClipToScore, Clip]]) -> list[ScoreResult]:
        try:
            with classified(called):
                scored = model.score([(item.query, clip) for item, clip in items])
                if len(scored) != len(items):
                    raise ValueError(f"{len(scored)} scores for {len(items)} clips")
        except RenderError as error:
            if error.reason == "memory":
                raise
            return one_by_one(items)
        return [_checked(scores) for scores in scored]

    def explain(explainer: Explainer, query: Query, clip: Clip) -> str:
        """Return the description of a clip; an empty one if that fails, since scores matter more."""
        try:
            with classified(called):
                return explainer.explain(query, clip)
        except RenderError as error:
            log.warning("%s gave no description of a clip: %s", called, error)
            return ""

    def work(items: Sequence[ClipToScore]) -> list[ScoreResult | Failure]:
        results: list[ScoreResult | Failure] = [ScoreResult(None)] * len(items)
        readable: list[tuple[int, ClipToScore, Clip]] = []
        for place, item in enumerate(items):
            try:
                readable.append((place, item, clips.read(item.clip, item.fps)))
            except RunError as error:
                results[place] = Failure(UNREADABLE, str(error))
        if not readable:
            return results
        scored = score([(item, clip) for _, item, clip in readable])
        for (place, item, clip), result in zip(readable, scored, strict=True):
            if isinstance(model, Explainer) and result.scores is not None:
                result = ScoreResult(result.scores, explanation=explain(model, item.query, clip))
            results[place] = result
        return results

    return work


def _checked(scores: Scores) -> ScoreResult:
    """Return scores, or none with the reason if one of them is neither missing nor a number."""
    for name, value in scores.items():
        if value is not None and not math.isfinite(value):
            return ScoreResult(None, f"{name} is {value}")
    return ScoreResult(scores)
