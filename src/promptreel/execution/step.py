"""A step of a run ("evolve/2"): the one road from a request for work to stored results."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from promptreel import registry
from promptreel.errors import RenderError, RunError
from promptreel.execution.batches import Execution, Progress, Work, silent
from promptreel.execution.workers import UNREADABLE, judge_worker, llm_worker, render_worker, reward_worker
from promptreel.execution.writer import Writer, prompt_in
from promptreel.faults import raise_if_unanswered
from promptreel.fingerprint import content_id, content_seed
from promptreel.objective import Objective
from promptreel.policy import Policy
from promptreel.profiles import TokenCounter
from promptreel.protocols import Engine
from promptreel.store import Run
from promptreel.store.content import Clips, ClipScores, Completions, Verdicts, read_render_batches
from promptreel.store.ledger import Batch
from promptreel.types import (
    MAIN,
    Candidate,
    ClipToScore,
    Completion,
    Component,
    Failure,
    Message,
    RenderRequest,
    ScoredClip,
    ScoreResult,
    Scores,
    StageRecord,
)

log = logging.getLogger(__name__)

SCORE_BATCH = 32
"""Clips that a reward model scores at once."""
JUDGE_BATCH = 64
"""Candidates that a judge reads at once."""


KEPT = 5.0
"""Seconds after which the time of a stage at work is stored, with its next batch."""


@dataclass
class Resources:
    """Everything that the steps of a run share."""

    run: Run
    engine: Engine
    seed: int
    policy: Policy
    tokens: TokenCounter
    judge: Component
    generators: Mapping[str, Component]
    """By name; the recipe's own is called ``main``."""
    rewards: Mapping[str, Component]
    """The reward models that stages train by."""
    objectives: Mapping[str, Objective]
    writers: Mapping[str, Writer]
    """The teacher, the base student (``base``), and the systems that no stage trains, by name."""
    progress: Progress = silent
    stage: StageRecord | None = None
    """The stage at work, as it was when it was begun or continued."""
    began: float = 0.0
    """Time at which it was begun or continued, on the monotonic clock in seconds."""
    kept: float = 0.0
    """Time at which its time was stored last."""
    built: dict[str, Any] = field(default_factory=dict)

    def keep_time(self) -> None:
        """Store the time of the stage at work now and then: it is known while the stage runs, and if it is killed."""
        now = time.monotonic()
        if self.stage and now - max(self.kept, self.began) > KEPT:
            self.kept = now
            self.run.records.put_stage(replace(self.stage, seconds=self.stage.seconds + now - self.began))

    def component(self, component: Component) -> Any:
        """Return a component, built once, to know its fingerprint and settings; its weights are not loaded."""
        key = repr((component.kind, component.name, sorted(component.options.items())))
        if key not in self.built:
            self.built[key] = registry.build(component)
        return self.built[key]


class Step:
    """One step of a run.

    It owns its name, a numbered stream of noise seeds, its failures by reason, and its progress. Results go through the
    store: whatever is stored already is not done again.
    """

    def __init__(
        self,
        resources: Resources,
        name: str,
        noise: str | None = None,
        judge: Component | None = None,
        failures: Counter[str] | None = None,
    ) -> None:
        """``noise`` names the stream of seeds, by default the step itself; ``judge`` replaces the recipe's."""
        self.resources, self.name, self.noise = resources, name, noise or name
        self.judge_component = judge or resources.judge
        self.failures: Counter[str] = Counter() if failures is None else failures

    def seed(self, index: int) -> int:
        """Return a noise seed of the stream. Candidates that share an index start from the same noise."""
        return content_seed(self.resources.seed, self.noise, index)

    def sub(self, name: str, judge: Component | None = None) -> Step:
        """Return a step with the same noise and failures under another name."""
        return Step(self.resources, name, self.noise, judge or self.judge_component, self.failures)

    # Words

    def complete(self, writer: Writer, conversations: Sequence[list[Message]]) -> list[Completion | Failure]:
        """Return one completion per conversation.

        Seeds come from the conversation and the name of the step: a run gets the same completions every time, and a
        step that asks the same as an earlier one gets new ones.
        """
        fingerprint = self.resources.component(writer.llm).fingerprint
        sampling = writer.sampling
        drawn = [sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed, sampling.schema]
        rows = replace(sampling, seed=content_seed(fingerprint, drawn, self.name)).each(conversations)
        items = {
            content_id("completion", fingerprint, drawn, self.name, conversation, params.seed): (conversation, params)
            for conversation, params in zip(conversations, rows, strict=True)
        }

        def check(batch: Batch, results: Sequence[Any]) -> Sequence[Any]:
            raise_if_unanswered(results)
            return results

        options = {"llm": writer.llm}
        size = writer.batch_size
        work = Work("complete", Completions, fingerprint, size, llm_worker, options, items, check=check)
        found = self._execute(work, "write")
        return [found[key] for key in items]

    def write(self, writer: Writer, task: str, requests: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """Return the prompt that a writer gives for each request; ``None``, and counted, where there is none.

        A request holds the fields of the task's template.
        """
        conversations = [writer.ask(task, **request) for request in requests]
        texts: list[str | None] = []
        for completion in self.complete(writer, conversations):
            text = prompt_in(completion)
            if isinstance(text, Failure):
                self.failures[text.reason] += 1
            texts.append(None if isinstance(text, Failure) else text)
        return texts

    # Verdicts

    def judge(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates with verdicts, lengths and the policy's decisions. A missing verdict is counted."""
        resources = self.resources
        fingerprint = resources.component(self.judge_component).fingerprint
        keys = [content_id("verdict", fingerprint, c.query.id, c.text) for c in candidates]
        items = dict(zip(keys, candidates, strict=True))
        options = {"judge": self.judge_component}
        work = Work("judge", Verdicts, fingerprint, JUDGE_BATCH, judge_worker, options, items, failed=lambda _: None)
        found = self._execute(work, "judge")
        judged = []
        for key, candidate in zip(keys, candidates, strict=True):
            tokens = resources.tokens(candidate.text)
            fits = tokens <= resources.tokens.profile.token_limit
            judged.append(replace(candidate, verdict=found[key], tokens=tokens, fits=fits))
        if lost := sum(candidate.verdict is None for candidate in judged):
            self.failures["verdict"] += lost
        return resources.policy.decide(judged)

    def try_out(
        self, candidates: Sequence[Candidate], seed_indices: Sequence[int], generator: str = MAIN
    ) -> list[Candidate]:
        """Judge candidates, and render and score those that the policy accepts.

        A query as typed (round 0) is a baseline: it is rendered unless the policy withholds it.
        """
        judged = [_baseline(c) if c.round == 0 else c for c in self.judge(candidates)]
        accepted = [candidate for candidate in judged if candidate.rejected is None]
        measured = {candidate.id: candidate for candidate in self.measure(accepted, seed_indices, generator=generator)}
        return [measured.get(candidate.id, candidate) for candidate in judged]

    # Clips

    def render(self, requests: Iterable[RenderRequest], generator: str = MAIN) -> dict[RenderRequest, float | Failure]:
        """Render requests; return the frames per second of each clip, or its failure, which is counted."""
        component = self.resources.generators[generator]
        model = self.resources.component(component)
        items = {request.clip_id(model.fingerprint): request for request in requests}
        options = self._render_options(component, model.fingerprint)
        name = "render" if generator == MAIN else f"render {generator}"
        work = Work(name, Clips, model.fingerprint, model.batch_size, render_worker, options, items)
        found = self._execute(work, name)
        results = {request: found[key] for key, request in items.items()}
        self.failures.update(result.reason for result in results.values() if isinstance(result, Failure))
        return results

    def _render_options(self, generator: Component, fingerprint: str) -> dict[str, Any]:
        return {"generator": generator, "clips": self.resources.run.clips, "fingerprint": fingerprint}

    def measure(
        self,
        candidates: Sequence[Candidate],
        seed_indices: Sequence[int],
        rewards: Mapping[str, Component] | None = None,
        generator: str = MAIN,
    ) -> list[Candidate]:
        """Render each candidate with some seeds of the stream, score the clips, and return them with the candidates."""
        requests = {
            candidate.id: [
                RenderRequest(candidate.text, candidate.query.negative, self.seed(index), candidate.query.aspect)
                for index in seed_indices
            ]
            for candidate in candidates
        }
        rendered = self.render([request for row in requests.values() for request in row], generator)
        fingerprint = self.resources.component(self.resources.generators[generator]).fingerprint
        clips: dict[tuple[str, RenderRequest], ClipToScore] = {}
        for candidate in candidates:
            for request in requests[candidate.id]:
                fps = rendered[request]
                if not isinstance(fps, Failure):
                    clips[candidate.id, request] = ClipToScore(candidate.query, request.clip_id(fingerprint), fps)
        chosen = self.resources.rewards if rewards is None else rewards
        scores = self.score(list(clips.values()), chosen, generator)
        measured = []
        for candidate in candidates:
            made = []
            for index, request in zip(seed_indices, requests[candidate.id], strict=True):
                clip, result = clips.get((candidate.id, request)), rendered[request]
                if clip is None:
                    failure = result.reason if isinstance(result, Failure) else ""
                    made.append(ScoredClip(index, None, {}, failure, generator))
                else:
                    found = scores[clip.query.row_id, clip.clip]
                    made.append(ScoredClip(index, clip.clip, found, generator=generator))
            measured.append(replace(candidate, clips=(*candidate.clips, *made)))
        return measured

    def score(
        self, clips: Sequence[ClipToScore], rewards: Mapping[str, Component], generator: str = MAIN
    ) -> dict[tuple[str, str], Scores]:
        """Return the scores of each clip by all reward models, by the row id of its query and its own id.

        Raises ``RunError`` if two reward models measure a dimension of the same name.
        """
        merged: dict[tuple[str, str], dict[str, float | None]] = {(c.query.row_id, c.clip): {} for c in clips}
        for reward in rewards.values():
            for key, scores in self._score_by(reward, clips, generator).items():
                if twice := merged[key].keys() & scores.keys():
                    raise RunError(f"two rewards measure {sorted(twice)[0]!r}; rename a dimension of one")
                merged[key].update(scores)
        return dict(merged)

    def _score_by(
        self, reward: Component, clips: Sequence[ClipToScore], generator: str
    ) -> dict[tuple[str, str], Scores]:
        model = self.resources.component(reward)
        keys = [content_id("score", model.fingerprint, clip.query.id, clip.clip) for clip in clips]
        items = dict(zip(keys, clips, strict=True))
        options = {"reward": reward, "clips": self.resources.run.clips}

        def check(batch: Batch, results: Sequence[Any]) -> Sequence[Any]:
            """Render damaged clips again, and score the batch once more; a clip that stays damaged has no scores."""
            scored = results
            if broken := [items[key].clip for key, r in zip(batch.ids, results, strict=True) if _unreadable(r)]:
                try:
                    self._render_again(broken, generator)
                    scored = self._once(reward_worker, options, [items[key] for key in batch.ids])
                except RenderError as error:
                    log.warning("%d damaged clips could not be rendered again: %s", len(broken), error)
            return [_no_scores(r) if isinstance(r, Failure) else r for r in scored]

        name = f"score {reward.name}"
        work = Work(name, ClipScores, model.fingerprint, SCORE_BATCH, reward_worker, options, items, _no_scores, check)
        found = self._execute(work, name)
        self.failures["reward"] += sum(found[key].scores is None for key in items)
        missing = dict.fromkeys(model.dimensions)
        return {
            (clip.query.row_id, clip.clip): found[key].scores or missing for key, clip in zip(keys, clips, strict=True)
        }

    def _render_again(self, clips: Sequence[str], generator: str) -> None:
        """Replace damaged files: render the batches again in which their clips were first rendered."""
        for clip in clips:
            self.resources.run.clips.remove(clip)
        component = self.resources.generators[generator]
        options = self._render_options(component, self.resources.component(component).fingerprint)
        with self.resources.run.database.reading() as connection:
            batches = read_render_batches(connection, clips)
        for batch in batches:
            self._once(render_worker, options, batch)

    def _once(self, factory: Any, options: Mapping[str, Any], batch: Sequence[Any]) -> list[Any]:
        """Return the results of one batch outside the plan."""
        (finished,) = self.resources.engine.finished(self.resources.engine.submit(factory, options, [batch]))
        if finished.error:
            raise finished.error
        return finished.results

    def _execute(self, work: Work, label: str) -> dict[str, Any]:
        if not work.items:
            return {}
        ledger, engine = self.resources.run.records.ledger, self.resources.engine

        def report(done: int, total: int) -> None:
            self.resources.keep_time()
            self.resources.progress(f"{self.name}: {label}", done, total)

        return Execution(engine, ledger, self.name, work, report).results()


def _baseline(candidate: Candidate) -> Candidate:
    """Return a query as typed, rejected only if the policy withholds it."""
    return replace(candidate, rejected=candidate.withheld and f"{candidate.withheld} as typed")


def _no_scores(failure: Failure) -> ScoreResult:
    return ScoreResult(None, failure.detail)


def _unreadable(result: Any) -> bool:
    return isinstance(result, Failure) and result.reason == UNREADABLE
