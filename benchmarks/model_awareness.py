"""Is a student trained for one video model better on it than a student trained for another?

python benchmarks/model_awareness.py RUN_A RUN_B [--queries 400] [--out runs/crossed]

RUN_A and RUN_B are finished runs of ``tiny`` and ``tiny_tags``. Both students write for both video models, on
the same queries and the same noise; the judge and the statistics are those of the recipes.
"""

import argparse
import json
from pathlib import Path

from promptreel import load_recipe, run
from promptreel.config import parse_recipe


def last_student(directory: Path) -> str:
    """The path of the student of the last training stage of a run."""
    recipe = json.loads((directory / "recipe.json").read_text())
    name = [stage["name"] for stage in recipe["stage"] if stage["kind"] in ("sft", "dpo")][-1]
    return str((directory / "models" / name).resolve())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs=2)
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/crossed"))
    options = parser.parse_args()
    recipes = [load_recipe(directory / "recipe.toml")[0].resolved() for directory in options.runs]
    names = [recipe["name"] for recipe in recipes]
    students = {
        f"student of {name}": {
            **recipe["student"],
            "llm": {"name": "local", "model": last_student(directory)},
        }
        for name, recipe, directory in zip(names, recipes, options.runs, strict=True)
    }
    for own, recipe in zip(names, recipes, strict=True):
        order = sorted(students, key=lambda student: student == f"student of {own}")
        stage = {
            "kind": "evaluate",
            "systems": order,
            "baselines": [],
            "judge": {"name": "tiny-oracle"},
            "metrics": ["overall", "facts"],
            "benchmarks": {
                "tiny-test": {"queries": {"source": "tiny-test", "take": options.queries}, "seeds": options.seeds}
            },
        }
        crossed = parse_recipe({**recipe, "name": f"crossed-{own}", "systems": students, "stage": [stage]})
        summary = run(crossed, json.dumps(crossed.resolved()), options.out / own)
        for row in summary["comparisons"]:
            low, high = row["ci95"]
            print(f"on the model of {own}: {row['a']} over {row['b']}, {row['metric']}: "
                  f"{row['win_rate']:.3f} [{low:.3f}, {high:.3f}], {row['queries']} queries")  # fmt: skip


if __name__ == "__main__":
    main()
