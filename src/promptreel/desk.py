"""Where models are asked for words: in planned batches, each stored under what was asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from promptreel import prompts, registry
from promptreel.access import check_answered
from promptreel.errors import ReplyError
from promptreel.protocols import LLM, Engine, Worker
from promptreel.store import Database
from promptreel.types import Component, Failure, Message, Query, Reply, Sampling, content_id, content_seed

CARD = "promptreel.json"
"""Beside a student's weights: how it is to be asked."""
WARM = 0.7
"""Least temperature of a rewrite that is drawn again."""

WITHHELD = ("unsafe", "no verdict")
"""Reasons of a check for which a rewrite is not taken even where there is no other."""
Check = Callable[[Sequence[tuple[Query, str]], str], Sequence[str | None]]
"""Why each rewrite of a query does not pass in a step of the run; ``None`` when it does."""


@dataclass(frozen=True)
class Writer:
    """A language model in a role: how it is asked and how it draws."""

    llm: Component
    format: str = "standard"
    sampling: Sampling = field(default_factory=Sampling)
    batch_size: int = 64
    profile: Mapping[str, Any] | None = None
    """What the template may say of the video model."""
    attempts: int = 1
    """How often a rewrite is drawn for a query while none passes a check."""

    def again(self) -> Writer:
        """The same, to draw once more what did not pass: nearly greedy, a model would repeat its mistake."""
        return replace(self, sampling=replace(self.sampling, temperature=max(self.sampling.temperature, WARM)))

    def ask(self, task: str, **fields: Any) -> list[Message]:
        return prompts.render(task, self.format, profile=self.profile, **fields)


@dataclass(frozen=True)
class Tried:
    """One entry of the history that a teacher sees."""

    text: str
    total: float
    dimensions: Mapping[str, float | None]


def llm_worker(llm: Component) -> Worker:
    model: LLM = registry.build(llm)

    def work(batch: Sequence[tuple[list[Message], Sampling]]) -> list[Reply | Failure]:
        return model.complete([conversation for conversation, _ in batch], [sampling for _, sampling in batch])

    return work


class Desk:
    """Where conversations are answered: in planned batches, each stored whole under its content.

    The seed of a reply comes from what is asked and the step that asks, so that a run gets the same answers
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
        samplings = replace(sampling, seed=content_seed(fingerprint, drawn, origin)).each(conversations)
        for at in range(0, len(conversations), writer.batch_size):
            batch, rows = conversations[at : at + writer.batch_size], samplings[at : at + writer.batch_size]
            # What is said may be the same in two batches: several drafts for one query differ by their seeds.
            key = content_id("replies", fingerprint, drawn, origin, batch, [row.seed for row in rows])
            replies = self.database.reply_batch(key)
            if replies is None:
                items = list(zip(batch, rows, strict=True))
                (replies,) = self.engine.map(llm_worker, {"llm": writer.llm}, items, len(items))
                check_answered(replies)
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

    def checked(self, writer: Writer, asked: Sequence[Query], origin: str, check: Check) -> list[str | None]:
        """One rewrite for each query, drawn again while it does not pass, ``writer.attempts`` times in all.

        Of rewrites none of which passes, the first is taken that is not ``WITHHELD``; ``None`` where there is none:
        what the policy withholds is no loss.
        """
        found: dict[int, str] = {}
        left = list(range(len(asked)))
        for attempt in range(writer.attempts):
            drawing, step = (writer.again(), f"{origin}/{attempt}") if attempt else (writer, origin)
            texts = dict(zip(left, self.rewrite(drawing, [asked[n] for n in left], step), strict=True))
            drawn = {n: text for n, text in texts.items() if text is not None}
            reasons = check([(asked[n], text) for n, text in drawn.items()], step)
            for (n, text), reason in zip(drawn.items(), reasons, strict=True):
                if reason is None:
                    found[n] = text
                    left.remove(n)
                elif reason not in WITHHELD:
                    found.setdefault(n, text)
        return [found.get(n) for n in range(len(asked))]
