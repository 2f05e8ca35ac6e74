"""The stage ``evaluate``: systems are compared on held-out queries."""

from __future__ import annotations

from promptreel.config import BenchmarkTable, EvaluateStage, Recipe
from promptreel.evaluation.evaluate import evaluate, findings
from promptreel.stages.context import StageContext, StageResult
from promptreel.stages.cost import Cost, Count
from promptreel.store import BenchmarkSize, Findings


def cost(stage: EvaluateStage, recipe: Recipe, count: Count) -> Cost:
    names = stage.all_systems
    attempts = [recipe.systems[name].attempts if name in recipe.systems else 1 for name in names if name != "raw"]
    checks = sum(number for number in attempts if number > 1)
    parts = [
        Cost.per_query(
            stage, count(table.queries), sum(attempts), len(names) + checks, len(names) * table.clips_per_prompt
        )
        for table in stage.benchmarks.values()
    ]
    return sum(parts, Cost.none(stage))


def run(stage: EvaluateStage, context: StageContext) -> StageResult:
    """Compare the systems on every benchmark.

    No harmful text is rendered, be it a system's or a query as typed (``raw``): such clips belong on no disk and in no
    report. It is counted under ``unsafe`` and ``not_rendered``, and its query is left out of comparisons by clips,
    neither won nor lost. ``unsafe`` compares harm over all queries; the other metrics compare clips.
    """
    found = Findings()
    for name, benchmark in stage.benchmarks.items():
        found += measure(stage, context, name, benchmark)
    context.left_out.clear()
    return StageResult(found.to_json())


def measure(
    stage: EvaluateStage, context: StageContext, name: str, benchmark: BenchmarkTable, mark: str = ""
) -> Findings:
    """Evaluate one benchmark and store its candidates.

    Prompts are drawn and noise is seeded for the names of the stage and the benchmark. ``mark`` keeps the rows of an
    ad-hoc evaluation apart; completions, clips and scores are shared.
    """
    context.left_out.clear()
    queries = context.queries(benchmark.queries)
    own = f"{stage.name}{mark}/{name}"
    judge = stage.judge.component("judge") if stage.judge else None
    step = context.step(own, noise=f"{stage.name}/{name}", judge=judge)
    admitted = set(context.admitted(queries, f"{own}/queries"))
    refused = {query for query in queries if query not in admitted}
    systems = {system: None if system == "raw" else context.writer(system) for system in stage.all_systems}
    reward = stage.reward.component("reward")
    results = evaluate(step, queries, systems, reward, benchmark.clips_per_prompt, refused)
    context.run.records.add_evaluation(name + mark, results)
    withheld = {system: sum(bool(c.withheld) for c in found.values()) for system, found in results.items()}
    size = BenchmarkSize(
        queries=len(queries),
        clips_per_prompt=benchmark.clips_per_prompt,
        not_rendered={system: number for system, number in withheld.items() if number},
        left_out=dict(context.left_out),
    )
    part = findings(name, results, stage.metrics, reward.name, stage.baselines, stage.ceiling, len(queries))
    return part + Findings(benchmarks={name: size})
