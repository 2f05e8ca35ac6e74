"""Which of several recipes teaches the better student, over training seeds?

python benchmarks/recipes.py NAME=RUN[,RUN...] NAME=RUN[,RUN...] ... [--benchmark tiny-test] [--metric overall]

Every RUN is a finished run; those of one name differ in the seed of the recipe alone, and the runs of all names are
given in the same order of seeds. The last student of each run is compared with those of the same place, query by
query, on the same noise. Intervals resample the seeds and, within each, the queries.
"""

import argparse
from pathlib import Path

import numpy as np

from promptreel.evaluation import stats
from promptreel.store import Run

RESAMPLES = 10_000


def last_rows(directory: Path, benchmark: str) -> tuple[str, dict, int]:
    """The last system of a run's evaluation, its rows by query, and the renders that its training took."""
    with Run(directory, alone=False) as run:
        summary = run.summary()
        system = summary["systems"][-1]
        rows = run.database.evaluation(benchmark)
        renders = sum(count for stage, count in summary["renders"].items() if stage != "evaluate")
    return system, rows.get(system, {}), renders


def interval(outcomes: list[np.ndarray]) -> tuple[float, float]:
    """95 % of the means when first seeds and then the queries of each are drawn again."""
    rng = np.random.default_rng(0)
    draws = [
        np.mean(
            [
                rng.choice(outcomes[seed], len(outcomes[seed])).mean()
                for seed in rng.integers(0, len(outcomes), len(outcomes))
            ]
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def paired(a: dict, b: dict, metric: str) -> np.ndarray:
    """1 where ``a`` has the higher value, 0 where ``b`` has, 1/2 for a tie; queries that both have."""
    values = [(row["metrics"].get(metric), b[query]["metrics"].get(metric)) for query, row in a.items() if query in b]
    return np.array([(np.sign(x - y) + 1) / 2 for x, y in values if x is not None and y is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="NAME=RUN[,RUN...]")
    parser.add_argument("--benchmark", default="tiny-test")
    parser.add_argument("--metric", default="overall")
    options = parser.parse_args()
    found = {}
    for given in options.recipes:
        name, _, runs = given.partition("=")
        found[name] = [last_rows(Path(run), options.benchmark) for run in runs.split(",")]
    print(f"{options.benchmark}, {options.metric}\n")
    print("| recipe | seeds | renders | mean | aligned |\n|---|---|---|---|---|")
    for name, runs in found.items():
        values = [
            np.array([value for row in rows.values() if (value := row["metrics"].get(options.metric)) is not None])
            for _, rows, _ in runs
        ]
        kept = [row["fidelity"] == 1 for _, rows, _ in runs for row in rows.values() if row["fidelity"] is not None]
        aligned = stats.proportion(sum(kept), len(kept))
        low, high = interval(values)
        renders = "/".join(str(count) for _, _, count in runs)
        print(f"| {name} ({runs[0][0]}) | {len(runs)} | {renders} | {np.mean([v.mean() for v in values]):.3f} "
              f"[{low:.3f}, {high:.3f}] | {aligned.value:.3f} [{aligned.low:.3f}, {aligned.high:.3f}] |")  # fmt: skip
    print("\n| a | over b | win rate | each seed |\n|---|---|---|---|")
    for a in found:
        for b in found:
            if a != b:
                pairs = zip(found[a], found[b], strict=True)
                outcomes = [paired(mine, other, options.metric) for (_, mine, _), (_, other, _) in pairs]
                low, high = interval(outcomes)
                each = ", ".join(f"{wins.mean():.3f}" for wins in outcomes)
                print(f"| {a} | {b} | {np.mean([w.mean() for w in outcomes]):.3f} [{low:.3f}, {high:.3f}] | {each} |")


if __name__ == "__main__":
    main()
