"""A language model, a template and a parser: from queries to rewrites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptreel import prompts
from promptreel.errors import ReplyError
from promptreel.protocols import LLM, Engine, Worker
from promptreel.registry import build
from promptreel.store import Database
from promptreel.types import Component, Failure, Message, Query, Sampling, content_id, content_seed


@dataclass(frozen=True)
class Writer:
    """A language model in a role: how it is asked and how it draws."""

    llm: Component
    format: str = "standard"
    sampling: Sampling = Sampling()
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
    model: LLM = build(llm)

    def work(batch: Sequence[tuple[list[Message], int]]) -> list[str | Failure]:
        seed = batch[0][1]
        return model.complete([conversation for conversation, _ in batch], replace(sampling, seed=seed))

    return work


class Desk:
    """Where conversations are answered: in planned batches, each stored whole under its content.

    The seed of a batch comes from its content, so the same questions get the same answers, in this run and
    in any other.
    """

    def __init__(self, database: Database, engine: Engine) -> None:
        self.database, self.engine = database, engine
        self.losses: Counter[str] = Counter()

    def answers(
        self, writer: Writer, conversations: Sequence[list[Message]], origin: str
    ) -> Iterator[str | Failure]:
        """A raw reply or a failure for each conversation, in order."""
        fingerprint = build(writer.llm).fingerprint
        sampling = writer.sampling
        drawn = [sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.seed]
        for at in range(0, len(conversations), writer.batch_size):
            batch = conversations[at : at + writer.batch_size]
            key = content_id("replies", fingerprint, drawn, batch)
            replies = self.database.reply_batch(key)
            if replies is None:
                seed = content_seed(key)
                items = [(conversation, seed) for conversation in batch]
                options = {"llm": writer.llm, "sampling": sampling}
                (replies,) = self.engine.map(llm_worker, options, items, len(items))
                self.database.add_reply_batch(key, fingerprint, replies, origin)
            yield from replies

    def rewrites(
        self, writer: Writer, conversations: Sequence[list[Message]], origin: str
    ) -> list[str | None]:
        """The prompt in each reply; ``None``, and counted, where there is none."""
        texts: list[str | None] = []
        for reply in self.answers(writer, conversations, origin):
            try:
                texts.append(prompts.parse_rewrite(reply) if isinstance(reply, str) else None)
            except ReplyError:
                texts.append(None)
            if texts[-1] is None:
                self.losses[reply.reason if isinstance(reply, Failure) else "reply"] += 1
        return texts

    def rewrite(self, writer: Writer, queries: Sequence[Query], origin: str) -> list[str | None]:
        """One rewrite for each query."""
        return self.rewrites(writer, [writer.ask("rewrite", query=query.text) for query in queries], origin)
