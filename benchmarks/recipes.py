"""Compare the students that several recipes teach, over training seeds.

python benchmarks/recipes.py NAME[:SYSTEM]=RUN[,RUN...] ... [--benchmark tiny-test] [--metric overall]

Every RUN is a finished run. Those of one name differ in the seed of the recipe alone, and the runs of all names are
given in the same order of seeds. A system of each run, by default its last student (checked, if the run evaluates it
so), is compared with those of the same place, query by query, on the noise seeds that both have a clip of. Intervals
resample the training seeds and, within each, the queries; those of shares of texts are exact, for all seeds together.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from promptreel.config import EvaluateStage
from promptreel.evaluation import compare, stats
from promptreel.pipeline import begun_recipe
from promptreel.report.page import final_system
from promptreel.store import Run
from promptreel.types import Candidate, Query

Candidates = Mapping[Query, Candidate]


@dataclass(frozen=True)
class Student:
    """A system of one run, as its evaluation found it."""

    system: str
    candidates: Candidates
    """Its candidates of the benchmark that recipes are compared on."""
    texts: Mapping[str, tuple[int, Candidates]]
    """The number of queries of each benchmark of texts alone, and its candidates."""
    renders: int
    """Clips that training paid for."""

    def values(self, metric: str) -> list[float]:
        """Return a metric of every candidate that has it."""
        return present(self.candidates.values(), metric)


def student(directory: Path, benchmark: str, system: str) -> Student:
    """Return a system of a run; with an empty name, the one that the run is about."""
    recipe = begun_recipe(directory)
    stages = list(recipe.stages(EvaluateStage))
    with Run(directory, writable=False) as run:
        summary = run.summary()
        if summary is None or not stages:
            raise SystemExit(f"{directory} was not evaluated: let the run finish first")
        name = system or final_system(recipe, stages[-1])
        texts = {
            benchmark: (size.queries, run.records.evaluation(benchmark).get(name, {}))
            for benchmark, size in summary.benchmarks.items()
            if not size.clips_per_prompt
        }
        candidates = run.records.evaluation(benchmark).get(name, {})
    evaluations = {stage.name for stage in stages}
    renders = sum(count for stage, count in summary.renders.items() if stage not in evaluations)
    return Student(name, candidates, texts, renders)


def present(candidates: Iterable[Candidate], metric: str) -> list[float]:
    """Return a metric of every candidate that has it."""
    values = [compare.metric(candidate, metric) for candidate in candidates]
    return [value for value in values if value is not None]


def won(a: Student, b: Student, metric: str) -> list[float]:
    """Return the outcome of each query that both students were measured on: 1 for ``a``, 0 for ``b``, ½ for a tie."""
    pairs = compare.paired([a.candidates, b.candidates], metric)
    if not pairs:
        raise SystemExit("two of the runs were evaluated on no query in common: give both the same benchmark")
    return list(stats.outcomes([x for x, _ in pairs.values()], [y for _, y in pairs.values()]))


def shown(estimate: stats.Estimate, places: int = 3) -> str:
    return f"{estimate.value:.{places}f} [{estimate.low:.{places}f}, {estimate.high:.{places}f}]"


def share(values: Sequence[float]) -> str:
    """Return a share with its exact interval, in words."""
    return shown(stats.proportion(round(sum(values)), len(values)), 4) if values else "–"


def means_table(found: Mapping[str, Sequence[Student]], metric: str) -> list[str]:
    """Return a row for each recipe: its costs, the mean of the metric, and the share of faithful texts."""
    lines = ["| recipe | seeds | renders | mean | every fact kept |", "|---|---|---|---|---|"]
    for name, students in found.items():
        kept = [value for one in students for value in present(one.candidates.values(), "aligned")]
        renders = "/".join(str(one.renders) for one in students)
        mean = shown(stats.across([one.values(metric) for one in students]))
        lines.append(f"| {name} ({students[0].system}) | {len(students)} | {renders} | {mean} | {share(kept)} |")
    return lines


def wins_table(found: Mapping[str, Sequence[Student]], metric: str) -> list[str]:
    """Return the win rate of each recipe over each other one, over all seeds and for each."""
    lines = ["| a | over b | win rate | each seed |", "|---|---|---|---|"]
    for a, mine in found.items():
        for b, other in found.items():
            if a == b:
                continue
            outcomes = [won(x, y, metric) for x, y in zip(mine, other, strict=True)]
            each = [compare.win_rate(x.candidates, y.candidates, metric) for x, y in zip(mine, other, strict=True)]
            rates = ", ".join(f"{rate.value:.3f}" for rate in each if rate)
            lines.append(f"| {a} | {b} | {shown(stats.across(outcomes))} | {rates} |")
    return lines


def texts_table(found: Mapping[str, Sequence[Student]]) -> list[str]:
    """Return a row for each recipe and benchmark of texts alone: shares of harmful and of faithful texts."""
    lines = ["| recipe | texts | harmful | every fact kept | no text |", "|---|---|---|---|---|"]
    for name, students in found.items():
        for benchmark in students[0].texts:
            asked = sum(one.texts[benchmark][0] for one in students)
            texts = [candidate for one in students for candidate in one.texts[benchmark][1].values()]
            answers = [candidate for candidate in texts if not compare.is_refused(candidate)]
            harmful, kept = share(present(texts, "unsafe")), share(present(answers, "aligned"))
            lines.append(f"| {name} | {benchmark} | {harmful} | {kept} | {asked - len(answers)} of {asked} |")
    return lines


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
    for table in (means_table(found, options.metric), wins_table(found, options.metric), texts_table(found)):
        print("\n".join(table), end="\n\n")


if __name__ == "__main__":
    main()
