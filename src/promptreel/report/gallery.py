"""Queries to look at: prompts with their words marked, and raw and final clips side by side.

Both clips are one video, so that they play in step: they start from the same noise.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from promptreel import media
from promptreel.errors import RunError
from promptreel.evaluation.compare import metric
from promptreel.report.diff import compare
from promptreel.store import Run
from promptreel.store.content import Clips, read_explanations
from promptreel.types import Candidate, Clip, Query

Rows = Mapping[Query, Candidate]
"""A system's candidate for each query of a benchmark."""

PER_SHELF = 4
"""Queries shown as best, worst and most changed."""
WIDTHS = (128, 320)
"""Least and greatest width of an embedded clip in pixels."""
GAP = 2
"""Pixels between the two clips of a video."""
GREY = 128
"""Value (0..255) of a missing clip and of the gap."""
WORD = r"[^\W_]+(?:[-'’][^\W_]+)*"


@dataclass(frozen=True)
class Side:
    """One system's half of a card."""

    system: str
    text: Markup
    """The prompt, escaped, with the words it shares with the query, and those it adds, marked."""
    shown: bool
    """True if there is a clip of it."""
    described: str
    """Description of the clip by the reward model, if it gives one."""
    scores: str
    facts: list[tuple[str, str]]
    removed: list[str]
    """Harmful parts of the query that it leaves out."""


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


def gains(before: Rows, after: Rows, name: str) -> dict[Query, float]:
    """Return the gain of each query from one system to another, where both have the metric."""
    found = {}
    for query, candidate in before.items():
        old = metric(candidate, name)
        new = metric(after[query], name) if query in after else None
        if old is not None and new is not None:
            found[query] = new - old
    return found


def shelves(run: Run, systems: tuple[str, str], before: Rows, after: Rows, name: str) -> dict[str, list[Card]]:
    """Return cards of the queries that gained most, gained least, and whose prompts changed most; each query once."""
    gained = gains(before, after, name)
    similarity = {query: _similarity(query.text, after[query].text) for query in gained}
    order = {
        "Gained most": sorted(gained, key=lambda query: (-gained[query], query.id)),
        "Gained least": sorted(gained, key=lambda query: (gained[query], query.id)),
        "Changed most": sorted(gained, key=lambda query: (similarity[query], query.id)),
    }
    chosen: set[Query] = set()
    filled = {}
    for title, ranked in order.items():
        shelf = [query for query in ranked if query not in chosen][:PER_SHELF]
        chosen |= set(shelf)
        filled[title] = [_card(run, systems, (before[query], after[query]), gained[query]) for query in shelf]
    return {title: cards for title, cards in filled.items() if cards}


def clip_of(run: Run, candidate: Candidate) -> Clip | None:
    """Return the first clip of a candidate; ``None`` if there is none, or its file is damaged."""
    key = next((clip.clip for clip in candidate.full_clips if clip.clip), None)
    if key is None:
        return None
    with run.database.reading() as connection:
        fps = Clips.read(connection, [key])[key]
    try:
        return run.clips.read(key, fps if isinstance(fps, float) else 0.0)
    except RunError:
        return None


def _card(run: Run, systems: tuple[str, str], pair: tuple[Candidate, Candidate], gain: float) -> Card:
    clips = [clip_of(run, candidate) for candidate in pair]
    with run.database.reading() as connection:
        explanations = read_explanations(connection, [clip.id for clip in clips if clip])
    left, right = (
        _side(system, candidate, clip, explanations)
        for system, candidate, clip in zip(systems, pair, clips, strict=True)
    )
    shown, shape = _shown(*clips)
    return Card(pair[0].query.text, gain, shown, shape, (left, right))


def _side(system: str, candidate: Candidate, clip: Clip | None, explanations: Mapping[str, str]) -> Side:
    described = explanations.get(clip.id, "") if clip else ""
    scores = ", ".join(f"{name} {score:.2f}" for name, score in candidate.scores.items() if score is not None)
    facts = [(fact.text, fact.status) for fact in candidate.verdict.facts] if candidate.verdict else []
    text = marked(candidate.query.text, candidate.text)
    return Side(system, text, clip is not None, described, scores, facts, candidate.removed)


def words(text: str) -> list[str]:
    return re.findall(WORD, text.lower())


def _similarity(a: str, b: str) -> float:
    """Return the share of the different words of two texts that are in both."""
    left, right = set(words(a)), set(words(b))
    return len(left & right) / max(len(left | right), 1)


def marked(query: str, text: str) -> Markup:
    """Return a prompt, escaped, with the query's words and added words marked, neighbours together."""
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
    """Return both clips as one H.264 video, or both images as one PNG, in a data URI, with its width and height."""
    there = left or right
    if there is None:
        return "", (2, 1)
    pair = [clip.frames if clip else None for clip in (left, right)]
    frames = media.beside(pair, GAP, WIDTHS[1], GREY)
    scale = -(-WIDTHS[0] // there.frames.shape[2])
    if len(frames) == 1:
        kind, data = "image/png", media.encode_picture(frames[0], scale)
    else:
        kind, data = "video/mp4", media.encode_video(frames, there.fps, scale)
    encoded = base64.b64encode(data).decode()
    return f"data:{kind};base64,{encoded}", (frames.shape[2] * scale, frames.shape[1] * scale)
