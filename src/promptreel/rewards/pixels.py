"""Classical measures of picture quality, from the pixels of any clip, without weights.

All are computed on luma (ITU-R BT.601) scaled to 0..1, and all are higher for better clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np

from promptreel.protocols import Modality
from promptreel.types import Clip, Query, Scores

VERSION = 1


class Pixels:
    """Five measures of a clip, which do not read the query.

    - ``sharpness``: the steepest edges, as the 99th percentile of the gradient (per pixel, 0 to about 0.5),
      relative to the contrast of the frame; the mean over frames;
    - ``cleanness``: minus the noise, its standard deviation estimated from the Laplacian (J. Immerkær, *Fast
      noise variance estimation*, 1996); the mean over frames;
    - ``steadiness``: minus the flicker, the mean change of second order of the median brightness;
    - ``motion``: the mean length of the dense optical flow (Farnebäck) in its fastest tenth, in frame
      widths per frame;
    - ``persistence``: correlation of neighbouring frames after compensating that flow.

    A clip of one frame has only the first two, one of two frames lacks ``steadiness``, and a flat clip lacks
    ``sharpness`` and ``persistence``.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("sharpness", "cleanness", "steadiness", "motion", "persistence")
    ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "cleanness": (-2.0, 0.0),
        "steadiness": (-2.0, 0.0),
        "persistence": (-1.0, 1.0),
    }
    """Bounds of the dimensions that have two; ``sharpness`` and ``motion`` are at least 0."""
    moving: ClassVar[tuple[str, ...]] = ("steadiness", "motion", "persistence")
    modality: ClassVar[Modality] = "video"
    licence: ClassVar[str] = "Apache-2.0"
    prompt_tokens: ClassVar[int] = 0

    def __init__(self) -> None:
        self.fingerprint = f"pixels:{VERSION}"

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        return [measure(clip.frames) for _, clip in items]


def measure(frames: np.ndarray) -> Scores:
    """Return the five measures of frames ``(T, H, W, 3)`` uint8."""
    luma = np.stack([cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in frames])
    unit = luma.astype(np.float32) / 255
    contrast = float(np.mean([np.percentile(f, 99) - np.percentile(f, 1) for f in unit]))
    scores: dict[str, float | None] = dict.fromkeys(Pixels.dimensions)
    scores["cleanness"] = -float(np.mean([_noise(frame) for frame in unit]))
    if contrast > 0.02:
        scores["sharpness"] = float(np.mean([_steepness(frame) for frame in unit])) / contrast
    if len(frames) > 2:
        levels = np.median(unit, axis=(1, 2))
        scores["steadiness"] = -float(np.abs(np.diff(levels, 2)).mean())
    if len(frames) > 1:
        scores["motion"], scores["persistence"] = _flow(luma)
    return scores


def _steepness(frame: np.ndarray) -> float:
    """Return the 99th percentile of the gradient's length, per pixel."""
    dx = cv2.Sobel(frame, cv2.CV_32F, 1, 0, scale=1 / 8)
    dy = cv2.Sobel(frame, cv2.CV_32F, 0, 1, scale=1 / 8)
    return float(np.percentile(np.hypot(dx, dy), 99))


_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def _noise(frame: np.ndarray) -> float:
    """Return Immerkær's estimate, over the quieter half of the pixels so that edges do not count as noise."""
    response = np.abs(cv2.filter2D(frame, cv2.CV_32F, _LAPLACIAN))[1:-1, 1:-1]
    return float(np.median(response) / (6 * 0.6745))


def _flow(luma: np.ndarray) -> tuple[float, float | None]:
    """Return motion and persistence of luma ``(T, H, W)`` uint8; the second is ``None`` if every frame is flat."""
    height, width = luma.shape[1:]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    lengths, matches = [], []
    for before, after in pairwise(luma):
        flow = cv2.calcOpticalFlowFarneback(before, after, np.zeros((height, width, 2)), 0.5, 3, 9, 3, 5, 1.1, 0)
        length = np.hypot(flow[..., 0], flow[..., 1])
        lengths.append(float(length[length >= np.percentile(length, 90)].mean()))
        moved = cv2.remap(after, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR)
        a, b = before.astype(np.float32).ravel(), moved.astype(np.float32).ravel()
        if a.std() > 1 and b.std() > 1:
            matches.append(float(np.corrcoef(a, b)[0, 1]))
    return float(np.mean(lengths)) / width, float(np.mean(matches)) if matches else None
