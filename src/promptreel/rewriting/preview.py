"""A query and its candidates rendered from the same noise, to look at before anything larger is begun."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from promptreel import media, profiles, registry
from promptreel.config import Recipe
from promptreel.errors import RenderError
from promptreel.media import ClipStore
from promptreel.objective import Objective
from promptreel.protocols import Generator, Reward
from promptreel.types import Candidate, Clip, Component, Failure, Query, RenderRequest, ScoredClip

HEIGHT = 384
"""Pixels to which smaller clips are enlarged, by a whole factor."""
GUTTER = 32
"""Divisor of a clip's width that gives the gap between clips side by side."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Rendered:
    """A candidate with its clip and reward, and the file to look at."""

    candidate: Candidate
    file: Path | None = None
    failure: str = ""
    """Reason for which there is no file."""


class Preview:
    """Renders into a directory: ``raw.mp4`` as typed, ``rewrite-1.mp4`` … and ``side-by-side.mp4`` of each query in a
    folder of its own (``.png`` for images); lossless clips in ``clips/``, so that nothing is rendered twice.

    With a recipe, clips are scored by its rewards, and rewarded by its first objective.
    """

    def __init__(self, profile: str, directory: Path, seed: int, judged_by: Recipe | None = None) -> None:
        self.directory, self.seed = directory, seed
        self.fps = profiles.load(profile).fps
        self._generator: Generator = registry.build(Component("generator", "diffusers", {"profile": profile}))
        self._clips = ClipStore(str(directory / "clips"))
        self._rewards: list[Reward] = []
        self._objective: Objective | None = None
        if judged_by:
            self._rewards = [registry.build(table.component("reward")) for table in judged_by.rewards.values()]
            self._objective = next(iter(judged_by.objectives.values())).objective()

    def show(
        self, query: Query, candidates: Sequence[Candidate], report: Progress
    ) -> tuple[dict[str, Rendered], Path | None]:
        """Render candidates of a query, of which the query as typed may be one.

        Return the result for each text, and the file with all of them side by side.
        """
        shown: dict[str, Rendered] = {}
        clips: list[Clip] = []
        folder = self.directory / _folder(query)
        wanted = {candidate.text: candidate for candidate in candidates}
        names = {query.text: "raw"}
        for number, (text, candidate) in enumerate(wanted.items()):
            names.setdefault(text, f"rewrite-{len(names)}")
            report("render", number, len(wanted))
            clip = self._render(candidate)
            if isinstance(clip, Failure):
                shown[text] = Rendered(candidate, failure=clip.detail or clip.reason)
            else:
                clips.append(clip)
                shown[text] = Rendered(self._score(candidate, clip), self._write(folder / names[text], clip.frames))
        report("render", len(wanted), len(wanted))
        together = None
        if len(clips) > 1:
            gap = max(2, clips[0].frames.shape[2] // GUTTER)
            together = self._write(folder / "side-by-side", media.beside([clip.frames for clip in clips], gap))
        return shown, together

    def _render(self, candidate: Candidate) -> Clip | Failure:
        """Return the clip of a candidate, stored or rendered: one at a time, so that it never depends on a batch."""
        query = candidate.query
        request = RenderRequest(candidate.text, query.negative, self.seed, query.aspect)
        key = request.clip_id(self._generator.fingerprint)
        if key not in self._clips:
            try:
                (clip,) = self._generator.render([request])
            except RenderError as error:
                return Failure(error.reason, str(error))
            if isinstance(clip, Failure):
                return clip
            self._clips.write(clip)
        return self._clips.read(key, self.fps)

    def _score(self, candidate: Candidate, clip: Clip) -> Candidate:
        scores: dict[str, float | None] = {}
        for reward in self._rewards:
            scores |= reward.score([(candidate.query, clip)])[0]
        reward_value = self._objective.value(scores) if self._objective else None
        return replace(candidate, clips=(ScoredClip(0, clip.id, scores),), reward=reward_value)

    def _write(self, path: Path, frames: np.ndarray) -> Path:
        scale = max(1, HEIGHT // frames.shape[1])
        if len(frames) == 1:
            media.write_picture(path := path.with_suffix(".png"), frames[0], scale)
        else:
            media.write_video(path := path.with_suffix(".mp4"), frames, self.fps, scale)
        return path


def _folder(query: Query) -> str:
    words = re.findall(r"\w+", query.text.lower())
    return f"{'-'.join(words)[:40].rstrip('-')}-{query.id[:6]}"
