"""The tiny world: scenes of one shape, and the true clip of each.

A scene is a shape on a background that does one thing for nine frames. Everything that a scene states can be seen in
its clip: a shape that looks the same when turned has a dark mark, a still shape has no speed, and the size is that at
mid-clip. The numbers below are our own choice, so that every fact survives an eightfold autoencoder; they are not
measurements.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
from scipy import ndimage

SIZE, FRAMES, FPS = 64, 9, 8
"""Height and width in pixels, frames, and frames per second of every clip of the world."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (230, 30, 40), "green": (40, 200, 60), "blue": (50, 90, 255), "yellow": (250, 230, 30),
    "purple": (160, 50, 220), "orange": (255, 130, 10), "cyan": (40, 225, 235), "white": (250, 250, 250),
}  # fmt: skip
SIZES = {"small": 10.0, "medium": 14.0, "large": 19.5}
"""Radius in pixels at mid-clip."""
MOTIONS = ("left", "right", "up", "down", "still", "spin", "grow", "shrink")
SPEEDS = ("slow", "fast")
BACKGROUNDS = {
    "black": (12, 12, 12), "gray": (125, 125, 125), "navy": (15, 20, 95), "maroon": (100, 12, 30),
    "forest": (10, 80, 35), "sand": (205, 180, 130),
}  # fmt: skip
PATTERNS = ("plain", "striped", "checkered")
QUALITIES = ("sharp", "poor")

VALUES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "motion": MOTIONS,
    "speed": SPEEDS,
    "background": tuple(BACKGROUNDS),
    "pattern": PATTERNS,
    "quality": QUALITIES,
}
"""Every attribute of a scene and the values it can take."""

TRAVEL = {"slow": 12.0, "fast": 30.0}
"""Distance in pixels that a shape moving left, right, up or down travels over the clip."""
TURN = {"slow": 50.0, "fast": 160.0}
"""Angle in degrees that a spinning shape turns over the clip."""
GROWTH = {"slow": 1.5, "fast": 2.4}
"""Ratio of last to first radius of a growing shape (first to last of a shrinking one)."""
CELL = 8
"""Width in pixels of one stripe or one checker."""
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Motion to its direction as (x, y) in the image, y pointing down."""


@dataclass(frozen=True)
class Scene:
    """One scene. ``speed`` is ``None`` if and only if ``motion`` is ``still``."""

    shape: str
    colour: str
    size: str
    motion: str
    speed: str | None
    background: str
    pattern: str
    quality: str = "sharp"

    def __post_init__(self) -> None:
        if (self.speed is None) != (self.motion == "still"):
            raise ValueError(f"speed {self.speed!r} does not go with motion {self.motion!r}")

    @property
    def facts(self) -> dict[str, str]:
        """Attribute to value; a still scene has no speed."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def random_scene(rng: np.random.Generator, **fixed: str) -> Scene:
    """Draw a scene uniformly, with the given facts held fixed.

    A fixed speed excludes ``still``; quality is ``sharp`` unless fixed otherwise.
    """
    drawn = {name: str(rng.choice(values)) for name, values in VALUES.items() if name != "quality"}
    if "speed" in fixed and "motion" not in fixed:
        drawn["motion"] = str(rng.choice([motion for motion in MOTIONS if motion != "still"]))
    facts: dict[str, str | None] = {**drawn, "quality": "sharp", **fixed}
    if facts["motion"] == "still":
        facts["speed"] = None
    return Scene(**facts)  # type: ignore[arg-type]


def _polygon(radii: np.ndarray) -> np.ndarray:
    """Return the vertices ``(N, 2)`` of a polygon with the given radii at equal angles, the first one straight up."""
    angles = -np.pi / 2 + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


TRIANGLE = _polygon(np.full(3, 1.2))
STAR = _polygon(np.tile([1.2, 0.48], 5))


def _polygon_distance(x: np.ndarray, y: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Return the signed distances of points to a polygon, negative inside."""
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * ex, y - ay - along * ey))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return np.where(inside, -nearest, nearest)


def shape_distance(shape: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the signed distances, in radii, of points to a shape of radius 1 at the origin, and to its dark mark.

    Negative is inside. A shape without a mark has infinite distances to it.
    """
    far = np.full(x.shape, np.inf)
    match shape:
        case "circle":
            return np.hypot(x, y) - 1, np.hypot(x, y + 0.5) - 0.32
        case "ring":
            return np.abs(np.hypot(x, y) - 0.76) - 0.28, np.hypot(x, y + 0.76) - 0.36
        case "square":
            return np.maximum(np.abs(x), np.abs(y)) - 0.84, far
        case "cross":
            across = np.maximum(np.abs(x) - 1.05, np.abs(y) - 0.32)
            return np.minimum(across, np.maximum(np.abs(x) - 0.32, np.abs(y) - 1.05)), far
        case "triangle":
            return _polygon_distance(x, y, TRIANGLE), far
        case "star":
            return _polygon_distance(x, y, STAR), far
    raise ValueError(f"unknown shape {shape!r}; the world has {', '.join(SHAPES)}")


@cache
def backdrop(background: str, pattern: str) -> np.ndarray:
    """Return the background without a shape, ``(64, 64, 3)`` float in 0 to 255."""
    base = np.array(BACKGROUNDS[background], dtype=float)
    other = base * 0.68 if base.mean() > 110 else base + 0.3 * (255 - base)
    rows, columns = np.indices((SIZE, SIZE)) // CELL
    second = {
        "plain": np.zeros((SIZE, SIZE)),
        "striped": columns % 2,
        "checkered": (rows + columns) % 2,
    }[pattern]
    image = np.where(second[..., None] > 0, other, base)
    image.setflags(write=False)
    return image


def trajectory(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the centres ``(9, 2)`` in pixels, radii ``(9,)`` in pixels and turns ``(9,)`` in degrees of a scene."""
    progress = np.linspace(-0.5, 0.5, FRAMES)
    centre = SIZE / 2 - 0.5 + rng.uniform(-4, 4, 2)
    centres = np.repeat(centre[None], FRAMES, axis=0)
    radii = np.full(FRAMES, SIZES[scene.size] * rng.uniform(0.95, 1.05))
    turns = np.zeros(FRAMES)
    if scene.speed is not None:
        wobble = rng.uniform(0.92, 1.08)
        if scene.motion in DIRECTIONS:
            step = np.array(DIRECTIONS[scene.motion]) * TRAVEL[scene.speed] * wobble
            centres = np.where(step == 0, centres, SIZE / 2 - 0.5 + (centres - SIZE / 2 + 0.5) / 2)
            centres = centres + progress[:, None] * step
        elif scene.motion == "spin":
            turns = (progress + 0.5) * TURN[scene.speed] * wobble * rng.choice([-1, 1])
        else:
            sign = 1 if scene.motion == "grow" else -1
            radii = radii * GROWTH[scene.speed] ** (sign * progress * wobble)
    return centres, radii, turns


def render(scene: Scene, seed: int, frames: int = FRAMES) -> np.ndarray:
    """Render the true clip of a scene, ``(frames, 64, 64, 3)`` uint8. Equal scenes and seeds give equal clips.

    ``frames=1`` gives the middle frame alone: the world's still image.
    """
    rng = np.random.default_rng(seed)
    centres, radii, turns = trajectory(scene, rng)
    clip = np.empty((FRAMES, SIZE, SIZE, 3))
    colour = np.array(COLOURS[scene.colour], dtype=float)
    rows, columns = np.indices((SIZE, SIZE))
    for index in range(FRAMES):
        dx, dy = (columns - centres[index, 0]) / radii[index], (rows - centres[index, 1]) / radii[index]
        turn = np.deg2rad(turns[index])
        x, y = np.cos(turn) * dx + np.sin(turn) * dy, np.cos(turn) * dy - np.sin(turn) * dx
        body, mark = shape_distance(scene.shape, x, y)
        cover = np.clip(0.5 - body * radii[index], 0, 1)[..., None]
        dark = np.clip(0.5 - mark * radii[index], 0, 1)[..., None]
        painted = colour * (1 - 0.85 * dark)
        clip[index] = backdrop(scene.background, scene.pattern) * (1 - cover) + painted * cover
    if scene.quality == "poor":
        clip = _spoil(clip, rng)
    clip = np.clip(clip + rng.normal(0, 1.5, clip.shape), 0, 255).round().astype(np.uint8)
    return clip if frames == FRAMES else clip[FRAMES // 2 : FRAMES // 2 + 1]


def _spoil(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a clip with the faults of poor quality: blur, grain and flicker together."""
    blurred = ndimage.gaussian_filter(clip, (0, *[rng.uniform(1.4, 1.9)] * 2, 0))
    grain = ndimage.gaussian_filter(rng.normal(0, 1, clip.shape[:3]), (0, 1.0, 1.0))
    grain *= rng.uniform(12, 18) / grain.std()
    gains = 1 + rng.choice([-1, 1]) * rng.uniform(0.14, 0.24) * np.where(np.arange(len(clip)) % 2, 1, -1)
    gains = gains + rng.normal(0, 0.04, len(clip))
    spoiled: np.ndarray = (blurred + grain[..., None]) * gains[:, None, None, None]
    return spoiled
