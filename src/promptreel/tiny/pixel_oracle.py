"""The pixel oracle: reads the facts of a scene off the frames.

It knows the drawing of the world and nothing about models. The background is the template that fits best; the shape
stands out from it. The colour is the nearest of the palette, the outline the nearest of the turned and scaled outlines,
the motion the line through the positions, radii or turns. A fact that cannot be read with confidence is left unread, so
that mush is not rewarded for falling on the right side of a boundary.

The oracle scores evaluations and is never a reward of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from promptreel.tiny.world import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    GROWTH,
    PATTERNS,
    SHAPES,
    SIZE,
    SIZES,
    TRAVEL,
    TURN,
    backdrop,
    shape_distance,
)

GRID = 24
"""Side in pixels of the normalised outline images that shapes are compared in."""
EXTENT = 1.5
"""Half the side of a normalised outline image, in radii of a disc of the shape's area."""
TURNS = np.arange(0, 360, 10)
"""Turns in degrees at which outlines are compared."""
BLURS = (0.03, 0.12, 0.22)
"""Blurs, in radii, at which outlines are compared."""
SYMMETRY = {"circle": 360, "ring": 360, "square": 90, "cross": 90, "triangle": 120, "star": 72}
"""Turn in degrees after which a shape looks the same."""

MAX_BACKGROUND_ERROR = 26.0
"""Largest mean absolute difference (0 to 255) to the best background template; above it none is read."""
MAX_COLOUR_ERROR = 80.0
"""Largest distance in RGB (0 to 441) to the nearest colour of the palette; above it none is read."""
MAX_OUTLINE_ERROR = 0.16
"""Largest mean squared difference (0 to 1) to the best outline; above it no shape is read."""
MIN_AREA = 25.0
"""Least area of a shape at mid-clip, in pixels; below it there is no shape."""
MIN_SHIFT, MIN_GROWTH, MIN_TURN = 6.0, 1.22, 25.0
"""Least shift (pixels), growth (ratio of radii) and turn (degrees) over the clip of a moving shape."""
MIN_EDGE, MAX_FLICKER, MAX_GRAIN = 0.27, 0.05, 5.0
"""Limits for a sharp and steady clip: least steepness of edges (share of the contrast per pixel), largest change of
brightness (standard deviation over frames), largest roughness of the background (standard deviation, 0 to 255)."""


@dataclass(frozen=True)
class Reading:
    """Facts that the oracle read off a clip, and the measures of its quality."""

    facts: dict[str, str | None]
    """Every attribute of the world to its value; ``None`` if it was not read. One frame has no motion and no speed."""
    edge: float = 0.0
    """Steepness of the shape's edges: share of the contrast per pixel."""
    flicker: float = 0.0
    """Relative change of brightness over the frames, a standard deviation."""
    grain: float = 0.0
    """Roughness of the background, a standard deviation (0 to 255)."""

    def agrees(self, attribute: str, value: str) -> bool:
        """Return True if this value was read for the attribute."""
        return self.facts.get(attribute) == value


@cache
def _outlines() -> tuple[np.ndarray, np.ndarray]:
    """Return normalised outlines ``(6 * 36 * 3, GRID * GRID)`` and areas ``(6,)`` of shapes of radius 1."""
    fine = 4
    side = np.linspace(-EXTENT, EXTENT, GRID * fine * 2 + 1)[1::2]
    pictures, areas = [], []
    for shape in SHAPES:
        x, y = np.meshgrid(*[np.linspace(-1.6, 1.6, 401)] * 2)
        body, mark = shape_distance(shape, x, y)
        area = float(((body < 0) & (mark > 0)).mean() * 3.2**2)
        unit = np.sqrt(area / np.pi)
        x, y = np.meshgrid(side * unit, side * unit)
        rows = []
        for turn in np.deg2rad(TURNS):
            body, mark = shape_distance(shape, np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x)
            solid = ((body < 0) & (mark > 0)).astype(float)
            centre = ndimage.center_of_mass(solid)
            solid = ndimage.shift(solid, (GRID * fine - 1) / 2 - np.array(centre), order=1)
            for blur in BLURS:
                soft = ndimage.gaussian_filter(solid, blur * GRID * fine / (2 * EXTENT))
                rows.append(soft.reshape(GRID, fine, GRID, fine).mean((1, 3)).ravel())
        pictures.append(rows)
        areas.append(area)
    return np.array(pictures).reshape(len(SHAPES) * len(TURNS) * len(BLURS), -1), np.array(areas)


@cache
def _backdrops() -> tuple[list[tuple[str, str]], np.ndarray]:
    """Return (background, pattern) of every backdrop, and their images ``(18, 64, 64, 3)`` float32."""
    names = [(background, pattern) for background in BACKGROUNDS for pattern in PATTERNS]
    return names, np.stack([backdrop(*name) for name in names]).astype(np.float32)


def _normalise(cover: np.ndarray, centre: np.ndarray, area: float) -> np.ndarray:
    """Return a shape's cover map moved to the centre and scaled to the area of the outlines, ``(GRID * GRID,)``."""
    unit = np.sqrt(area / np.pi)
    offsets = (np.arange(GRID) + 0.5) / GRID * 2 * EXTENT - EXTENT
    coordinates = np.meshgrid(centre[0] + offsets * unit, centre[1] + offsets * unit, indexing="ij")
    moved: np.ndarray = ndimage.map_coordinates(cover, coordinates, order=1, mode="constant")
    return moved.ravel()


def _steepness(cover: np.ndarray) -> float:
    """Return the steepness of a cover map's edges, as the share of full contrast per pixel."""
    slope = np.hypot(ndimage.sobel(cover, 0), ndimage.sobel(cover, 1)) / 8
    band = (cover > 0.2) & (cover < 0.8)
    return float(np.median(slope[band])) if band.sum() >= 4 else float(slope.max())


def read(frames: np.ndarray) -> Reading:
    """Read a clip ``(T, 64, 64, 3)`` uint8; T is 9, or 1 for an image.

    Raises ``ValueError`` for frames of another size: the oracle reads clips of the tiny world only.
    """
    if frames.ndim != 4 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(f"the oracle reads clips of shape (T, {SIZE}, {SIZE}, 3), got {frames.shape}")
    facts: dict[str, str | None] = dict.fromkeys(
        ("shape", "colour", "size", "motion", "speed", "background", "pattern", "quality")
    )
    clip = frames.astype(np.float32)
    name, gains, error = _background(clip)
    if error > MAX_BACKGROUND_ERROR:
        return Reading(facts)
    facts["background"], facts["pattern"] = name
    flat = clip / gains[:, None, None, None]
    behind = backdrop(*name)
    still = np.median(flat, axis=0)
    behind = np.where(np.abs(still - behind).sum(-1, keepdims=True) < 60, still, behind)
    away = np.linalg.norm(flat - behind, axis=-1)
    solid = away > max(0.5 * np.percentile(away, 99.5), 40)
    solid = ndimage.binary_erosion(solid, np.ones((1, 2, 2)))
    if solid.sum() < MIN_AREA:
        return Reading(facts)
    painted = flat[solid]
    palette = np.array(list(COLOURS.values()), dtype=float)
    distances = np.linalg.norm(painted[:, None] - palette, axis=-1)
    votes = np.bincount(distances.argmin(1), minlength=len(palette))
    chosen = int(votes.argmax())
    colour = np.median(painted[distances.argmin(1) == chosen], axis=0)
    if np.linalg.norm(colour - palette[chosen]) <= MAX_COLOUR_ERROR:
        facts["colour"] = list(COLOURS)[chosen]

    # 1 where a pixel has the shape's colour, 0 from the distance of the background on: along an edge this is
    # the share of the shape, and a dark mark is not taken for shape on a bright background.
    contrast = np.maximum(np.linalg.norm(colour - behind, axis=-1), 1)
    cover = np.clip(1 - np.linalg.norm(flat - colour, axis=-1) / contrast, 0, 1)
    cover[cover < 0.25] = 0
    cover = np.stack([_largest(frame) for frame in cover])
    area = cover.sum((1, 2))
    present = area >= MIN_AREA / 2
    middle = len(clip) // 2
    if present.mean() < 0.75 or area[middle] < MIN_AREA:
        return Reading(facts)
    index = np.flatnonzero(present)
    centres = np.array([ndimage.center_of_mass(cover[i]) for i in index])

    outlines, unit_areas = _outlines()
    seen = np.stack([_normalise(cover[i], centre, area[i]) for i, centre in zip(index, centres, strict=True)])
    mismatch = (seen**2).mean(1)[:, None] + (outlines**2).mean(1) - 2 * seen @ outlines.T / seen.shape[1]
    mismatch = mismatch.reshape(len(index), len(SHAPES), len(TURNS), len(BLURS)).min(3)
    per_shape = mismatch.min(2).mean(0)
    which = int(per_shape.argmin())
    shape = SHAPES[which]
    if per_shape[which] <= MAX_OUTLINE_ERROR:
        facts["shape"] = shape
    radii = np.sqrt(area[index] / unit_areas[which])
    at_middle = float(np.median(radii[np.abs(index - middle) <= 1]))
    facts["size"] = min(SIZES, key=lambda name: abs(np.log(at_middle / SIZES[name])))

    edge = float(np.median([_steepness(cover[i]) for i in index]))
    flicker, grain = _unsteadiness(clip, cover, backdrop(*name))
    good = edge >= MIN_EDGE and flicker <= MAX_FLICKER and grain <= MAX_GRAIN
    facts["quality"] = "sharp" if good else "poor"
    if len(clip) > 1 and len(index) >= 5:
        turns = _turns(mismatch[:, which], SYMMETRY[shape])
        facts["motion"], facts["speed"] = _motion(index / (len(clip) - 1), centres, radii, turns)
    return Reading(facts, edge, flicker, grain)


_BORDER = np.zeros((SIZE, SIZE), dtype=bool)
_BORDER[::2, ::2] = True
_BORDER[8:-8, 8:-8] = False


def _background(clip: np.ndarray) -> tuple[tuple[str, str], np.ndarray, float]:
    """Return the best background, the brightness of each frame relative to it ``(T,)``, and the mean error (0 to 60).

    Brightness is fitted at every other pixel of the border, where the shape seldom is. It is drawn towards 1, so that a
    dark background cannot be explained by dimming a bright one.
    """
    names, templates = _backdrops()
    border = clip[:, _BORDER].reshape(len(clip), -1)
    expected = templates[:, _BORDER].reshape(len(names), -1)
    weight = 0.02 * 128.0**2 * expected.shape[1]
    gains = (border @ expected.T + weight) / ((expected**2).sum(1) + weight)
    gains = np.clip(gains, 0.6, 1.5)
    errors = [np.minimum(np.abs(border / gains[:, i, None] - expected[i]), 60).mean() for i in range(len(names))]
    best = int(np.argmin(errors))
    return names[best], gains[:, best], float(errors[best])


def _unsteadiness(clip: np.ndarray, cover: np.ndarray, behind: np.ndarray) -> tuple[float, float]:
    """Return the relative change of brightness over the frames, and the grain (0 to 255), both away from the shape."""
    levels, grains = [], []
    for frame, shape in zip(clip, cover, strict=True):
        bare = ~ndimage.binary_dilation(shape > 0.1, iterations=3)
        if bare.sum() < SIZE:
            continue
        gray, expected = frame.mean(-1), behind.mean(-1)
        levels.append((gray[bare].mean() + 20) / (expected[bare].mean() + 20))
        fine = gray - expected * (gray[bare].mean() / max(expected[bare].mean(), 1))
        grains.append((fine - ndimage.uniform_filter(fine, 3))[bare].std())
    if not levels:
        return 0.0, 0.0
    return float(np.std(levels)), float(np.median(grains))


def _largest(cover: np.ndarray) -> np.ndarray:
    """Return a cover map with its largest connected part alone."""
    labels, count = ndimage.label(cover)
    if count <= 1:
        return cover
    sums = ndimage.sum_labels(cover, labels, range(1, count + 1))
    return np.where(labels == 1 + int(np.argmax(sums)), cover, 0)


def _turns(mismatch: np.ndarray, symmetry: int) -> np.ndarray:
    """Return the unwrapped turn in degrees of each frame, from its mismatch ``(T, 36)`` to the turned outlines."""
    best = TURNS[mismatch.argmin(1)] % symmetry
    steps = (np.diff(best) + symmetry / 2) % symmetry - symmetry / 2
    return np.concatenate([[0.0], np.cumsum(steps)])


def _slope(at: np.ndarray, values: np.ndarray) -> float:
    """Return the change over the whole clip of the line through ``values`` at times 0 to 1."""
    return float(np.polyfit(at, values, 1)[0])


def _motion(at: np.ndarray, centres: np.ndarray, radii: np.ndarray, turns: np.ndarray) -> tuple[str, str | None]:
    """Return motion and speed, from positions ``(T, 2)`` as (row, column), radii ``(T,)`` and turns ``(T,)``."""
    down, right = _slope(at, centres[:, 0]), _slope(at, centres[:, 1])
    growth = float(np.exp(_slope(at, np.log(radii))))
    turn = abs(_slope(at, turns))
    shift = float(np.hypot(down, right))
    strengths = {
        "shift": np.log(max(shift, 1e-3) / MIN_SHIFT),
        "growth": np.log(abs(np.log(growth)) / np.log(MIN_GROWTH) + 1e-9),
        "turn": np.log(max(turn, 1e-3) / MIN_TURN),
    }
    kind = max(("shift", "growth"), key=lambda name: strengths[name])
    if strengths[kind] < 0:
        kind = "turn"
    if strengths[kind] < 0:
        return "still", None
    if kind == "shift":
        name = max(DIRECTIONS, key=lambda key: DIRECTIONS[key][0] * right + DIRECTIONS[key][1] * down)
        return name, _speed(shift, TRAVEL)
    if kind == "growth":
        return ("grow" if growth > 1 else "shrink"), _speed(max(growth, 1 / growth), GROWTH, log=True)
    return "spin", _speed(turn, TURN)


def _speed(amount: float, amounts: dict[str, float], log: bool = False) -> str:
    """Return the speed whose amount over the clip is nearest, on a logarithmic scale if ``log``."""
    slow, fast = amounts["slow"], amounts["fast"]
    if log:
        amount, slow, fast = np.log(amount), np.log(slow), np.log(fast)
    return "slow" if amount < (slow + fast) / 2 else "fast"
