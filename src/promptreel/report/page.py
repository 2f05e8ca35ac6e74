"""One self-contained page of a run: its question, gains, costs, and clips to look at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from promptreel import profiles
from promptreel.config import EvaluateStage, Recipe
from promptreel.errors import RunError
from promptreel.evaluation.compare import metric
from promptreel.report import charts, gallery
from promptreel.report.tables import duration
from promptreel.store import Comparison, Mean, Run, Summary
from promptreel.store.run import write_text

WORDS = 14
"""Number of gained and lost words that are listed."""
NOTICED = 0.02
"""Least change of a word's share of prompts to be listed."""


def write(run: Run, recipe: Recipe, summary: Summary) -> Path:
    """Write ``report.html`` of a run into its directory; nothing else is written and no model is loaded.

    Raises ``RunError`` if no stage was begun yet.
    """
    if not summary.seconds:
        raise RunError(f"{run.directory} has no results yet: let the run begin a stage first")
    environment = Environment(
        loader=PackageLoader("promptreel.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    benchmarks = [_benchmark(run, recipe, summary, name) for name in summary.benchmarks]
    page = environment.get_template("page.html.j2").render(
        summary=summary,
        recipe=recipe,
        profile=profiles.load(recipe.profile),
        answer=_answer(benchmarks),
        benchmarks=benchmarks,
        rounds={
            name: Markup(charts.rounds(output["best_by_round"]))  # noqa: S704 - our own drawing
            for name, output in summary.stages.items()
            if len(output.get("best_by_round", [])) > 1
        },
        usage={name: run.records.usage(name) for name in summary.seconds},
        details=run.records.failure_details(),
        environments=run.records.environments(),
        recipe_text=run.recipe_text(),
        resolved=json.dumps(recipe.resolved(), indent=1, ensure_ascii=False),
    )
    path = run.directory / "report.html"
    write_text(path, page)
    return path


def final_system(recipe: Recipe, stage: EvaluateStage) -> str:
    """Return the system that a run is about: its last student, as used if it is evaluated so, or the last system."""
    trained = [name for name in recipe.trained() if name in stage.systems]
    checked = [
        name for name in stage.systems if name in recipe.systems and recipe.systems[name].student in trained[-1:]
    ]
    return (checked or trained or stage.systems)[-1]


def stage_of(recipe: Recipe, benchmark: str) -> EvaluateStage:
    """Return the stage that evaluates a benchmark."""
    stage: EvaluateStage = next(s for s in recipe.stages(EvaluateStage) if benchmark in s.benchmarks)
    return stage


def headline_of(stage: EvaluateStage, rows: Mapping[str, gallery.Rows]) -> str:
    """Return the main metric of a benchmark: the stage's first, or fidelity if nothing was rendered."""
    first = stage.metrics[0]
    rendered = any(first in candidate.scores for found in rows.values() for candidate in found.values())
    return first if rendered else "fidelity"


def _benchmark(run: Run, recipe: Recipe, summary: Summary, name: str) -> dict[str, Any]:
    """Return the template's fields for a benchmark."""
    stored, stage = run.records.evaluation(name), stage_of(recipe, name)
    rows = {system: stored[system] for system in stage.all_systems if system in stored}
    headline, final = headline_of(stage, rows), final_system(recipe, stage)
    means: dict[str, dict[str, Mean]] = {}
    for row in summary.means:
        if row.benchmark == name:
            means.setdefault(row.system, {})[row.metric] = row
    metrics = list(dict.fromkeys(name for found in means.values() for name in found))
    values = {system: _values(found, headline) for system, found in rows.items()}
    students = [system for system in stage.systems if system in rows]
    comparisons = [row for row in summary.comparisons if row.benchmark == name]
    drawn = Markup(charts.distributions(values, headline)) if any(values.values()) else ""  # noqa: S704 - our drawing
    shelves = {}
    if len(students) > 1 and final in rows:
        shelves = gallery.shelves(run, (students[0], final), rows[students[0]], rows[final], headline)
    return {
        "name": name,
        "size": summary.benchmarks[name],
        "headline": headline,
        "final": final,
        "tables": {
            "Scores of the clips": [m for m in metrics if m in stage.metrics],
            "Properties of the prompts": [m for m in metrics if m not in stage.metrics],
        },
        "means": means,
        "comparisons": comparisons,
        "wins": [row for row in comparisons if row.a == final and row.metric == headline],
        "gaps": {row.system: row for row in summary.gaps if row.benchmark == name},
        "distributions": drawn,
        "changes": _changes(rows, students),
        "shelves": shelves,
    }


def _values(rows: gallery.Rows, name: str) -> list[float]:
    """Return a metric of every candidate that has it."""
    return [value for candidate in rows.values() if (value := metric(candidate, name)) is not None]


def _answer(benchmarks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the first comparison of the final system, with its answer in a word."""
    wins: list[Comparison] | None = next((benchmark["wins"] for benchmark in benchmarks if benchmark["wins"]), None)
    if wins is None:
        return None
    low, high = wins[0].ci95
    word = "Yes" if low > 0.5 else "No" if high < 0.5 else "Undecided"
    return {**wins[0].model_dump(), "word": word}


def _changes(rows: Mapping[str, gallery.Rows], systems: Sequence[str]) -> list[dict[str, Any]]:
    """Return the words that each system uses in more, and in fewer, of its prompts than the system before it."""
    shares = {}
    for system in systems:
        counts = Counter(word for candidate in rows[system].values() for word in set(gallery.words(candidate.text)))
        shares[system] = {word: count / max(len(rows[system]), 1) for word, count in counts.items()}
    changes = []
    for before, after in pairwise(systems):
        known = shares[before].keys() | shares[after].keys()
        moved = {word: shares[after].get(word, 0.0) - shares[before].get(word, 0.0) for word in known}
        ranked = sorted(moved.items(), key=lambda item: (-item[1], item[0]))
        changes.append(
            {
                "before": before,
                "after": after,
                "gained": [(word, share) for word, share in ranked[:WORDS] if share >= NOTICED],
                "lost": [(word, share) for word, share in ranked[::-1][:WORDS] if share <= -NOTICED],
            }
        )
    return changes
