"""Workers, which an engine runs. Each is built by a factory from picklable options, and maps a batch to its results."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from promptreel import registry
from promptreel.errors import RenderError, RunError
from promptreel.faults import classified
from promptreel.jobs import Worker
from promptreel.media import ClipStore
from promptreel.protocols import LLM, Explainer, Generator, Judge, Reward
from promptreel.types import (
    Clip,
    ClipToScore,
    Completion,
    Component,
    Failure,
    Message,
    RenderRequest,
    SamplingParams,
    ScoreResult,
    Scores,
)

BLACK = 2
"""Highest value (0..255) of a black clip: broken pipelines and safety filters give such clips."""
UNREADABLE = "clip"
"""Reason of a score that failed because the clip's file could not be read."""


def llm_worker(llm: Component) -> Worker:
    """Build a worker that completes (conversation, sampling parameters) pairs."""
    model: LLM = registry.build(llm)

    def work(batch: Sequence[tuple[list[Message], SamplingParams]]) -> list[Completion | Failure]:
        return model.complete([conversation for conversation, _ in batch], [params for _, params in batch])

    return work


def judge_worker(judge: Component) -> Worker:
    """Build a worker that judges candidates."""
    model: Judge = registry.build(judge)
    return model.judge


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
        results: list[float | Failure] = []
        for clip in rendered:
            flaw = clip if isinstance(clip, Failure) else _flaw(clip)
            if isinstance(clip, Failure) or flaw:
                results.append(flaw or Failure("render"))
            else:
                if clip.id not in clips:  # another run's clip keeps the pixels that were scored
                    clips.write(clip)
                results.append(clip.fps)
        return results

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
        """Score clips alone: a reward model is foreign code, and its error costs a score, not the run."""
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
                result = ScoreResult(result.scores, explanation=model.explain(item.query, clip))
            results[place] = result
        return results

    return work


def _checked(scores: Scores) -> ScoreResult:
    """Return scores, or none with the reason if one of them is neither missing nor a number."""
    for name, value in scores.items():
        if value is not None and not math.isfinite(value):
            return ScoreResult(None, f"{name} is {value}")
    return ScoreResult(scores)
