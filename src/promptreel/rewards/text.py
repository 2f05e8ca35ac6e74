"""Judges of texts by language models: does a rewrite keep the facts, and is it harmless?"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from promptreel import prompts
from promptreel.access import check_answered
from promptreel.errors import ReplyError
from promptreel.protocols import LLM, Judge
from promptreel.store.files import fingerprint
from promptreel.types import Query, Reply, Sampling, Verdict

log = logging.getLogger(__name__)

VERSION = 1


class LLMJudge:
    """Any chat model as a judge, asked for the facts one by one, in JSON, strictly parsed.

    A reply that cannot be used is asked for again, ``attempts`` times in all; what still has no verdict passes
    no gate. Where that is all there was to judge, it is said why: something is wrong with the model, not the rewrites.
    """

    def __init__(
        self,
        llm: LLM,
        format: str = "standard",
        temperature: float = 0.0,
        max_tokens: int = 1200,
        attempts: int = 2,
    ) -> None:
        self.llm, self.format, self.attempts = llm, format, attempts
        self.temperature, self.max_tokens = temperature, max_tokens
        self.fingerprint = fingerprint(
            "llm-judge",
            None,
            llm=llm.fingerprint,
            format=format,
            temperature=temperature,
            max_tokens=max_tokens,
            attempts=attempts,
            version=VERSION,
        )

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        verdicts: list[Verdict | None] = [None] * len(items)
        left = list(range(len(items)))
        wrong: Counter[str] = Counter()
        for attempt in range(self.attempts):
            if not left:
                break
            asked = [prompts.render("verdict", self.format, query=items[i][0].text, rewrite=items[i][1]) for i in left]
            # A model that answers greedily would repeat its mistake.
            temperature = self.temperature if attempt == 0 else max(self.temperature, 0.7)
            sampling = Sampling(temperature, 1.0, self.max_tokens, attempt, prompts.VERDICT_SCHEMA)
            replies = self.llm.complete(asked, sampling.each(asked))
            if len(left) == len(items):
                check_answered(replies)
            for index, reply in zip(list(left), replies, strict=True):
                if not isinstance(reply, Reply):
                    wrong[f"{reply.reason} {reply.detail}".strip()] += 1
                    continue
                try:
                    verdicts[index] = prompts.parse_verdict(reply.text, items[index][0].text)
                    left.remove(index)
                except ReplyError as error:
                    wrong[str(error)] += 1
        if wrong and len(left) == len(items):
            log.warning("no verdict on any of %d rewrites: %s", len(items), wrong.most_common(1)[0][0])
        return verdicts


class Guarded:
    """A judge of facts and a guard of harm, together: what either finds wrong is wrong.

    Where one of them has no verdict, neither has the pair.
    """

    def __init__(self, facts: Judge, guard: Judge) -> None:
        self.facts, self.guard = facts, guard
        self.fingerprint = f"guarded({facts.fingerprint},{guard.fingerprint})"

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        return [
            None if a is None or b is None else Verdict(a.facts, (*a.unsafe, *b.unsafe), a.invented)
            for a, b in zip(self.facts.judge(items), self.guard.judge(items), strict=True)
        ]
