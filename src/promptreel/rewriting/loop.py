"""Write, check, redraw, choose: the one loop behind ``promptreel rewrite``, the server, and systems "as used"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from promptreel import prompts
from promptreel.execution.writer import NO_PROMPT, Writer, prompt_in
from promptreel.policy import Policy
from promptreel.profiles import TokenCounter
from promptreel.types import Candidate, Completion, Failure, Message, Query, distinct

ATTEMPTS = 8
"""Draws for a query at most, while the policy accepts none of its candidates."""
SHORTENINGS = 2
"""Requests at most for a shorter version of a candidate that is too long."""
MARGIN = 0.85
"""Share of the words that would just fit that each shortening asks for: models count badly."""


class Models(Protocol):
    """Access to the writer and the judge: in a step of a run, or directly."""

    def complete(
        self, writer: Writer, conversations: Sequence[list[Message]], attempt: int, shortening: int = 0
    ) -> list[Completion | Failure]:
        """Return a completion per conversation, drawn anew for every attempt and shortening (counted from 1)."""
        ...

    def judge(self, candidates: Sequence[Candidate], attempt: int) -> list[Candidate]:
        """Return the candidates with verdicts, lengths, and the policy's decisions."""
        ...


@dataclass
class Drawn:
    """Everything drawn for one query."""

    query: Query
    candidates: list[Candidate] = field(default_factory=list)
    """Distinct ones that may be given out, best first; accepted ones, if there are any, among them."""
    withheld: Counter[str] = field(default_factory=Counter)
    """Candidates that the policy withheld, by reason."""
    failures: list[Failure] = field(default_factory=list)
    """Replies that could not be had, or that contain no prompt."""
    attempts: int = 0


def draw(
    queries: Sequence[Query], writer: Writer, models: Models, policy: Policy, tokens: TokenCounter, count: int = 1
) -> list[Drawn]:
    """Draw ``count`` candidates for each query, again and warmer while the policy accepts none.

    At most ``writer.attempts`` draws. A query whose model gives no reply at all is not asked again. Accepted candidates
    come first; after a second draw all are ordered by quality.
    """
    results = [Drawn(query) for query in queries]
    left = results
    for attempt in range(writer.attempts):
        if not left:
            break
        drawing = writer.again() if attempt else writer
        texts = _texts(left, drawing, models, attempt, count, tokens)
        written = distinct(
            Candidate(drawn.query, text, 1) for drawn, found in zip(left, texts, strict=True) for text in found
        )
        judged: dict[str, list[Candidate]] = {}
        for candidate in models.judge(written, attempt):
            judged.setdefault(candidate.query.row_id, []).append(candidate)
        for drawn in left:
            drawn.attempts = attempt + 1
            _keep(drawn, judged.get(drawn.query.row_id, []))
        left = [drawn for drawn, found in zip(left, texts, strict=True) if not _is_over(drawn, found, writer, policy)]
    for drawn in results:
        if drawn.attempts > 1:
            drawn.candidates.sort(key=rank, reverse=True)
        else:
            drawn.candidates.sort(key=lambda candidate: candidate.rejected is not None)
    return results


def rank(candidate: Candidate) -> tuple[bool, bool, float, int]:
    """Return the quality of a text, to compare: accepted first, then whole, faithful, without inventions."""
    verdict = candidate.verdict
    fidelity = verdict.fidelity if verdict else -1.0
    return candidate.rejected is None, candidate.fits, fidelity, -len(verdict.invented) if verdict else 0


def _keep(drawn: Drawn, judged: Sequence[Candidate]) -> None:
    known = {candidate.id for candidate in drawn.candidates}
    for candidate in judged:
        if candidate.withheld:
            drawn.withheld[candidate.withheld] += 1
        elif candidate.id not in known:
            drawn.candidates.append(candidate)


def _is_over(drawn: Drawn, texts: Sequence[str], writer: Writer, policy: Policy) -> bool:
    """Return True if another draw is not needed, or not expected to help.

    It is not needed for an accepted candidate, and for one that may be given out though the judge could not tell. It
    does not help if the model gives no reply at all, or if the only fault of a candidate is a length that requests for
    a shorter version did not mend.
    """
    latest = drawn.failures[-1:] if not texts else []
    silent = any(failure.reason != NO_PROMPT for failure in latest)
    settled = any(
        candidate.rejected is None
        or candidate.verdict is None
        or (writer.instructed and policy.accepts(replace(candidate, fits=True)))
        for candidate in drawn.candidates
    )
    return silent or settled


def _texts(
    left: Sequence[Drawn], writer: Writer, models: Models, attempt: int, count: int, tokens: TokenCounter
) -> list[list[str]]:
    """Return the distinct prompts drawn for each query; failures are kept with the query."""
    asked = [drawn for drawn in left for _ in range(count)]
    conversations = [writer.ask("rewrite", query=drawn.query.text) for drawn in asked]
    found: dict[int, list[str]] = {id(drawn): [] for drawn in left}
    for drawn, completion in zip(asked, models.complete(writer, conversations, attempt), strict=True):
        text = prompt_in(completion)
        if isinstance(text, Failure):
            drawn.failures.append(text)
        else:
            found[id(drawn)].append(text)
    texts = [list(dict.fromkeys(found[id(drawn)])) for drawn in left]
    if writer.instructed:
        _shorten([drawn.query for drawn in left], texts, writer, models, attempt, tokens)
    return [list(dict.fromkeys(row)) for row in texts]


def _shorten(
    queries: Sequence[Query],
    texts: list[list[str]],
    writer: Writer,
    models: Models,
    attempt: int,
    tokens: TokenCounter,
) -> None:
    """Replace texts longer than the video model reads by shorter versions, in place, where that works."""
    limit = tokens.profile.token_limit
    for shortening in range(1, SHORTENINGS + 1):
        places = [(row, column) for row, found in enumerate(texts) for column in range(len(found))]
        lengths = {place: tokens(texts[place[0]][place[1]]) for place in places}
        long = [place for place in places if lengths[place] > limit]
        if not long:
            return
        conversations = []
        for row, column in long:
            text, length = texts[row][column], lengths[row, column]
            words = max(int(len(text.split()) * limit / length * MARGIN**shortening), 1)
            fields = {"query": queries[row].text, "draft": text, "tokens": length, "words": words}
            conversations.append(prompts.render("shorten", "standard", profile=writer.profile, **fields))
        for (row, column), completion in zip(
            long, models.complete(writer, conversations, attempt, shortening), strict=True
        ):
            shorter = prompt_in(completion)
            if isinstance(shorter, str) and tokens(shorter) < lengths[row, column]:
                texts[row][column] = shorter


def assess(candidate: Candidate, policy: Policy, tokens: TokenCounter) -> Candidate:
    """Return a candidate with its length and the policy's decisions on it."""
    length = tokens(candidate.text)
    counted = replace(candidate, tokens=length, fits=length <= tokens.profile.token_limit)
    return policy.decide([counted])[0]
