"""Direct access to writer and judge, outside of any run, with the user's cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from promptreel.execution.writer import Writer, prompt_in
from promptreel.fingerprint import content_id, content_seed
from promptreel.policy import Policy
from promptreel.profiles import TokenCounter
from promptreel.protocols import LLM, Judge
from promptreel.rewriting.loop import assess
from promptreel.store import Database
from promptreel.store.content import Completions, Verdicts
from promptreel.types import Candidate, Completion, Failure, Message


@dataclass(frozen=True)
class DirectModels:
    """Writer and judge for one query. ``seed`` is the root of its completions' seeds."""

    model: LLM
    judge_model: Judge | None
    policy: Policy
    tokens: TokenCounter
    cache: Database | None
    seed: int
    query_id: str
    count: int
    """Candidates drawn together."""

    def complete(
        self, writer: Writer, conversations: Sequence[list[Message]], attempt: int, shortening: int = 0
    ) -> list[Completion | Failure]:
        """Return completions. Those with a prompt in them are cached; others are asked for again the next time."""
        seed = content_seed(self.seed, self.query_id, self.count, *([attempt] if attempt else []))
        if shortening:
            seed = content_seed(seed, shortening)
        rows = replace(writer.sampling, seed=seed).each(conversations)
        keys = [
            content_id("rewrite", self.model.fingerprint, asdict(params), conversation)
            for params, conversation in zip(rows, conversations, strict=True)
        ]
        known: dict[str, Completion | Failure] = {}
        if self.cache:
            with self.cache.reading() as connection:
                known = Completions.read(connection, keys)
        missing = [place for place, key in enumerate(keys) if key not in known]
        if missing:
            asked = self.model.complete([conversations[i] for i in missing], [rows[i] for i in missing])
            new = {keys[place]: completion for place, completion in zip(missing, asked, strict=True)}
            known |= new
            usable = {key: completion for key, completion in new.items() if isinstance(prompt_in(completion), str)}
            if self.cache and usable:
                stored = Completions.rows(self.model.fingerprint, list(usable), list(usable), list(usable.values()))
                self.cache.add(Completions.table, stored)
        return [known[key] for key in keys]

    def judge(self, candidates: Sequence[Candidate], attempt: int = 0) -> list[Candidate]:
        """Return judged candidates. Verdicts are cached; a missing one is asked for again the next time."""
        if self.judge_model is None:
            return [assess(candidate, self.policy, self.tokens) for candidate in candidates]
        judge = self.judge_model.fingerprint
        keys = [content_id("verdict", judge, c.query.id, c.text) for c in candidates]
        known = {}
        if self.cache:
            with self.cache.reading() as connection:
                known = Verdicts.read(connection, keys)
        new = {key: candidate for key, candidate in zip(keys, candidates, strict=True) if key not in known}
        if new:
            found = dict(zip(new, self.judge_model.judge(list(new.values())), strict=True))
            known |= found
            given = [key for key, verdict in found.items() if verdict]
            if self.cache and given:
                rows = Verdicts.rows(judge, given, [new[key] for key in given], [found[key] for key in given])
                self.cache.add(Verdicts.table, rows)
        verdicts = [replace(candidate, verdict=known[key]) for key, candidate in zip(keys, candidates, strict=True)]
        return [assess(candidate, self.policy, self.tokens) for candidate in verdicts]
