"""Which of several recipes teaches the better student, over training seeds?

python benchmarks/recipes.py NAME[:SYSTEM]=RUN[,RUN...] ... [--benchmark tiny-test] [--metric overall]

Every RUN is a finished run; those of one name differ in the seed of the recipe alone, and the runs of all names are
given in the same order of seeds. A system of each run, by default its last student (checked, where the run evaluates
it so), is compared with those of the same place, query by query, on the same noise. Intervals resample the seeds and,
within each, the queries; those of shares of texts are exact, for all seeds together.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptreel.config import EvaluateStage
from promptreel.evaluation import stats
from promptreel.config import parse_recipe
from promptreel.report.page import final_system
from promptreel.store import Run

RESAMPLES = 10_000
Rows = dict[Any, Any]


@dataclass(frozen=True)
class Student:
    """A system of one run, as its evaluation found it."""

    system: str
    rows: Rows
    """By query, of the benchmark that recipes are compared on."""
    texts: dict[str, tuple[int, Rows]]
    """Of each benchmark of texts alone: how many queries it has, and rows by query."""
    renders: int
    """That training took."""


def student(directory: Path, benchmark: str, system: str) -> Student:
    """A system of a run, by default the one it is about."""
    with Run(directory, alone=False) as run:
        summary = run.summary() or {}
        recipe = parse_recipe(run.recipe() or {})
        system = system or final_system(recipe, next(recipe.stages(EvaluateStage)))
        texts = {
            name: (size["queries"], run.database.evaluation(name).get(system, {}))
            for name, size in summary["benchmarks"].items()
            if not size["seeds"]
        }
        renders = sum(count for stage, count in summary["renders"].items() if stage != "evaluate")
        return Student(system, run.database.evaluation(benchmark).get(system, {}), texts, renders)


def interval(outcomes: list[np.ndarray]) -> str:
    """A mean, and 95 % of the means when first seeds and then the queries of each are drawn again."""
    rng = np.random.default_rng(0)
    seeds = rng.integers(0, len(outcomes), (RESAMPLES, len(outcomes)))
    draws = [np.mean([rng.choice(outcomes[s], len(outcomes[s])).mean() for s in row]) for row in seeds]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{np.mean([values.mean() for values in outcomes]):.3f} [{low:.3f}, {high:.3f}]"


def share(values: list[bool]) -> str:
    found = stats.proportion(sum(values), len(values))
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def values_of(found: Student, metric: str) -> np.ndarray:
    return np.array([value for row in found.rows.values() if (value := row["metrics"].get(metric)) is not None])


def paired(a: Rows, b: Rows, metric: str) -> np.ndarray:
    """1 where ``a`` has the higher value, 0 where ``b`` has, 1/2 for a tie; queries that both have."""
    values = [(row["metrics"].get(metric), b[query]["metrics"].get(metric)) for query, row in a.items() if query in b]
    if not values:
        raise SystemExit("two of the runs were evaluated on no query in common: give both the same benchmark")
    return np.array([(np.sign(x - y) + 1) / 2 for x, y in values if x is not None and y is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="NAME[:SYSTEM]=RUN[,RUN...]")
    parser.add_argument("--benchmark", default="tiny-test")
    parser.add_argument("--metric", default="overall")
    options = parser.parse_args()
    found: dict[str, list[Student]] = {}
    for given in options.recipes:
        name, _, runs = given.partition("=")
        found[name] = [student(Path(run), options.benchmark, name.partition(":")[2]) for run in runs.split(",")]

    print(f"{options.benchmark}, {options.metric}\n")
    print("| recipe | seeds | renders | mean | every fact kept |\n|---|---|---|---|---|")
    for name, students in found.items():
        kept = [row["fidelity"] == 1 for s in students for row in s.rows.values() if row["fidelity"] is not None]
        renders = "/".join(str(s.renders) for s in students)
        means = interval([values_of(s, options.metric) for s in students])
        print(f"| {name} ({students[0].system}) | {len(students)} | {renders} | {means} | {share(kept)} |")

    print("\n| a | over b | win rate | each seed |\n|---|---|---|---|")
    for a in found:
        for b in found:
            if a != b:
                pairs = zip(found[a], found[b], strict=True)
                outcomes = [paired(mine.rows, other.rows, options.metric) for mine, other in pairs]
                each = ", ".join(f"{wins.mean():.3f}" for wins in outcomes)
                print(f"| {a} | {b} | {interval(outcomes)} | {each} |")

    print("\n| recipe | texts | harmful | every fact kept | no text |\n|---|---|---|---|---|")
    for name, students in found.items():
        for benchmark in students[0].texts:
            rows = [row for s in students for row in s.texts[benchmark][1].values()]
            asked = sum(s.texts[benchmark][0] for s in students)
            harmful = share([row["unsafe"] == 1 for row in rows])
            kept = share([row["fidelity"] == 1 for row in rows if row["fidelity"] is not None])
            print(f"| {name} | {benchmark} | {harmful} | {kept} | {asked - len(rows)} of {asked} |")


if __name__ == "__main__":
    main()
