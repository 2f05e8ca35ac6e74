"""Language models as judges of the facts that a text keeps, and of its harm."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from promptreel import prompts
from promptreel.errors import ReplyError
from promptreel.faults import raise_if_unanswered
from promptreel.fingerprint import fingerprint
from promptreel.protocols import LLM
from promptreel.types import Candidate, Completion, SamplingParams, Verdict

log = logging.getLogger(__name__)

VERSION = 1


class LLMJudge:
    """Any chat model as a judge: it lists the facts of the query one by one, in JSON, which is strictly parsed.

    - ``format`` names the template ``verdict.<format>.j2`` that it is asked with.
    - ``temperature`` (0 is greedy) and ``max_tokens`` are its sampling; a retry is drawn at 0.7 at least.
    - ``attempts`` is the number of requests for a verdict at most.

    A candidate whose replies were all unusable has no verdict, which no policy accepts. If none of several candidates
    has a verdict, the model is at fault rather than the texts, and the most frequent reason is logged. Raises
    ``RunError`` when the server of the model cannot be reached.
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

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        verdicts: list[Verdict | None] = [None] * len(candidates)
        left = list(range(len(candidates)))
        faults: Counter[str] = Counter()
        for attempt in range(self.attempts):
            if not left:
                break
            asked = [
                prompts.render("verdict", self.format, query=candidates[i].query.text, rewrite=candidates[i].text)
                for i in left
            ]
            # A model that answers greedily would repeat its mistake.
            temperature = self.temperature if attempt == 0 else max(self.temperature, 0.7)
            sampling = SamplingParams(temperature, 1.0, self.max_tokens, attempt, prompts.VERDICT_SCHEMA)
            replies = self.llm.complete(asked, sampling.each(asked))
            if len(left) == len(candidates):
                raise_if_unanswered(replies)
            for index, reply in zip(list(left), replies, strict=True):
                if not isinstance(reply, Completion):
                    faults[f"{reply.reason} {reply.detail}".strip()] += 1
                    continue
                try:
                    verdicts[index] = prompts.parse_verdict(reply.text, candidates[index].query.text)
                    left.remove(index)
                except ReplyError as error:
                    faults[str(error)] += 1
        if faults and len(left) == len(candidates):
            log.warning("no verdict on any of %d rewrites: %s", len(candidates), faults.most_common(1)[0][0])
        return verdicts
