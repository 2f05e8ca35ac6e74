"""The rewriter: a language model, a template, a parser and a policy, from a query to prompts."""

from __future__ import annotations

import logging

from promptreel import profiles, queries, registry
from promptreel.errors import Refused, ReplyError, UserError
from promptreel.execution.writer import Writer
from promptreel.policy import Policy, Safety
from promptreel.protocols import LLM, Judge
from promptreel.rewriting.direct import DirectModels
from promptreel.rewriting.loop import Drawn, draw
from promptreel.rewriting.models import writer_for
from promptreel.store import Database
from promptreel.types import Candidate, Component, Query, SamplingParams

log = logging.getLogger(__name__)

WITHHELD = {"unsafe": "it is harmful", "no verdict": "the judge gave no verdict on it"}
"""Reasons for which a text is withheld, for people."""


class Rewriter:
    """Rewriter of queries, as people type them, into prompts for one video model.

        rewrite = Rewriter("tiny-student", profile="tiny")
        pipeline(prompt=rewrite("a red ball going right").text)

    ``llm`` is a specification as on the command line, and ``mode`` ``faithful`` or ``cinematic`` for models that
    Promptreel did not train. The same query, seed and count give the same candidates where the model can promise it;
    with a ``cache`` they are not asked for again.

    A candidate longer than the video model reads is asked for again, shorter. One that is still too long is given with
    ``fits`` False.

    ``safety`` is the policy for harm, where there is a judge of it (the profile's, or ``judge``):
    ``rewrite_to_safe`` withholds candidates that are harmful or have no verdict, and lists the removed parts of the
    query under ``removed``; ``refuse`` refuses harmful queries too; ``off`` does not judge harm. Raises ``UserError``
    for ``refuse`` without a judge.
    """

    def __init__(
        self,
        llm: str,
        profile: str,
        seed: int = 0,
        safety: Safety = "rewrite_to_safe",
        judge: Component | None = None,
        mode: str | None = None,
        cache: Database | None = None,
        policy: Policy | None = None,
    ) -> None:
        self.profile = profiles.load(profile)
        named = judge or (Component("judge", self.profile.judge) if self.profile.judge else None)
        self.policy = policy or Policy(safety, judged=named is not None)
        if self.policy.safety == "refuse" and named is None:
            raise UserError(
                f"to refuse harmful queries takes a judge, and the profile {profile!r} names none: give one"
            )
        self.writer: Writer = writer_for(llm, profile, mode)
        self.seed = seed
        self.tokens = profiles.token_counter(profile)
        """Counter of the video model's tokens. Its ``exact`` is False if it estimates."""
        self.model: LLM = registry.build(self.writer.llm)
        self._cache = cache
        self._judge: Judge | None = registry.build(named) if named else None
        self._judges_queries = self.policy.safety == "refuse" or judge is None
        """True if a query is judged before it is rewritten: where that decides something, or costs nothing."""

    @property
    def judged(self) -> bool:
        """True if a judge reads the candidates."""
        return self._judge is not None

    def __call__(self, query: str | Query) -> Candidate:
        """Return the best candidate for a query. Raises as ``candidates`` does."""
        return self.candidates(query)[0]

    def candidates(
        self,
        query: str | Query,
        count: int = 1,
        model: LLM | None = None,
        sampling: SamplingParams | None = None,
        seed: int | None = None,
    ) -> list[Candidate]:
        """Return up to ``count`` distinct candidates for a query, drawn together.

        While the policy accepts none of them, as many are drawn again; then the best of all come first. ``model``,
        ``sampling`` and ``seed`` replace the rewriter's own, for one request of a server.

        Raises ``Refused`` for a query that the policy does not admit, or if every candidate is withheld, and
        ``ReplyError`` if no reply holds a prompt.
        """
        asked = queries.ask_for(query) if isinstance(query, str) else query
        models = self._models(asked, count, model, seed)
        self._admit(asked, models)
        writer = self.writer.with_sampling(sampling) if sampling else self.writer
        (drawn,) = draw([asked], writer, models, self.policy, self.tokens, count)
        for reason, number in drawn.withheld.items():
            log.warning("withheld %d rewrites of %r: %s", number, asked.text, WITHHELD[reason])
        if not drawn.candidates:
            raise _nothing(drawn)
        return drawn.candidates[:count]

    def examine(self, query: Query, text: str) -> Candidate:
        """Return any text as a candidate for a query, judged and counted."""
        (candidate,) = self._models(query, 1).judge([Candidate(query, text)])
        return candidate

    def _models(self, query: Query, count: int, model: LLM | None = None, seed: int | None = None) -> DirectModels:
        root = self.seed if seed is None else seed
        return DirectModels(
            model or self.model, self._judge, self.policy, self.tokens, self._cache, root, query.id, count
        )

    def _admit(self, query: Query, models: DirectModels) -> None:
        """Raise ``Refused`` for a query that the policy does not admit.

        Raises ``QueryError`` for one outside the judge's world.
        """
        if self._judge is None or not self._judges_queries:
            return
        (typed,) = models.judge([Candidate.as_typed(query)])
        if self.policy.admits(typed):
            why = ", ".join(typed.verdict.unsafe) if typed.verdict else "the judge gave no verdict on it"
            raise Refused(f"the query {query.text!r} is refused: {why}")


def _nothing(drawn: Drawn) -> Refused | ReplyError:
    """Return the error of a query without a candidate."""
    if drawn.withheld:
        reasons = ", ".join(WITHHELD[reason] for reason in drawn.withheld)
        tried = f"{drawn.attempts} attempts: {reasons}"
        return Refused(f"no harmless rewrite of {drawn.query.text!r} came of {tried}; ask for something else")
    failure = drawn.failures[-1]
    return ReplyError(f"the language model gave no prompt: {failure.detail or failure.reason}")
