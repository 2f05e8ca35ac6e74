"""One self-contained page of a run: what was asked, what was gained, what it cost, and clips to look at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from promptreel import profiles, registry
from promptreel.config import DPOStage, EvaluateStage, Recipe, SFTStage
from promptreel.errors import RunError
from promptreel.report import charts, gallery
from promptreel.report.tables import duration
from promptreel.store import Run
from promptreel.store.run import write_text

WORDS = 14
"""Words gained and lost that are listed."""
NOTICED = 0.02
"""Share of prompts by which a word must have become more or less frequent to be listed."""


def write(run: Run, recipe: Recipe) -> Path:
    """Write ``report.html`` of a run into its directory. Raises ``RunError`` if no stage was begun yet."""
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
    environment.filters["duration"] = duration
    benchmarks = [_benchmark(run, recipe, summary, name) for name in summary["benchmarks"]]
    page = environment.get_template("page.html.j2").render(
        summary=summary,
        recipe=recipe,
        profile=profiles.load(recipe.profile),
        answer=_answer(benchmarks),
        benchmarks=benchmarks,
        rounds={
            name: Markup(charts.rounds(output["best_by_round"]))  # noqa: S704 - our own drawing
            for name, output in summary["stages"].items()
            if len(output.get("best_by_round", [])) > 1
        },
        usage={name: run.database.usage(name) for name in summary["seconds"]},
        details=run.database.details(),
        environments=run.database.environments(),
        recipe_text=(run.directory / "recipe.toml").read_text(encoding="utf-8"),
        resolved=json.dumps(recipe.resolved(), indent=1, ensure_ascii=False),
    )
    path = run.directory / "report.html"
    write_text(path, page)
    return path


def final_system(recipe: Recipe, stage: EvaluateStage) -> str:
    """The system that a run is about: its last student, checked where it is evaluated so, or the last evaluated."""
    trained = [s.name for s in recipe.stage if isinstance(s, SFTStage | DPOStage) and s.name in stage.systems]
    checked = [
        name for name in stage.systems if name in recipe.systems and recipe.systems[name].student in trained[-1:]
    ]
    return (checked or trained or stage.systems)[-1]


def stage_of(recipe: Recipe, benchmark: str) -> EvaluateStage:
    stage: EvaluateStage = next(s for s in recipe.stages(EvaluateStage) if benchmark in s.benchmarks)
    return stage


def headline_of(stage: EvaluateStage, rows: Mapping[str, gallery.Rows]) -> str:
    """The metric that a benchmark is about: the stage's first, or fidelity where nothing was rendered."""
    first = stage.metrics[0]
    rendered = any(first in row["metrics"] for found in rows.values() for row in found.values())
    return first if rendered else "fidelity"


def _benchmark(run: Run, recipe: Recipe, summary: Mapping[str, Any], name: str) -> dict[str, Any]:
    stored, stage = run.database.evaluation(name), stage_of(recipe, name)
    order = [system for system in (*stage.systems, stage.ceiling) if system in stored]
    rows = {system: stored[system] for system in order if system}
    headline, final = headline_of(stage, rows), final_system(recipe, stage)
    means: dict[str, dict[str, dict[str, Any]]] = {}
    for row in summary["means"]:
        if row["benchmark"] == name:
            means.setdefault(row["system"], {})[row["metric"]] = row
    metrics = list(dict.fromkeys(metric for found in means.values() for metric in found))
    values = {system: _values(found, headline) for system, found in rows.items()}
    students = [system for system in stage.systems if system in rows]
    compared = len(students) > 1 and final in rows
    comparisons = [row for row in summary["comparisons"] if row["benchmark"] == name]
    return {
        "name": name,
        "size": summary["benchmarks"][name],
        "headline": headline,
        "final": final,
        "tables": {
            "What the clips show": [metric for metric in metrics if metric in stage.metrics],
            "What the prompts are like": [metric for metric in metrics if metric not in stage.metrics],
        },
        "means": means,
        "comparisons": comparisons,
        "wins": [row for row in comparisons if row["a"] == final and row["metric"] == headline],
        "gaps": {row["system"]: row for row in summary["gaps"] if row["benchmark"] == name},
        "distributions": Markup(charts.distributions(values, headline))  # noqa: S704 - our own drawing
        if any(values.values())
        else "",
        "changes": _changes(rows, students),
        "shelves": gallery.shelves(
            run,
            registry.build(stage.judge.component("reward")),
            (students[0], final),
            rows[students[0]],
            rows[final],
            headline,
        )
        if compared
        else {},
    }


def _values(rows: gallery.Rows, metric: str) -> list[float]:
    return [value for row in rows.values() if (value := gallery.value(row, metric)) is not None]


def _answer(benchmarks: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The first comparison of the final system, and in a word what it says."""
    wins = next((benchmark["wins"] for benchmark in benchmarks if benchmark["wins"]), None)
    if wins is None:
        return None
    low, high = wins[0]["ci95"]
    return {**wins[0], "word": "Yes" if low > 0.5 else "No" if high < 0.5 else "It cannot be told"}


def _changes(rows: Mapping[str, gallery.Rows], systems: Sequence[str]) -> list[dict[str, Any]]:
    """Which words each system uses in more, and in fewer, of its prompts than the system before it."""
    shares = {}
    for system in systems:
        counts = Counter(word for row in rows[system].values() for word in set(gallery.words(row["text"])))
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
