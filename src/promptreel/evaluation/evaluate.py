"""An evaluation: every system writes for every query, and everything is rendered with the same noise and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from promptreel.evaluation import compare
from promptreel.execution.step import Step
from promptreel.execution.writer import Writer
from promptreel.policy import REFUSED
from promptreel.rewriting.loop import draw
from promptreel.store import Findings
from promptreel.types import Candidate, Completion, Component, Failure, Message, Query, distinct


@dataclass(frozen=True)
class StepModels:
    """Writer and judge of a system "as used", in the steps of a run: one for each attempt."""

    step: Step
    name: str
    """Step of the first attempt."""

    def complete(
        self, writer: Writer, conversations: Sequence[list[Message]], attempt: int, shortening: int = 0
    ) -> list[Completion | Failure]:
        name = self._attempt(attempt)
        return self.step.sub(f"{name}/shorter-{shortening}" if shortening else name).complete(writer, conversations)

    def judge(self, candidates: Sequence[Candidate], attempt: int) -> list[Candidate]:
        """Judge by the recipe's judge, which is the one at hand in use."""
        return self.step.sub(self._attempt(attempt), self.step.resources.judge).judge(candidates)

    def _attempt(self, attempt: int) -> str:
        return f"{self.name}/{attempt}" if attempt else self.name


def evaluate(
    step: Step,
    queries: Sequence[Query],
    systems: Mapping[str, Writer | None],
    reward: Component,
    clips_per_prompt: int,
    refused: AbstractSet[Query] = frozenset(),
) -> dict[str, dict[Query, Candidate]]:
    """Return each system's candidate for each query. The system without a writer passes queries on as typed.

    A query that a system could not answer has no candidate of it. A ``refused`` query is neither rewritten nor
    rendered. The judge of ``step`` reads all texts, for the columns of facts and harm; a harmful text is not rendered.
    With ``clips_per_prompt`` 0 nothing is rendered. Prompts are drawn for the name of the step's noise, so that other
    evaluations of the same name find them.
    """
    admitted = [query for query in queries if query not in refused]
    written = {name: _write(step, name, writer, admitted) for name, writer in systems.items()}
    judged = step.judge(distinct(candidate for found in written.values() for candidate in found.values()))
    if not clips_per_prompt:
        judged = [replace(candidate, withheld=None) for candidate in judged]
    shown = [candidate for candidate in judged if clips_per_prompt and not candidate.withheld]
    known = {candidate.id: candidate for candidate in judged}
    known |= {c.id: c for c in step.measure(shown, range(clips_per_prompt), {reward.name: reward})}
    results: dict[str, dict[Query, Candidate]] = {}
    for name, found in written.items():
        results[name] = {query: Candidate(query, "", rejected=REFUSED) for query in queries if query in refused}
        results[name] |= {query: known[candidate.id] for query, candidate in found.items()}
    return results


def _write(step: Step, name: str, writer: Writer | None, queries: Sequence[Query]) -> dict[Query, Candidate]:
    """Return a system's candidate for each query that it could answer."""
    if writer is None:
        return {query: Candidate.as_typed(query) for query in queries}
    drawn_in = f"{step.noise}/{name}"
    if writer.attempts == 1:
        texts = step.sub(drawn_in).write(writer, "rewrite", [{"query": query.text} for query in queries])
        return {query: Candidate(query, text) for query, text in zip(queries, texts, strict=True) if text is not None}
    resources = step.resources
    found = draw(queries, writer, StepModels(step, drawn_in), resources.policy, resources.tokens)
    step.failures.update(failure.reason for drawn in found for failure in drawn.failures)
    return {drawn.query: Candidate(drawn.query, drawn.candidates[0].text) for drawn in found if drawn.candidates}


def findings(
    benchmark: str,
    results: compare.Results,
    metrics: Sequence[str],
    reward: str,
    baselines: Sequence[str],
    ceiling: str | None,
    queries: int,
) -> Findings:
    """Return the comparisons, means and closed gaps of a benchmark with so many ``queries``.

    Every system is compared with the baselines listed before it and with the system just before it.
    """
    order = [system for system in results if system != ceiling]
    against = {
        system: list(dict.fromkeys([*(b for b in baselines if b in order[:i]), order[i - 1]]))
        for i, system in enumerate(order)
        if i > 0
    }
    gaps = compare.gap_closed(benchmark, results, ceiling, metrics[0]) if ceiling and "raw" in results else ()
    return Findings(
        comparisons=compare.comparisons(benchmark, results, against, metrics, reward),
        means=compare.means(benchmark, results, metrics, queries),
        gaps=gaps,
    )
