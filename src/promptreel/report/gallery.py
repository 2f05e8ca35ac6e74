"""Queries to look at: prompts with their words marked, and raw and final clips side by side in one video.

One video of both clips, so that they play in step: they start from the same noise.
"""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from promptreel import media
from promptreel.errors import RunError
from promptreel.protocols import Explainer, Reward
from promptreel.report.diff import compare
from promptreel.store import Run
from promptreel.types import Clip, Query

Rows = Mapping[Query, Mapping[str, Any]]
"""What a system did with each query of a benchmark, as stored."""

PER_SHELF = 4
"""Queries shown as best, worst and most changed."""
WIDTHS = (128, 320)
"""Pixels that an embedded clip is at least and at most wide."""
GAP = 2
"""Pixels between the two clips of a video."""
WORD = r"[^\W_]+(?:[-'’][^\W_]+)*"


@dataclass(frozen=True)
class Side:
    """One system's half of a card."""

    system: str
    text: Markup
    """The prompt, escaped, with the words it shares with the query, and those it adds, marked."""
    shown: bool
    """Whether there is a clip of it."""
    read: str
    """What the judge says it saw, if it can say."""
    scores: str
    facts: list[tuple[str, str]]
    removed: list[str]
    """What was left out because it is harm."""


@dataclass(frozen=True)
class Card:
    query: str
    gain: float
    shown: str
    """A data URI of both clips, the first side's on the left: a video, or a picture of two images; empty when neither
    could be rendered.
    """
    shape: tuple[int, int]
    """Its width and height in pixels."""
    sides: tuple[Side, Side]


def value(row: Mapping[str, Any], metric: str) -> float | None:
    """A metric of the judge, or what the text alone is like (``fidelity``, ``unsafe`` …), of a stored row."""
    found: float | None = row["metrics"].get(metric, row.get(metric))
    return found


def gains(before: Rows, after: Rows, metric: str) -> dict[Query, float]:
    """By how much each query gained from one system to another, where both have the metric."""
    found = {}
    for query, row in before.items():
        old, new = value(row, metric), value(after[query], metric) if query in after else None
        if old is not None and new is not None:
            found[query] = new - old
    return found


def shelves(
    run: Run, judge: Reward, systems: tuple[str, str], before: Rows, after: Rows, metric: str
) -> dict[str, Any]:
    """Cards of the queries that gained most, gained least, and whose prompts changed most; each query once."""
    gained = gains(before, after, metric)
    likeness = {query: _likeness(query.text, after[query]["text"]) for query in gained}
    order = {
        "Gained most": sorted(gained, key=lambda query: (-gained[query], query.id)),
        "Gained least": sorted(gained, key=lambda query: (gained[query], query.id)),
        "Changed most": sorted(gained, key=lambda query: (likeness[query], query.id)),
    }
    chosen: set[Query] = set()
    filled = {}
    for title, ranked in order.items():
        shelf = [query for query in ranked if query not in chosen][:PER_SHELF]
        chosen |= set(shelf)
        filled[title] = [
            _card(run, judge, systems, query, before[query], after[query], gained[query]) for query in shelf
        ]
    return {title: cards for title, cards in filled.items() if cards}


def clip_of(run: Run, row: Mapping[str, Any]) -> Clip | None:
    """The first clip of a row; ``None`` when there is none, or its file is damaged."""
    if not row["clips"]:
        return None
    key = row["clips"][0]
    try:
        return run.clips.read(key, run.database.clips([key])[key][2])
    except RunError:
        return None


def _card(
    run: Run,
    judge: Reward,
    systems: tuple[str, str],
    query: Query,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    gain: float,
) -> Card:
    rows = (before, after)
    clips = [clip_of(run, row) for row in rows]
    sides = [_side(judge, system, query, row, clip) for system, row, clip in zip(systems, rows, clips, strict=True)]
    shown, shape = _shown(*clips)
    return Card(query.text, gain, shown, shape, (sides[0], sides[1]))


def _side(judge: Reward, system: str, query: Query, row: Mapping[str, Any], clip: Clip | None) -> Side:
    read = judge.explain(query, clip) if clip and isinstance(judge, Explainer) else ""
    scores = ", ".join(f"{name} {score:.2f}" for name, score in row["metrics"].items() if score is not None)
    facts = [(fact[0], fact[1]) for fact in row["facts"]]
    return Side(system, marked(query.text, row["text"]), clip is not None, read, scores, facts, row.get("removed", []))


def words(text: str) -> list[str]:
    return re.findall(WORD, text.lower())


def _likeness(a: str, b: str) -> float:
    """The share of the different words of two texts that are in both."""
    left, right = set(words(a)), set(words(b))
    return len(left & right) / max(len(left | right), 1)


def marked(query: str, text: str) -> Markup:
    """A prompt, escaped, with its words in common with the query and its added words marked, neighbours together."""
    found: list[tuple[str, str]] = []
    for piece, kind in compare(query, text):
        if len(found) > 1 and found[-1][0].isspace() and found[-2][1] == kind:
            space, _ = found.pop()
            before, _ = found.pop()
            piece = before + space + piece
        found.append((piece, kind))
    return Markup("").join(
        Markup('<span class="{1}">{0}</span>').format(*f) if f[1] else Markup.escape(f[0]) for f in found
    )


def _shown(left: Clip | None, right: Clip | None) -> tuple[str, tuple[int, int]]:
    """Both clips as one H.264 video, or both images as one PNG, in a data URI, and its width and height."""
    there = left or right
    if there is None:
        return "", (2, 1)
    frames = beside(left.frames if left else None, right.frames if right else None, WIDTHS[1])
    scale = -(-WIDTHS[0] // there.frames.shape[2])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clips"
        if len(frames) == 1:
            kind = "image/png"
            media.write_picture(path, frames[0], scale)
        else:
            kind = "video/mp4"
            media.write_video(path, frames, there.fps, scale)
        encoded = base64.b64encode(path.read_bytes()).decode()
    return f"data:{kind};base64,{encoded}", (frames.shape[2] * scale, frames.shape[1] * scale)


def beside(left: np.ndarray | None, right: np.ndarray | None, width: int) -> np.ndarray:
    """Two clips ``(T, H, W, 3)``, each at most ``width`` pixels wide, next to each other with a gap.

    One that is missing is grey, and one that is shorter stands still at its end.
    """
    there = next(frames for frames in (left, right) if frames is not None)
    pair = [media.shrink(np.full_like(there, 128) if frames is None else frames, width) for frames in (left, right)]
    count, height = max(len(frames) for frames in pair), max(frames.shape[1] for frames in pair)
    gap = np.full((count, height, GAP, 3), 128, np.uint8)
    joined: np.ndarray = np.concatenate([_padded(pair[0], count, height), gap, _padded(pair[1], count, height)], axis=2)
    return joined


def _padded(frames: np.ndarray, count: int, height: int) -> np.ndarray:
    later = [(0, count - len(frames)), (0, 0), (0, 0), (0, 0)]
    lower = [(0, 0), (0, height - frames.shape[1]), (0, 0), (0, 0)]
    return np.pad(np.pad(frames, later, mode="edge"), lower, constant_values=128)
