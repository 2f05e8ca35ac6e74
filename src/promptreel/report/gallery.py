"""Queries to look at: prompts with their words marked, and raw and final clips side by side.

Both clips are one video, so that they play in step: they start from the same noise.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from promptreel import media
from promptreel.errors import RunError
from promptreel.evaluation.compare import metric
from promptreel.report.diff import compare
from promptreel.store import Run
from promptreel.store.content import Clips
from promptreel.types import Candidate, Clip, Fact, Query

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
    has_clip: bool
    described: str
    """Description of the clip by the reward model, if it gives one."""
    scores: str
    facts: Sequence[Fact]
    removed: list[str]
    """Harmful parts of the query that it leaves out."""


@dataclass(frozen=True)
class Embedded:
    """Media in the page: a video of two clips, or a picture of two images."""

    uri: str
    """A ``data:`` URI."""
    width: int
    """In pixels."""
    height: int

    @property
    def is_picture(self) -> bool:
        return self.uri.startswith("data:image")


@dataclass(frozen=True)
class Card:
    """A query with the prompts and clips of two systems."""

    query: str
    gain: float
    """Gain of the right side over the left."""
    media: Embedded | None
    """Both clips; ``None`` if neither could be rendered."""
    left: Side
    right: Side


def gains(before: Rows, after: Rows, name: str) -> dict[Query, float]:
    """Return, by query, the rise of a metric from one system to another; queries without it are left out."""
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


def paired_clips(run: Run, candidates: Sequence[Candidate]) -> list[Clip | None]:
    """Return one clip of each candidate, all rendered from the same noise.

    Among the noise seeds that the most candidates have a clip for, the first is chosen. A clip is ``None`` if it could
    not be rendered from this noise, or if its file is missing or damaged.
    """
    by_seed = [{clip.seed_index: clip.clip for clip in candidate.full_clips if clip.clip} for candidate in candidates]
    counts = Counter(seed for clips in by_seed for seed in clips)
    if not counts:
        return [None] * len(candidates)
    seed = min(counts, key=lambda seed: (-counts[seed], seed))
    return [_read(run, clips.get(seed)) for clips in by_seed]


def _read(run: Run, clip: str | None) -> Clip | None:
    if clip is None:
        return None
    with run.database.reading() as connection:
        fps = Clips.read(connection, [clip]).get(clip)
    if not isinstance(fps, float):
        return None
    try:
        return run.clips.read(clip, fps)
    except RunError:
        return None


def _card(run: Run, systems: tuple[str, str], pair: tuple[Candidate, Candidate], gain: float) -> Card:
    clips = paired_clips(run, pair)
    explanations = run.records.explanations(pair[0].query, [clip.id for clip in clips if clip])
    left, right = (
        _side(system, candidate, clip, explanations)
        for system, candidate, clip in zip(systems, pair, clips, strict=True)
    )
    return Card(pair[0].query.text, gain, _embedded(*clips), left, right)


def _side(system: str, candidate: Candidate, clip: Clip | None, explanations: Mapping[str, str]) -> Side:
    described = explanations.get(clip.id, "") if clip else ""
    scores = ", ".join(f"{name} {score:.2f}" for name, score in candidate.scores.items() if score is not None)
    facts = candidate.verdict.facts if candidate.verdict else ()
    text = marked(candidate.query.text, candidate.text)
    return Side(system, text, clip is not None, described, scores, facts, candidate.removed)


def words(text: str) -> list[str]:
    """Return the words of a text in lower case, in order."""
    return re.findall(WORD, text.lower())


def _similarity(a: str, b: str) -> float:
    """Return the share of the different words of two texts that are in both."""
    left, right = set(words(a)), set(words(b))
    return len(left & right) / max(len(left | right), 1)


class _Piece(NamedTuple):
    text: str
    kind: str
    """``kept`` or ``added``; empty for the rest."""


def marked(query: str, text: str) -> Markup:
    """Return a prompt, escaped, with the query's words and added words marked, neighbours together."""
    pieces: list[_Piece] = []
    for piece in map(_Piece._make, compare(query, text)):
        joined = piece
        if len(pieces) > 1 and pieces[-1].text.isspace() and pieces[-2].kind == piece.kind:
            space, before = pieces.pop(), pieces.pop()
            joined = _Piece(before.text + space.text + piece.text, piece.kind)
        pieces.append(joined)
    span = Markup('<span class="{kind}">{text}</span>')
    return Markup("").join(span.format(**p._asdict()) if p.kind else Markup.escape(p.text) for p in pieces)


def _embedded(left: Clip | None, right: Clip | None) -> Embedded | None:
    """Return both clips as one H.264 video, or both images as one PNG; ``None`` without a clip."""
    there = left or right
    if there is None:
        return None
    pair = [clip.frames if clip else None for clip in (left, right)]
    frames = media.beside(pair, GAP, WIDTHS[1], GREY)
    scale = -(-WIDTHS[0] // there.frames.shape[2])
    if len(frames) == 1:
        kind, data = "image/png", media.encode_picture(frames[0], scale)
    else:
        kind, data = "video/mp4", media.encode_video(frames, there.fps, scale)
    encoded = base64.b64encode(data).decode()
    return Embedded(f"data:{kind};base64,{encoded}", frames.shape[2] * scale, frames.shape[1] * scale)
