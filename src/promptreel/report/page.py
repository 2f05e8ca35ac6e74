"""One self-contained page of a run: what was asked, what was gained, what it cost, and clips to look at."""

from __future__ import annotations

import base64
import difflib
import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from promptreel import media, profiles, registry
from promptreel.config import EvaluateStage, Recipe
from promptreel.errors import RunError
from promptreel.protocols import Explainer
from promptreel.report import charts
from promptreel.store import Run
from promptreel.store.run import write_text
from promptreel.types import Query

PER_SHELF = 4
"""Queries shown as best, worst and most changed."""
WIDTH = 320
"""Pixels that an embedded clip is at most wide."""
WORDS = 14
"""Words gained and lost that are listed."""


@dataclass(frozen=True)
class Side:
    """One system's half of a gallery card."""

    system: str
    text: Markup
    """The prompt with the words it shares with the query, and those it adds, marked."""
    video: str
    """A data URI; empty when the clip could not be rendered."""
    read: str
    """What the judge says it saw, if it can say."""
    scores: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class Card:
    query: str
    gain: float
    sides: list[Side]


def write(run: Run, recipe: Recipe) -> Path:
    """Write ``report.html`` of a run into its directory. Raises ``RunError`` if nothing was evaluated yet."""
    summary = run.summary()
    if summary is None:
        raise RunError(f"{run.directory} has no summary yet: let the run finish a stage first")
    environment = Environment(
        loader=PackageLoader("promptreel.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(
        summary=summary,
        recipe=recipe,
        profile=profiles.load(recipe.profile),
        benchmarks=[_benchmark(run, recipe, summary, name) for name in summary["benchmarks"]],
        rounds={
            name: Markup(charts.rounds(output["best_by_round"]))  # noqa: S704 - our own drawing
            for name, output in summary["stages"].items()
            if len(output.get("best_by_round", [])) > 1
        },
        recipe_text=(run.directory / "recipe.toml").read_text(encoding="utf-8"),
        resolved=json.dumps(recipe.resolved(), indent=1, ensure_ascii=False),
    )
    path = run.directory / "report.html"
    write_text(path, page)
    return path


def _benchmark(run: Run, recipe: Recipe, summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    rows = run.database.evaluation(name)
    means: dict[str, dict[str, dict[str, Any]]] = {}
    for row in summary["means"]:
        if row["benchmark"] == name:
            means.setdefault(row["system"], {})[row["metric"]] = row
    stage = next(s for s in recipe.stages(EvaluateStage) if name in s.benchmarks)
    headline = stage.metrics[0]
    values = {
        system: [v for row in found.values() if (v := row["metrics"].get(headline)) is not None]
        for system, found in rows.items()
    }
    trained = [system for system in stage.systems if system in rows and system != stage.ceiling]
    return {
        "name": name,
        "size": summary["benchmarks"][name],
        "headline": headline,
        "metrics": list(dict.fromkeys(metric for found in means.values() for metric in found)),
        "means": means,
        "comparisons": [row for row in summary["comparisons"] if row["benchmark"] == name],
        "gaps": {row["system"]: row for row in summary["gaps"] if row["benchmark"] == name},
        "distributions": Markup(  # noqa: S704 - our own drawing
            charts.distributions({s: v for s, v in values.items() if v}, headline)
        ),
        "changes": _changes(rows, trained),
        "shelves": _gallery(run, recipe, stage, rows, trained) if len(trained) > 1 else {},
    }


def _changes(rows: Mapping[str, Mapping[Query, Mapping[str, Any]]], systems: Sequence[str]) -> list[dict[str, Any]]:
    """Which words each system uses in more, and in fewer, of its prompts than the system before it."""
    shares = {}
    for system in systems:
        counts = Counter(word for row in rows[system].values() for word in set(_words(row["text"])))
        shares[system] = {word: count / max(len(rows[system]), 1) for word, count in counts.items()}
    changes = []
    for before, after in pairwise(systems):
        words = shares[before].keys() | shares[after].keys()
        moved = {word: shares[after].get(word, 0.0) - shares[before].get(word, 0.0) for word in words}
        ranked = sorted(moved.items(), key=lambda item: (-item[1], item[0]))
        changes.append(
            {
                "before": before,
                "after": after,
                "gained": [(word, share) for word, share in ranked[:WORDS] if share >= 0.02],
                "lost": [(word, share) for word, share in ranked[::-1][:WORDS] if share <= -0.02],
            }
        )
    return changes


def _gallery(
    run: Run,
    recipe: Recipe,
    stage: EvaluateStage,
    rows: Mapping[str, Mapping[Query, Mapping[str, Any]]],
    systems: Sequence[str],
) -> dict[str, list[Card]]:
    """Cards of the queries that gained most, gained least, and whose prompts changed most."""
    first, last = rows[systems[0]], rows[systems[-1]]
    headline = stage.metrics[0]
    gains = {
        query: last[query]["metrics"][headline] - row["metrics"][headline]
        for query, row in first.items()
        if query in last
        and row["metrics"].get(headline) is not None
        and last[query]["metrics"].get(headline) is not None
    }
    likeness = {q: difflib.SequenceMatcher(None, q.text.lower(), last[q]["text"].lower()).ratio() for q in gains}
    order = {
        "Gained most": sorted(gains, key=lambda q: (-gains[q], q.id)),
        "Gained least": sorted(gains, key=lambda q: (gains[q], q.id)),
        "Changed most": sorted(gains, key=lambda q: (likeness[q], q.id)),
    }
    judge = registry.build(stage.judge.component("reward"))
    shelves = {}
    for title, ranked in order.items():
        shelves[title] = [
            Card(
                query.text,
                gains[query],
                [_side(run, judge, s, query, r) for s, r in ((systems[0], first[query]), (systems[-1], last[query]))],
            )
            for query in ranked[:PER_SHELF]
        ]
    return shelves


def _side(run: Run, judge: Any, system: str, query: Query, row: Mapping[str, Any]) -> Side:
    video, read = "", ""
    if row["clips"]:
        clip = run.clips.read(row["clips"][0], next(iter(run.database.clips(row["clips"][:1]).values()))[2])
        video = _data_uri(clip.frames, clip.fps)
        read = judge.explain(query, clip) if isinstance(judge, Explainer) else ""
    scores = ", ".join(f"{name} {value:.2f}" for name, value in row["metrics"].items() if value is not None)
    return Side(system, _marked(query.text, row["text"]), video, read, scores, [(f[0], f[1]) for f in row["facts"]])


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:[-'][^\W_]+)*", text.lower())


def _marked(query: str, text: str) -> Markup:
    """The prompt, escaped, with its words in common with the query and its added words marked."""
    common = set(_words(query))
    pieces = []
    for piece in re.split(r"([^\W_]+(?:[-'][^\W_]+)*)", text):
        words = _words(piece)
        if not words:
            pieces.append(Markup.escape(piece))
        else:
            kind = "kept" if words[0] in common else "added"
            pieces.append(Markup('<span class="{}">{}</span>').format(kind, piece))
    return Markup("").join(pieces)


def _data_uri(frames: Any, fps: float) -> str:
    step = max(1, frames.shape[2] // WIDTH)
    frames = frames[:, ::step, ::step]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        media.write_video(path, frames, fps, scale=max(1, WIDTH // frames.shape[2]))
        return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()
