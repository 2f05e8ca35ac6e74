"""A query and its rewrites rendered from the same noise, to be looked at before anything larger is begun."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptreel import profiles, registry
from promptreel.config import Recipe
from promptreel.errors import RenderError
from promptreel.protocols import Generator, Reward
from promptreel.scoring import Report, silent, total
from promptreel.store import ClipCache
from promptreel.types import Clip, Component, Failure, Query, RenderRequest

HEIGHT = 384
"""Pixels to which smaller clips are enlarged, by a whole factor."""
GUTTER = 32
"""What of a clip's width stands between clips side by side."""


@dataclass(frozen=True)
class Shown:
    """What became of one text. ``video`` and ``total`` are missing where there are none, ``failure`` says why."""

    video: Path | None = None
    total: float | None = None
    failure: str = ""


class Preview:
    """Renders into a directory: ``raw.mp4`` as typed, ``rewrite-1.mp4`` … and ``side-by-side.mp4`` of each query in a
    folder of its own (``.png`` for images); lossless clips in ``clips/``, so that nothing is rendered twice.

    ``judged_by`` is a recipe: clips are scored by its rewards, and the scores added up by its first blend.
    """

    def __init__(self, profile: str, directory: Path, seed: int, judged_by: Recipe | None = None) -> None:
        self.directory, self.seed = directory, seed
        self.fps = profiles.load(profile).fps
        self._generator: Generator = registry.build(Component("generator", "diffusers", {"profile": profile}))
        self._clips = ClipCache(directory / "clips")
        self._rewards: list[Reward] = []
        self._weights: Mapping[str, float] = {}
        if judged_by:
            self._rewards = [registry.build(table.component("reward")) for table in judged_by.rewards.values()]
            self._weights = next(iter(judged_by.blends.values())).weights

    def show(self, query: Query, texts: Sequence[str], report: Report = silent) -> tuple[dict[str, Shown], Path | None]:
        """What became of each text, of which the query as typed may be one, and the file with all side by side."""
        shown: dict[str, Shown] = {}
        clips: list[Clip] = []
        folder = self.directory / _name(query)
        wanted = list(dict.fromkeys(texts))
        names = {query.text: "raw"}
        for number, text in enumerate(wanted):
            names.setdefault(text, f"rewrite-{len(names)}")
            report("render", number, len(wanted))
            clip = self._clip(query, text)
            if isinstance(clip, Failure):
                shown[text] = Shown(failure=clip.detail or clip.reason)
                continue
            clips.append(clip)
            shown[text] = Shown(self._write(folder / names[text], clip.frames), self._total(query, clip))
        report("render", len(wanted), len(wanted))
        together = self._write(folder / "side-by-side", beside(clips)) if len(clips) > 1 else None
        return shown, together

    def _clip(self, query: Query, text: str) -> Clip | Failure:
        """The clip of a text, from the cache or rendered: one at a time, so that no clip depends on its neighbours."""
        request = RenderRequest(text, query.negative, self.seed, query.aspect)
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

    def _total(self, query: Query, clip: Clip) -> float | None:
        if not self._rewards:
            return None
        scores: dict[str, float | None] = {}
        for reward in self._rewards:
            scores |= reward.score([(query, clip)])[0]
        return total(scores, self._weights)

    def _write(self, path: Path, frames: np.ndarray) -> Path:
        from promptreel import media

        scale = max(1, HEIGHT // frames.shape[1])
        if len(frames) == 1:
            media.write_picture(path := path.with_suffix(".png"), frames[0], scale)
        else:
            media.write_video(path := path.with_suffix(".mp4"), frames, self.fps, scale)
        return path


def beside(clips: Sequence[Clip]) -> np.ndarray:
    """The frames of clips of one size, in a row from left to right."""
    length, height, width, _ = clips[0].frames.shape
    gutter = np.zeros((length, height, max(2, width // GUTTER), 3), np.uint8)
    parts = [part for clip in clips for part in (gutter, clip.frames)]
    return np.concatenate(parts[1:], axis=2)


def _name(query: Query) -> str:
    words = re.findall(r"\w+", query.text.lower())
    return f"{'-'.join(words)[:40].rstrip('-')}-{query.id[:6]}"
