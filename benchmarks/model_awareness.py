"""Compare two students, each trained for one video model, on both models.

python benchmarks/model_awareness.py RUN_A RUN_B [--queries 400] [--out runs/crossed]

RUN_A and RUN_B are finished runs of ``tiny`` and ``tiny_tags``. Both students write for both video models, on the same
queries and the same noise; reward, judge and statistics are those of the recipes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from promptreel import run
from promptreel.config import Recipe, parse_recipe
from promptreel.pipeline import begun_recipe
from promptreel.store import Run


def last_student(directory: Path, recipe: Recipe) -> dict[str, Any]:
    """Return the last student that a run trained, as a system of another recipe."""
    with Run(directory, writable=False) as opened:
        model = opened.model(recipe.trained()[-1]).resolve()
    table = recipe.student.model_dump(mode="json")
    return {**table, "llm": {"name": "local", "model": str(model)}}


def crossed(recipe: Recipe, systems: dict[str, Any], order: list[str], queries: int, clips: int) -> Recipe:
    """Return a recipe that only evaluates systems on the video model of another recipe."""
    stage = {
        "kind": "evaluate",
        "systems": order,
        "baselines": [],
        "reward": {"name": "tiny-oracle"},
        "metrics": ["overall", "facts"],
        "benchmarks": {
            "tiny-test": {"queries": {"source": "tiny-test", "take": queries}, "clips_per_prompt": clips},
        },
    }
    return parse_recipe({**recipe.resolved(), "name": f"crossed-{recipe.name}", "systems": systems, "stage": [stage]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs=2)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--clips", type=int, default=2, help="clips for each prompt")
    parser.add_argument("--out", type=Path, default=Path("runs/crossed"))
    options = parser.parse_args()
    recipes = [begun_recipe(directory) for directory in options.runs]
    systems = {
        f"student of {recipe.name}": last_student(directory, recipe)
        for directory, recipe in zip(options.runs, recipes, strict=True)
    }
    for recipe in recipes:
        order = sorted(systems, key=lambda system: system == f"student of {recipe.name}")
        own = crossed(recipe, systems, order, options.queries, options.clips)
        for row in run(own, options.out / recipe.name).comparisons:
            low, high = row.ci95
            print(
                f"on the model of {recipe.name}: {row.a} over {row.b}, {row.metric}: "
                f"{row.win_rate:.3f} [{low:.3f}, {high:.3f}], {row.queries} queries"
            )


if __name__ == "__main__":
    main()
