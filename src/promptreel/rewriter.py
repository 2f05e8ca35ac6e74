"""A language model, a template and a parser: from queries to rewrites."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from promptreel import profiles, prompts, queries, registry
from promptreel.errors import PromptreelError, Refused, ReplyError, UnknownName, UserError
from promptreel.protocols import LLM, Engine, Judge, Worker
from promptreel.resources import locate
from promptreel.store import Database
from promptreel.types import Component, Failure, Message, Query, Reply, Rewrite, Sampling, content_id, content_seed


@dataclass(frozen=True)
class Writer:
    """A language model in a role: how it is asked and how it draws."""

    llm: Component
    format: str = "standard"
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int = 64
    profile: Mapping[str, Any] | None = None
    """What the template may say of the video model."""

    def ask(self, task: str, **fields: Any) -> list[Message]:
        return prompts.render(task, self.format, profile=self.profile, **fields)


@dataclass(frozen=True)
class Tried:
    """One entry of the history that a teacher sees."""

    text: str
    total: float
    dimensions: Mapping[str, float | None]


def llm_worker(llm: Component, sampling: Sampling) -> Worker:
    model: LLM = registry.build(llm)

    def work(batch: Sequence[tuple[list[Message], int]]) -> list[Reply | Failure]:
        seed = batch[0][1]
        return model.complete([conversation for conversation, _ in batch], replace(sampling, seed=seed))

    return work


class Desk:
    """Where conversations are answered: in planned batches, each stored whole under its content.

    The seed of a batch comes from its content and the step that asks, so that a run gets the same answers
    every time, and a step that asks what an earlier one asked gets new ones. ``losses`` counts the replies
    that could not be had or used.
    """

    def __init__(
        self, database: Database, engine: Engine, report: Callable[[str, int, int], None] = lambda what, done, of: None
    ) -> None:
        self.database, self.engine, self.report = database, engine, report
        self.losses: Counter[str] = Counter()

    def answers(self, writer: Writer, conversations: Sequence[list[Message]], origin: str) -> Iterator[Reply | Failure]:
        """A raw reply or a failure for each conversation, in order."""
        fingerprint = registry.build(writer.llm).fingerprint
        sampling = writer.sampling
        drawn = [sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed, sampling.schema]
        for at in range(0, len(conversations), writer.batch_size):
            batch = conversations[at : at + writer.batch_size]
            key = content_id("replies", fingerprint, drawn, origin, batch)
            replies = self.database.reply_batch(key)
            if replies is None:
                seed = content_seed(key)
                items = [(conversation, seed) for conversation in batch]
                options = {"llm": writer.llm, "sampling": sampling}
                (replies,) = self.engine.map(llm_worker, options, items, len(items))
                self.database.add_reply_batch(key, fingerprint, replies, origin)
                self.report(f"{origin}: write", at + len(batch), len(conversations))
            yield from replies

    def rewrites(self, writer: Writer, conversations: Sequence[list[Message]], origin: str) -> list[str | None]:
        """The prompt in each reply; ``None``, and counted, where there is none."""
        texts: list[str | None] = []
        for reply in self.answers(writer, conversations, origin):
            try:
                texts.append(prompts.parse_rewrite(reply.text) if isinstance(reply, Reply) else None)
            except ReplyError:
                texts.append(None)
            if texts[-1] is None:
                self.losses[reply.reason if isinstance(reply, Failure) else "reply"] += 1
        return texts

    def rewrite(self, writer: Writer, asked: Sequence[Query], origin: str) -> list[str | None]:
        """One rewrite for each query."""
        return self.rewrites(writer, [writer.ask("rewrite", query=query.text) for query in asked], origin)


log = logging.getLogger(__name__)

SAFETY = ("rewrite_to_safe", "refuse", "off")
"""What becomes of harm."""
ATTEMPTS = 4
"""How often rewrites are drawn for a query while all of them are harmful."""
CARD = "promptreel.json"
"""Beside a student's weights: how it is to be asked."""

NAMED = {
    "tiny-base": ("package:promptreel.tiny/weights/base", None),
    "tiny-student": ("package:promptreel.tiny/weights/base", "package:promptreel.tiny/weights/student"),
}
"""Language models that come with the package: weights and adapter."""


def writer_for(spec: str, profile: str, sampling: Sampling | None = None) -> Writer:
    """The writer that a specification names: ``local:PATH-OR-HUB-ID[+ADAPTER]``, or one that comes along.

    A student that Promptreel trained brings a card that says in which format it is asked.
    """
    kind, _, rest = spec.partition(":")
    if spec in NAMED:
        model, adapter = NAMED[spec]
    elif kind == "local" and rest:
        model, _, plus = rest.partition("+")
        adapter = plus or None
    else:
        known = ", ".join(NAMED)
        raise UserError(f"cannot read the language model {spec!r}: give local:PATH-OR-HUB-ID[+ADAPTER], or {known}")
    component = Component("llm", "local", {"model": model} | ({"adapter": adapter} if adapter else {}))
    card = Path(str(locate(model))) / CARD
    asked = json.loads(card.read_text()) if card.exists() else {}
    return Writer(
        component,
        asked.get("format", "standard"),
        sampling or Sampling(**asked.get("sampling", {"temperature": 0.7, "max_tokens": 400})),
        profile=profiles.load(profile).model_dump(),
    )


class Rewriter:
    """Rewrites what people type into prompts for one video model.

        rewrite = Rewriter("tiny-student", profile="tiny")
        pipeline(prompt=rewrite("a red ball going right").text)

    ``llm`` is a specification as on the command line. The same query, seed and count give the same rewrites.

    ``safety`` is the policy for harm, where there is a judge of it (the profile's, or ``judge``):
    ``rewrite_to_safe`` withholds harmful rewrites and says under ``Rewrite.removed`` what of the query was left out,
    ``refuse`` refuses harmful queries, ``off`` does not judge harm.
    """

    def __init__(
        self,
        llm: str,
        profile: str,
        seed: int = 0,
        safety: str = "rewrite_to_safe",
        judge: Component | None = None,
    ) -> None:
        if safety not in SAFETY:
            raise UnknownName("safety policy", safety, SAFETY)
        self.safety = safety
        self.profile = profiles.load(profile)
        self.writer = writer_for(llm, profile)
        self.seed = seed
        self._model: LLM = registry.build(self.writer.llm)
        self._judge: Judge | None = None
        if judge or self.profile.judge:
            self._judge = registry.build(judge or Component("judge", str(self.profile.judge)))
        elif safety == "refuse":
            raise UserError(f"to refuse harmful queries takes a judge, and the profile {profile!r} names none")
        self._count = profiles.token_counter(profile)

    def __call__(self, query: str | Query) -> Rewrite:
        """The rewrite of a query. Raises ``ReplyError`` when the model's reply holds no prompt, and ``Refused``."""
        return self.candidates(query, 1)[0]

    def candidates(self, query: str | Query, count: int) -> list[Rewrite]:
        """``count`` rewrites of a query, drawn together; identical ones appear once.

        Raises ``Refused`` for a query that the policy does not let in, or when every rewrite drawn is harmful.
        """
        asked = queries.ask_for(query) if isinstance(query, str) else query
        self._admit(asked)
        withheld = 0
        for attempt in range(ATTEMPTS):
            rewrites = self._draw(asked, count, attempt)
            harmless = [rewrite for rewrite in rewrites if not (rewrite.verdict and rewrite.verdict.unsafe)]
            withheld += len(rewrites) - len(harmless)
            if harmless:
                break
        if withheld:
            log.warning("withheld %d harmful rewrites of %r", withheld, asked.text)
        if not harmless:
            raise Refused(f"no harmless rewrite of {asked.text!r} came of {ATTEMPTS} attempts; ask for something else")
        return harmless

    def _admit(self, asked: Query) -> None:
        if self._judge is None:
            return
        (verdict,) = self._judge.judge([(asked, asked.text)])  # refuses what its world does not know
        if self.safety == "refuse" and (verdict is None or verdict.unsafe):
            why = ", ".join(verdict.unsafe) if verdict else "nobody could judge whether it is harmless"
            raise Refused(f"the query {asked.text!r} is refused: {why}")

    def _draw(self, asked: Query, count: int, attempt: int) -> list[Rewrite]:
        conversation = self.writer.ask("rewrite", query=asked.text)
        seed = content_seed(self.seed, asked.id, count, *([attempt] if attempt else []))
        replies = self._model.complete([conversation] * count, replace(self.writer.sampling, seed=seed))
        failures = [reply for reply in replies if isinstance(reply, Failure)]
        if len(failures) == count:
            raise PromptreelError(f"the language model gave no reply: {failures[0].detail or failures[0].reason}")
        texts = dict.fromkeys(prompts.parse_rewrite(reply.text) for reply in replies if isinstance(reply, Reply))
        return [self.examine(asked, text) for text in texts]

    def examine(self, query: Query, text: str) -> Rewrite:
        """A text as a rewrite of a query: what it keeps of it, and how long it is."""
        verdict = self._judge.judge([(query, text)])[0] if self._judge else None
        verdict = verdict.ignoring_harm() if verdict and self.safety == "off" else verdict
        return Rewrite(query, text, verdict, self._count(text))
