"""The stages of a run, in order: evolve, critique, SFT, sample, pairs, DPO, evaluate.

A stage reads what earlier stages stored, does its work through the scorer and the desk, and stores what it
made. A stage that is done is not done again; one that was interrupted goes on where its batches ended.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from promptreel.config import (
    AnyStage,
    CritiqueStage,
    DPOStage,
    EvaluateStage,
    EvolveStage,
    PairsStage,
    Recipe,
    SampleStage,
    SFTStage,
)
from promptreel.critique import Critique, Draft
from promptreel.desk import Tried
from promptreel.errors import RunError, UnknownName, UserError, importing
from promptreel.evaluation.study import findings, study
from promptreel.evolution import Fixed, winners
from promptreel.pairs import merge, rule
from promptreel.pipeline.check import generator_of
from promptreel.pipeline.workshop import Workshop
from promptreel.resources import locate
from promptreel.scoring import Report, Scorer, silent
from promptreel.store import Run
from promptreel.types import Candidate, Query, Sampling

log = logging.getLogger(__name__)
KEPT = 5.0
"""Seconds after which a stage at work writes down, with its next batch, how long it has taken."""


class Pipeline(Workshop):
    """One recipe at work in one run directory."""

    def __init__(self, recipe: Recipe, run: Run, report: Report = silent) -> None:
        super().__init__(recipe, run, self._reported)
        self._told = report
        self._keep_time: Callable[[], None] = lambda: None

    def _reported(self, what: str, done: int, whole: int) -> None:
        self._keep_time()
        self._told(what, done, whole)

    def execute(self, until: str | None = None) -> dict[str, Any]:
        """Do every stage that is not done yet, up to and including ``until``; the summary so far."""
        for stage in self.recipe.stage:
            self.do(stage.name)
            if stage.name == until:
                break
        return self.summary()

    def do(self, name: str) -> None:
        """Do one stage, unless it is done. Raises ``RunError`` when an input of it is not."""
        stage = self._stage(name)
        database = self.run.database
        state, before, output = database.stage(name) or ("new", 0.0, {})
        if self.is_done(name):
            return
        if state == "done":
            log.warning("the model of stage %r is damaged: it is trained again", name)
        made = {other.name for other in self.recipe.stage}
        for needed in self.recipe.inputs(stage):
            if needed in made and not self.is_done(needed):
                raise RunError(f"stage {name!r} needs {needed!r}, which is not done: run it first")
        began = time.monotonic()
        self.scorer.losses.clear()
        self.desk.losses.clear()
        self.left_out.clear()
        database.set_stage(name, stage.kind, "running", before, {})
        state = "running"
        kept = began

        def keep_time() -> None:
            """So that a killed stage, and one at work, say how long they took."""
            nonlocal kept
            if time.monotonic() - kept > KEPT:
                kept = time.monotonic()
                database.set_stage(name, stage.kind, "running", before + kept - began, {})

        self._keep_time = keep_time
        try:
            output = getattr(self, stage.kind)(stage)
            output |= {"left out": dict(self.left_out)} if self.left_out else {}
            database.set_losses(name, self.scorer.losses + self.desk.losses)
            state = "done"
        finally:
            self._keep_time = lambda: None
            database.set_stage(name, stage.kind, state, before + time.monotonic() - began, output)

    def is_done(self, name: str) -> bool:
        """Whether a stage is done, and the model that it trained, if it did, is whole."""
        stage = self._stage(name)
        trains = isinstance(stage, SFTStage | DPOStage)
        return (self.run.database.stage(name) or ("new",))[0] == "done" and (not trains or self.run.has_model(name))

    def _stage(self, name: str, kind: str | None = None) -> AnyStage:
        named = {stage.name: stage for stage in self.recipe.stage if kind in (None, stage.kind)}
        if name not in named:
            raise UnknownName(f"{kind} stage" if kind else "stage", name, named)
        return named[name]

    def summary(self) -> dict[str, Any]:
        """What the run found so far; written as ``summary.json``."""
        recipe, database = self.recipe, self.run.database
        stages = {stage.name: database.stage(stage.name) for stage in recipe.stage}
        evaluations = list(recipe.stages(EvaluateStage))
        outputs = [found[2] for e in evaluations if (found := stages[e.name]) and found[0] == "done"]
        summary = {
            "recipe": recipe.name,
            "finished": all(found is not None and found[0] == "done" for found in stages.values()),
            "systems": evaluations[-1].systems if evaluations else [],
            "ceiling": evaluations[-1].ceiling if evaluations else None,
            "benchmarks": {name: size for output in outputs for name, size in output["benchmarks"].items()},
            **{key: [row for o in outputs for row in o[key]] for key in ("comparisons", "means", "gaps")},
            "stages": {name: found[2] for name, found in stages.items() if found and "comparisons" not in found[2]},
            "renders": {name: database.renders(name) for name, found in stages.items() if found},
            "seconds": {name: round(found[1], 1) for name, found in stages.items() if found},
            "losses": database.losses(),
        }
        self.run.write_summary(summary)
        return summary

    def next_of(self, kind: str, name: str | None = None) -> str:
        """The first stage of a kind that is not done, or the one of this name; ``UserError`` without one."""
        if name is not None:
            return self._stage(name, kind).name
        names = [stage.name for stage in self.recipe.stage if stage.kind == kind]
        if not names:
            raise UserError(f"the recipe has no stage of kind {kind!r}")
        left = [name for name in names if not self.is_done(name)]
        if not left:
            raise UserError(f"every {kind} stage is done: {', '.join(names)}")
        return left[0]

    # The stages

    def evolve(self, stage: EvolveStage) -> dict[str, Any]:
        """Let the teacher improve the prompt of every query, round after round, by reward.

        A query that is harmful as typed has no generation 0: it is counted under ``dropped``, the teacher begins
        without an example, and whatever passes the gate has nothing to beat.
        """
        asked = self.admitted(self.queries(stage.queries), f"{stage.name}/0")
        search = Fixed(asked, stage.rounds, stage.children, stage.context)
        seeds = self.seeds(stage.name, stage.seeds)
        search.tell(self.trial(search.start(), 0, stage.blend, seeds, f"{stage.name}/0"))
        best = [search.mean_best()]
        teacher = self.writer("teacher")
        while asks := search.ask():
            origin = f"{stage.name}/{search.round + 1}"
            conversations, owners = [], []
            for ask in asks:
                history = [Tried(c.text, c.total or 0.0, c.dimensions) for c in ask.history]
                conversations += [teacher.ask("propose", query=ask.query.text, history=history)] * ask.children
                owners += [ask.query] * ask.children
            proposed = zip(owners, self.desk.rewrites(teacher, conversations, origin), strict=True)
            fresh = list(dict.fromkeys((q, text) for q, text in proposed if text and search.fresh(q, text)))
            search.tell(self.trial(fresh, search.round + 1, stage.blend, seeds, origin))
            best.append(search.mean_best())
        return {"best_by_round": best, "dropped": self.keep(stage.name, search.tried)}

    def sft(self, stage: SFTStage) -> dict[str, Any]:
        """Teach the student the best rewrite of each query."""
        with importing("training"):
            from promptreel.training.sft import sft

        examples = self.best(stage)
        if not examples:
            raise RunError(f"no rewrite of {stage.data!r} beats its query: {stage.name!r} has nothing to learn")
        return {"examples": len(examples), **self._train(sft, stage, examples)}

    def best(self, stage: SFTStage) -> list[tuple[Query, str]]:
        """What an SFT stage learns: the best rewrite of each query that has one, or its accepted texts."""
        if any(critique.name == stage.data for critique in self.recipe.stages(CritiqueStage)):
            tried = self.kept(stage.data)
            return [(query, c.text) for query, candidates in tried.items() for c in candidates if c.dropped is None]
        evolved = next(s for s in self.recipe.stages(EvolveStage) if s.name == stage.data)
        best = winners(self.kept(stage.data), self.recipe.blends[evolved.blend].floors, stage.margin)
        return [(query, candidate.text) for query, candidate in best.items()]

    def drafts(self, stage: SampleStage | CritiqueStage) -> list[tuple[Query, str]]:
        """Different candidates from a student, for each query of a stage."""
        writer = self.writer(stage.student)
        if stage.sampling:
            sampling = Sampling(**stage.sampling.model_dump(), seed=self.recipe.seed)
            writer = replace(writer, sampling=sampling)
        admitted = self.admitted(self.queries(stage.queries), f"{stage.name}/queries")
        asked = [query for query in admitted for _ in range(stage.candidates)]
        texts = self.desk.rewrite(writer, asked, f"{stage.name}/0")
        return list(dict.fromkeys((q, text) for q, text in zip(asked, texts, strict=True) if text))

    def critique(self, stage: CritiqueStage) -> dict[str, Any]:
        """Draft, judge, and have the teacher mend what the judge finds, until it passes."""
        work = Critique(stage.rounds, self.recipe.gate.fidelity)
        drafts = self.drafts(stage)
        versions = {draft: draft for draft in drafts}
        teacher = self.writer("teacher")
        number = 0
        while versions:
            origin = f"{stage.name}/{number}"
            verdicts = self.verdicts(list(versions.values()), origin)
            judged = zip(versions.items(), verdicts, strict=True)
            work.tell({key: Draft(text, verdict, self.too_long(text)) for (key, (_, text)), verdict in judged})
            asked = work.ask()
            number += 1
            conversations = [
                teacher.ask("refine", query=query.text, draft=draft.text, problems=draft.problems)
                for (query, _), draft in asked
            ]
            texts = self.desk.rewrites(teacher, conversations, f"{stage.name}/{number}")
            versions = {key: (key[0], text) for (key, _), text in zip(asked, texts, strict=True) if text}
        pairs = work.refinements(stage.per_query)
        self.run.database.add_pairs(stage.name, pairs)
        tried: dict[Query, list[Candidate]] = {}
        for (query, _), history in work.history.items():
            for number, draft in enumerate(history):
                candidate = Candidate(draft.text, number, dropped=work.stopped(draft))
                tried.setdefault(query, []).append(candidate)
        last = [history[-1].verdict for history in work.history.values()]
        return {
            "drafts": len(drafts),
            "passed at once": sum(work.passes(history[0]) for history in work.history.values()),
            "accepted": sum(map(len, work.accepted().values())),
            "made harmless": sum(bool(verdict and verdict.removed) for verdict in last),
            "dropped": self.keep(stage.name, tried),
            "pairs": len(pairs),
        }

    def sample(self, stage: SampleStage) -> dict[str, Any]:
        """Draw candidates from a student, gate, render and score them."""
        items = self.drafts(stage)
        tried = self.trial(items, 1, stage.blend, self.seeds(stage.name, stage.seeds), stage.name)
        return {"candidates": len(items), "dropped": self.keep(stage.name, tried)}

    def pairs(self, stage: PairsStage) -> dict[str, Any]:
        """Turn candidates into preferences."""
        samples = self.kept(stage.samples)
        drops: Counter[str] = Counter()
        sampled = next((s for s in self.recipe.stages(SampleStage) if s.name == stage.samples), None)
        floors = self.recipe.blends[sampled.blend].floors if sampled else {}  # a critique has no clips
        made = rule(stage.rule.name)(samples, drops, **{"floors": floors, **(stage.rule.model_extra or {})})
        self.run.database.add_pairs(stage.name, made)
        return {"pairs": len(made), "queries": len(samples), "dropped": dict(drops)}

    def dpo(self, stage: DPOStage) -> dict[str, Any]:
        """Teach the student to prefer."""
        with importing("training"):
            from promptreel.training.dpo import dpo

        pairs = merge([self.run.database.pairs(name) for name in stage.pairs], stage.exclusive)
        if not pairs:
            raise RunError(f"no pairs in {', '.join(stage.pairs)}: {stage.name!r} has nothing to learn")
        return {"pairs": len(pairs), **self._train(dpo, stage, pairs)}

    def _train(self, method: Callable[..., dict[str, float]], stage: SFTStage | DPOStage, data: Any) -> dict[str, Any]:
        from promptreel.training.progress import StepReport

        writer = self.writer(stage.student)
        options = writer.llm.options
        student = (locate(options["model"]), locate(options.get("adapter")), options.get("revision"))
        callbacks = [StepReport(self.report, stage.name)]
        self.engine.release()
        with self.run.publishing(stage.name) as out:
            found = method(student, writer, data, out, self.recipe.seed, stage.trainer, stage.lora, callbacks)
        self.engine.release()  # of the training itself, which refers to its model in circles
        return found

    def evaluate(self, stage: EvaluateStage, mark: str = "") -> dict[str, Any]:
        """Compare the systems on every benchmark.

        Prompts are drawn and noise is for the names of the stage and its benchmark. ``mark`` tells what is stored for
        one evaluation from what is for another of these names, of other queries: such as one plans its own batches,
        and finds there what the others have paid for.

        No harmful text is rendered, be it a system's or a query as typed (``raw``): nobody wants such clips on a disk
        or in a report. It is counted under ``unsafe`` and ``not rendered``, and its query is left out of what is
        compared by clips, neither won nor lost: who writes less harm is said by ``unsafe``, over all queries, and who
        gets better clips by the others.
        """
        output: dict[str, Any] = {"benchmarks": {}, "comparisons": [], "means": [], "gaps": []}
        names = [*stage.systems, *([stage.ceiling] if stage.ceiling else [])]
        systems = {name: None if name == "raw" else self.writer(name) for name in names}
        judge = stage.judge.component("reward")
        reader = self.scorer
        if stage.text_judge:
            read_by = stage.text_judge.component("judge")
            reader = Scorer(self.run, self.engine, generator_of(self.recipe), read_by, self.report)
        for name, benchmark in stage.benchmarks.items():
            self.left_out.clear()
            found = self.queries(benchmark.queries)
            drawn, origin = f"{stage.name}/{name}", f"{stage.name}{mark}/{name}"
            seeds = self.seeds(drawn, benchmark.seeds)
            refused = dict.fromkeys(found)
            for query in self.admitted(found, f"{origin}/queries"):
                del refused[query]
            results = study(
                found,
                systems,
                seeds,
                self.scorer,
                self.desk,
                judge,
                self.gate,
                lambda items, step: self.verdicts(items, step, reader),
                self.withheld,
                self.too_long,
                drawn,
                origin,
                refused.keys(),
            )
            for system, by_query in results.items():
                rows = {query: asdict(row) for query, row in by_query.items()}
                self.run.database.add_evaluation(name + mark, system, rows)
            part = findings(name, results, stage.metrics, judge.name, stage.baselines, stage.ceiling, len(found))
            for key, found_rows in part.items():
                output[key] += found_rows
            output["benchmarks"][name] = {"queries": len(found), "seeds": benchmark.seeds}
            withheld = {system: sum(bool(row.withheld) for row in rows.values()) for system, rows in results.items()}
            if any(withheld.values()):
                output["benchmarks"][name]["not rendered"] = {system: n for system, n in withheld.items() if n}
            if self.left_out:
                output["benchmarks"][name]["left out"] = dict(self.left_out)
        self.left_out.clear()
        return output
