"""What every stage of a run works with: its queries, its writers, the gate, the trial, what it keeps."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from promptreel import profiles, queries, registry
from promptreel.config import AskingTable, QueriesTable, Recipe
from promptreel.desk import Desk, Writer
from promptreel.errors import importing
from promptreel.pipeline.check import generator_of, token_counter
from promptreel.profiles import TokenCounter
from promptreel.scoring import Report, Scorer, silent, total
from promptreel.store import Run
from promptreel.types import Candidate, Component, Query, Sampling, Verdict, content_seed

log = logging.getLogger(__name__)


class Workshop:
    """The components of a recipe, ready to work in one run directory."""

    def __init__(self, recipe: Recipe, run: Run, report: Report = silent) -> None:
        self.recipe, self.run, self.report = recipe, run, report
        self.profile = profiles.load(recipe.profile)
        if recipe.threads:
            with importing("setting threads"):
                import torch
            torch.set_num_threads(recipe.threads)
        self.engine = registry.build(recipe.engine.component("engine"))
        self.scorer = Scorer(run, self.engine, generator_of(recipe), recipe.judge.component("judge"), report)
        self.desk = Desk(run.database, self.engine, report)
        self.rewards = {name: table.component("reward") for name, table in recipe.rewards.items()}
        self.left_out: Counter[str] = Counter()
        """Queries that the stage at work leaves out, by reason: duplicates, refusals."""

    def queries(self, table: QueriesTable) -> list[Query]:
        named = {name: registry.find("dataset", name) for name in registry.names("dataset")}
        found = queries.read(
            table.source, table.skip, table.take, named, near=table.near, split=table.split, left_out=self.left_out
        )
        self.run.database.add_queries(found)
        return found

    def admitted(self, found: Sequence[Query], origin: str) -> list[Query]:
        """The queries that the safety policy lets in; those that it refuses are counted, those not cleared too."""
        if self.recipe.safety != "refuse":
            return list(found)
        admitted = []
        for query, verdict in zip(found, self.verdicts([(q, q.text) for q in found], origin), strict=True):
            if verdict is not None and not verdict.unsafe:
                admitted.append(query)
            else:
                self.left_out["refused" if verdict else "no verdict"] += 1
        return admitted

    def writer(self, name: str) -> Writer:
        """The teacher, the base student, a further system, or the student that a stage trained."""
        recipe = self.recipe
        if name in recipe.systems:
            system = recipe.systems[name]
            if system.student:
                return replace(self.writer(system.student), attempts=system.attempts)
            assert system.llm
            return self._writer(system, system.llm.component("llm"), system.attempts)
        if name == "teacher":
            return self._writer(recipe.teacher, recipe.teacher.llm.component("llm"))
        base = recipe.student.llm.component("llm")
        if name == "base":
            return self._writer(recipe.student, base)
        options = {key: value for key, value in base.options.items() if key not in ("adapter", "revision")}
        return self._writer(
            recipe.student, Component("llm", base.name, {**options, "model": str(self.run.model(name))})
        )

    def _writer(self, table: AskingTable, llm: Component, attempts: int = 1) -> Writer:
        sampling = Sampling(**table.sampling.model_dump(), seed=self.recipe.seed)
        return Writer(llm, table.format, sampling, table.batch_size, self.profile.model_dump(), attempts)

    def seeds(self, origin: str, count: int) -> list[int]:
        """The noise that all rewrites of all queries of a step share."""
        return [content_seed(self.recipe.seed, origin, index) for index in range(count)]

    def too_long(self, text: str) -> bool:
        return not self._tokens.fits(text)

    @cached_property
    def _tokens(self) -> TokenCounter:
        counter = token_counter(self.recipe)
        if not counter.exact:
            log.warning(
                "the tokenizer of %s cannot be had: which prompts are too long is decided by an estimate",
                self.profile.name,
            )
        return counter

    def verdicts(
        self, items: Sequence[tuple[Query, str]], origin: str, scorer: Scorer | None = None
    ) -> list[Verdict | None]:
        """What the judge says of rewrites under the recipe's safety policy; a missing verdict is a loss."""
        found = (scorer or self.scorer).judge(items, origin)
        if lost := sum(verdict is None for verdict in found):
            self.scorer.losses["verdict"] += lost
        if self.recipe.safety == "off":
            return [verdict and verdict.ignoring_harm() for verdict in found]
        return found

    def withheld(self, verdict: Verdict | None) -> str | None:
        """Why a text is never rendered, whoever wrote it: it is harmful, or nobody could tell. ``None`` when it may be,
        as everything may where harm is not judged.
        """
        if self.recipe.safety == "off":
            return None
        if verdict is None:
            return "no verdict"
        return "unsafe" if verdict.unsafe else None

    def gate(self, items: Sequence[tuple[Query, str]], origin: str) -> list[str | None]:
        """Why a rewrite must not be rendered, ``None`` when it may: text only, before anything is paid."""
        reasons: list[str | None] = []
        for (_, text), verdict in zip(items, self.verdicts(items, origin), strict=True):
            if verdict is None:
                reasons.append("no verdict")
            elif self.too_long(text):
                reasons.append("too long")
            elif verdict.unsafe:
                reasons.append("unsafe")
            else:
                reasons.append("fidelity" if verdict.fidelity < self.recipe.gate.fidelity else None)
        return reasons

    def trial(
        self, items: Sequence[tuple[Query, str]], number: int, blend: str, seeds: Sequence[int], origin: str
    ) -> dict[Query, list[Candidate]]:
        """Gate rewrites, render and score those that pass. Queries as typed (generation 0) pass unless harmful."""
        if number:
            reasons = self.gate(items, origin)
        else:
            found = [self.withheld(verdict) for verdict in self.verdicts(items, origin)]
            reasons = [reason and f"{reason} as typed" for reason in found]
        passed = [item for item, reason in zip(items, reasons, strict=True) if reason is None]
        scored = {(s.query, s.text): s for s in self.scorer.score(passed, seeds, self.rewards, origin)}
        results: dict[Query, list[Candidate]] = {}
        for (query, text), reason in zip(items, reasons, strict=True):
            dimensions = scored[query, text].dimensions if reason is None else {}
            value = total(dimensions, self.recipe.blends[blend].weights) if reason is None else None
            results.setdefault(query, []).append(Candidate(text, number, value, dimensions, reason))
        return results

    def keep(self, stage: str, tried: Mapping[Query, Sequence[Candidate]]) -> dict[str, int]:
        """Store the candidates of a stage; how many the gate stopped, by reason."""
        rows = [
            {
                "query": query,
                "rewrite": candidate.text,
                "round": candidate.round,
                "total": candidate.total,
                "dropped": candidate.dropped,
                "dimensions": dict(candidate.dimensions),
            }
            for query, candidates in tried.items()
            for candidate in candidates
        ]
        self.run.database.add_rewrites(stage, rows)
        return dict(Counter(c.dropped for found in tried.values() for c in found if c.dropped))

    def kept(self, stage: str) -> dict[Query, list[Candidate]]:
        """The candidates that a stage stored, by query, in order."""
        tried: dict[Query, list[Candidate]] = {}
        for query, row in self.run.database.rewrites(stage):
            candidate = Candidate(row.rewrite, row.round, row.total, row.dimensions or {}, row.dropped)
            tried.setdefault(query, []).append(candidate)
        return tried
