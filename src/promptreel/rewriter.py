"""A language model, a template and a parser: from queries to rewrites."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from promptreel import profiles, prompts, queries, registry
from promptreel.errors import Refused, ReplyError, UnknownName, UserError
from promptreel.protocols import LLM, Engine, Judge, Worker
from promptreel.resources import locate
from promptreel.store import Database
from promptreel.types import (
    Component,
    Failure,
    Message,
    Query,
    Reply,
    Rewrite,
    Sampling,
    Verdict,
    content_id,
    content_seed,
)


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
            batch = conversations[at : at + writer.batch_size]
            key = content_id("replies", fingerprint, drawn, origin, batch)
            replies = self.database.reply_batch(key)
            if replies is None:
                items = list(zip(batch, samplings[at : at + writer.batch_size], strict=True))
                (replies,) = self.engine.map(llm_worker, {"llm": writer.llm}, items, len(items))
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

        Of rewrites none of which passes, the first is taken that is not harmful; ``None``, and counted, where all are.
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
                elif reason != "unsafe":
                    found.setdefault(n, text)
        if harmful := sum(n not in found and n in drawn for n in left):
            self.losses["unsafe"] += harmful
        return [found.get(n) for n in range(len(asked))]


Check = Callable[[Sequence[tuple[Query, str]], str], Sequence[str | None]]
"""Why each rewrite of a query does not pass in a step of the run; ``None`` when it does."""
log = logging.getLogger(__name__)

SAFETY = ("rewrite_to_safe", "refuse", "off")
"""What becomes of harm."""
ATTEMPTS = 4
"""How often rewrites are drawn for a query while all of them are harmful or lose a fact."""
SHORTENINGS = 2
"""How often a rewrite that is too long is asked for again."""
MARGIN = 0.85
"""Share of the words that would just fit that each shortening asks for: models count badly."""
WARM = 0.7
"""Least temperature of a rewrite that is drawn again."""
ORIGIN = "rewrite"
CARD = "promptreel.json"
"""Beside a student's weights: how it is to be asked."""

NAMED = {
    "tiny-base": ("package:promptreel.tiny/weights/base", None),
    "tiny-student": ("package:promptreel.tiny/weights/base", "package:promptreel.tiny/weights/student"),
}
"""Language models that come with the package: weights and adapter."""


ENDPOINT = re.compile(r"(?P<model>.+?)(?:@(?P<url>https?://.+))?")
SPECS = "endpoint:MODEL[@URL], local:PATH-OR-HUB-ID[+ADAPTER]"
RETRIES = 2
"""Of a request to an endpoint: somebody is waiting."""
LONGEST = 2048
"""Tokens that a model without a card may write: thoughts count too, and what is cut off is of no use."""


def component_of(spec: str) -> Component:
    """The language model that a specification names: an endpoint, local weights, or one that comes along."""
    kind, _, rest = spec.partition(":")
    if spec in NAMED:
        model, adapter = NAMED[spec]
        return Component("llm", "local", {"model": model} | ({"adapter": adapter} if adapter else {}))
    if kind == "local" and rest:
        model, _, adapter = rest.partition("+")
        return Component("llm", "local", {"model": model} | ({"adapter": adapter} if adapter else {}))
    if kind == "endpoint" and (parts := ENDPOINT.fullmatch(rest)):
        if "@" in parts["model"][1:]:
            raise UserError(f"cannot read {spec!r}: after @ comes a URL that begins with http:// or https://")
        url = {"url": parts["url"]} if parts["url"] else {}
        return Component("llm", "endpoint", {"model": parts["model"], **url, "retries": RETRIES})
    raise UserError(f"cannot read the language model {spec!r}: give {SPECS}, or {', '.join(NAMED)}")


def judge_of(spec: str) -> Component:
    """The judge that a specification names: a registered one, or a language model that is asked for a verdict."""
    if spec in registry.names("judge"):
        return Component("judge", spec)
    llm = component_of(spec)
    return Component("judge", "llm", {"llm": {"name": llm.name, **llm.options}})


def writer_for(spec: str, profile: str, mode: str | None = None) -> Writer:
    """The writer that a specification names, as ``component_of`` reads it, in a mode of ``prompts.MODES``.

    A student that Promptreel trained brings a card that says in which format it is asked, and takes no mode; every
    other model is asked in the first mode if none is given.
    """
    if mode is not None and mode not in prompts.MODES:
        raise UnknownName("mode", mode, prompts.MODES)
    component = component_of(spec)
    card = Path(str(locate(component.options["model"]))) / CARD
    asked = json.loads(card.read_text()) if component.name == "local" and card.exists() else {}
    if asked and mode:
        raise UserError(f"{spec} was trained to be asked in its own way: leave out the mode")
    return Writer(
        component,
        asked.get("format", mode or prompts.MODES[0]),
        Sampling(**asked.get("sampling", {"temperature": 0.7, "max_tokens": LONGEST})),
        profile=profiles.load(profile).model_dump(),
    )


class Rewriter:
    """Rewrites what people type into prompts for one video model.

        rewrite = Rewriter("tiny-student", profile="tiny")
        pipeline(prompt=rewrite("a red ball going right").text)

    ``llm`` is a specification as on the command line, and ``mode`` ``faithful`` or ``cinematic`` for models that
    Promptreel did not train. The same query, seed and count give the same rewrites where the model can promise it;
    with a ``cache`` they are not asked for again.

    A rewrite that the video model would not read to its end is asked for again, shorter; one that is still too
    long is given as it is: ``fits`` tells.

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
        mode: str | None = None,
        cache: Database | None = None,
    ) -> None:
        if safety not in SAFETY:
            raise UnknownName("safety policy", safety, SAFETY)
        self.safety = safety
        self.profile = profiles.load(profile)
        self.writer = writer_for(llm, profile, mode)
        self.seed = seed
        self.count = profiles.token_counter(profile)
        """Counts tokens as the video model does, or estimates them: ``exact`` says which."""
        self._cache = cache
        self._model: LLM = registry.build(self.writer.llm)
        self._judge: Judge | None = None
        if judge or self.profile.judge:
            self._judge = registry.build(judge or Component("judge", str(self.profile.judge)))
        elif safety == "refuse":
            raise UserError(
                f"to refuse harmful queries takes a judge, and the profile {profile!r} names none: give one"
            )
        self._asks_first = safety == "refuse" or judge is None
        """Whether a query is judged before it is rewritten: where that decides something, or costs nothing."""

    @property
    def judged(self) -> bool:
        """Whether somebody judges what becomes of the facts."""
        return self._judge is not None

    def drawing(self, model: LLM, sampling: Sampling, seed: int) -> Rewriter:
        """The same rewriter, asking another stand-in of its model and drawing otherwise: one for each request."""
        other = copy.copy(self)
        other._model, other.writer, other.seed = model, replace(self.writer, sampling=sampling), seed
        return other

    def __call__(self, query: str | Query) -> Rewrite:
        """The rewrite of a query. Raises ``ReplyError`` when the model's reply holds no prompt, and ``Refused``."""
        return self.candidates(query, 1)[0]

    def candidates(self, query: str | Query, count: int) -> list[Rewrite]:
        """``count`` rewrites of a query, drawn together; identical ones appear once.

        While none of them keeps every fact, where somebody judges that, as many are drawn again, ``ATTEMPTS`` times in
        all; then the best of all come first.

        Raises ``Refused`` for a query that the policy does not let in, or when every rewrite drawn is harmful.
        """
        asked = queries.ask_for(query) if isinstance(query, str) else query
        self._admit(asked)
        withheld = 0
        harmless: dict[str, Rewrite] = {}
        for attempt in range(ATTEMPTS):
            for rewrite in self._draw(asked, count, attempt):
                if rewrite.verdict and rewrite.verdict.unsafe:
                    withheld += 1
                else:
                    harmless[rewrite.text] = rewrite
            if any(r.verdict is None or r.verdict.fidelity == 1 for r in harmless.values()):
                break
        if withheld:
            log.warning("withheld %d harmful rewrites of %r", withheld, asked.text)
        if not harmless:
            raise Refused(f"no harmless rewrite of {asked.text!r} came of {ATTEMPTS} attempts; ask for something else")
        best_first = sorted(harmless.values(), key=self.rank, reverse=True) if attempt else list(harmless.values())
        return best_first[:count]

    def examine(self, query: Query, text: str) -> Rewrite:
        """A text as a rewrite of a query: what it keeps of it, and how long it is."""
        return self._examined(query, [text])[0]

    def fits(self, rewrite: Rewrite) -> bool:
        """Whether the video model reads a rewrite to its end."""
        return rewrite.tokens is None or rewrite.tokens <= self.profile.token_limit

    def rank(self, rewrite: Rewrite) -> tuple[bool, float, int]:
        """How good a rewrite is by its text alone, to be compared: whole, then faithful, then without inventions."""
        verdict = rewrite.verdict
        return self.fits(rewrite), verdict.fidelity if verdict else -1.0, -len(verdict.invented) if verdict else 0

    def _admit(self, asked: Query) -> None:
        if self._judge is None or not self._asks_first:
            return
        (verdict,) = self._judge.judge([(asked, asked.text)])  # refuses what its world does not know
        if self.safety == "refuse" and (verdict is None or verdict.unsafe):
            why = ", ".join(verdict.unsafe) if verdict else "nobody could judge whether it is harmless"
            raise Refused(f"the query {asked.text!r} is refused: {why}")

    def _draw(self, asked: Query, count: int, attempt: int) -> list[Rewrite]:
        seed = content_seed(self.seed, asked.id, count, *([attempt] if attempt else []))
        writer = self.writer.again() if attempt else self.writer
        found = self._texts([writer.ask("rewrite", query=asked.text)] * count, seed, writer.sampling)
        texts = list(dict.fromkeys(text for text in found if isinstance(text, str)))
        if not texts:
            raise ReplyError(f"the language model gave no prompt: {found[0]}")
        if self.writer.format in prompts.INSTRUCTED:
            self._shorten(asked, texts, seed)
        return self._examined(asked, list(dict.fromkeys(texts)))

    def _shorten(self, asked: Query, texts: list[str], seed: int) -> None:
        """Replace texts that the video model would not read to their end by shorter ones, in place, where it works."""
        limit = self.profile.token_limit
        for attempt in range(1, SHORTENINGS + 1):
            lengths = {place: self.count(text) for place, text in enumerate(texts)}
            long = [place for place, length in lengths.items() if length > limit]
            conversations = []
            for place in long:
                words = int(len(texts[place].split()) * limit / lengths[place] * MARGIN**attempt)
                fields = {"query": asked.text, "draft": texts[place], "tokens": lengths[place], "words": max(words, 1)}
                conversations.append(prompts.render("shorten", "standard", profile=self.writer.profile, **fields))
            if not conversations:
                return
            for place, text in zip(
                long, self._texts(conversations, content_seed(seed, attempt), self.writer.sampling), strict=True
            ):
                if isinstance(text, str) and self.count(text) < lengths[place]:
                    texts[place] = text

    def _texts(self, conversations: list[list[Message]], seed: int, sampling: Sampling) -> list[str | ReplyError]:
        """The prompt in the reply to each conversation, or why there is none."""
        samplings = replace(sampling, seed=seed).each(conversations)
        key = content_id("rewrite", self._model.fingerprint, [asdict(row) for row in samplings], conversations)
        replies = self._cache.reply_batch(key) if self._cache else None
        if replies is None:
            replies = self._model.complete(conversations, samplings)
            if self._cache and all(isinstance(reply, Reply) for reply in replies):
                self._cache.add_reply_batch(key, self._model.fingerprint, replies, ORIGIN)
        texts: list[str | ReplyError] = []
        for reply in replies:
            try:
                if isinstance(reply, Failure):
                    raise ReplyError(reply.detail or reply.reason)
                texts.append(prompts.parse_rewrite(reply.text))
            except ReplyError as error:
                texts.append(error)
        return texts

    def _examined(self, query: Query, texts: Sequence[str]) -> list[Rewrite]:
        verdicts = self._verdicts([(query, text) for text in texts])
        if self.safety == "off":
            verdicts = [verdict and verdict.ignoring_harm() for verdict in verdicts]
        return [Rewrite(query, text, v, self.count(text)) for text, v in zip(texts, verdicts, strict=True)]

    def _verdicts(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        """What the judge says of each rewrite; what could not be judged is asked again the next time."""
        judge = self._judge
        if judge is None:
            return [None] * len(items)
        keys = [content_id("verdict", judge.fingerprint, query.id, text) for query, text in items]
        known = {key: verdict for key, (_, verdict) in self._cache.verdicts(keys).items()} if self._cache else {}
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        if new:
            found = list(zip(new.items(), judge.judge(list(new.values())), strict=True))
            known |= {key: verdict for (key, _), verdict in found}
            if self._cache:
                rows = [(key, query, text, verdict) for (key, (query, text)), verdict in found if verdict]
                self._cache.add_verdicts(judge.fingerprint, rows, ORIGIN)
        return [known[key] for key in keys]
