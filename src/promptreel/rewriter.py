"""A language model, a template and a parser: from queries to rewrites."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from promptreel import profiles, prompts, queries, registry
from promptreel.desk import CARD, Writer
from promptreel.errors import Refused, ReplyError, UnknownName, UserError
from promptreel.protocols import LLM, Judge
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

log = logging.getLogger(__name__)

SAFETY = ("rewrite_to_safe", "refuse", "off")
"""What becomes of harm."""
ATTEMPTS = 4
"""How often rewrites are drawn for a query while all of them are unusable or withheld, or lose a fact."""
SHORTENINGS = 2
"""How often a rewrite that is too long is asked for again."""
MARGIN = 0.85
"""Share of the words that would just fit that each shortening asks for: models count badly."""
UNUSABLE = "reply"
"""What a reply failed for that is there and holds no prompt."""
ORIGIN = "rewrite"

NAMED = {
    "tiny-base": ("package:promptreel.tiny/weights/base", None),
    "tiny-student": ("package:promptreel.tiny/weights/base", "package:promptreel.tiny/weights/student"),
    "prompt-a-video-cv": ("jiyatai/Prompt_A_Video_CV", None),
    "prompt-a-video-os": ("jiyatai/Prompt_A_Video_OS", None),
    "vpo-2b": ("CCCCCC/VPO-2B", None),
    "vpo-5b": ("CCCCCC/VPO-5B", None),
}
"""Language models with names of their own: weights and adapter. The first two come with the package."""

_PROMPT_A_VIDEO = {"format": "prompt_a_video", "sampling": {"temperature": 1.0, "top_p": 0.95, "max_tokens": 256}}
# github.com/jiyt17/Prompt-A-Video, booster/inference/inference_chat.py. It draws from the 50 likeliest tokens, which
# no ``Sampling`` says: 0.95 of the probability cuts off the same tail.
_VPO = {"format": "vpo", "sampling": {"temperature": 0.7, "max_tokens": 1024}}  # github.com/thu-coai/VPO, README.md
CARDS: Mapping[str, Mapping[str, Any]] = {
    "jiyatai/Prompt_A_Video_CV": _PROMPT_A_VIDEO,
    "jiyatai/Prompt_A_Video_OS": _PROMPT_A_VIDEO,
    "CCCCCC/VPO-2B": _VPO,
    "CCCCCC/VPO-5B": _VPO,
}
"""How students that others released are to be asked, by their hub ids: no card lies beside their weights."""

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

    A student brings a card that says in which format it is asked, or has one in ``CARDS``, and takes no mode; every
    other model is asked in the first mode if none is given.
    """
    if mode is not None and mode not in prompts.MODES:
        raise UnknownName("mode", mode, prompts.MODES)
    component = component_of(spec)
    model = str(locate(component.options["model"]))
    card = Path(model) / CARD
    beside = component.name == "local" and card.exists()
    asked = json.loads(card.read_text()) if beside else CARDS.get(model, {})
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
    ``rewrite_to_safe`` withholds rewrites that are harmful, or that nobody could judge, and says under
    ``Rewrite.removed`` what of the query was left out, ``refuse`` refuses harmful queries too, ``off`` does not judge
    harm.
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
        """The rewrite of a query. Raises ``ReplyError`` when no reply of the model holds a prompt, and ``Refused``."""
        return self.candidates(query, 1)[0]

    def candidates(self, query: str | Query, count: int) -> list[Rewrite]:
        """``count`` rewrites of a query, drawn together; identical ones appear once.

        While none of them keeps every fact, where somebody judges that, or no reply holds a prompt, as many are drawn
        again, ``ATTEMPTS`` times in all; then the best of all come first.

        Raises ``Refused`` for a query that the policy does not let in, or when every rewrite drawn is withheld, and
        ``ReplyError`` when there is none.
        """
        asked = queries.ask_for(query) if isinstance(query, str) else query
        self._admit(asked)
        withheld: Counter[str] = Counter()
        harmless: dict[str, Rewrite] = {}
        for attempt in range(ATTEMPTS):
            rewrites, failures = self._draw(asked, count, attempt)
            for rewrite in rewrites:
                if why := self.withheld(rewrite.verdict):
                    withheld[why] += 1
                else:
                    harmless[rewrite.text] = rewrite
            if any(r.verdict is None or r.verdict.fidelity == 1 for r in harmless.values()):
                break
            if not rewrites and any(failure.reason != UNUSABLE for failure in failures):
                break  # a model that gives no reply at all has been asked more than once already
        for why, number in withheld.items():
            log.warning("withheld %d rewrites of %r: %s", number, asked.text, why)
        if not harmless and withheld:
            tried = f"{attempt + 1} attempts: {', '.join(withheld)}"
            raise Refused(f"no harmless rewrite of {asked.text!r} came of {tried}; ask for something else")
        if not harmless:
            raise ReplyError(f"the language model gave no prompt: {failures[0].detail or failures[0].reason}")
        best_first = sorted(harmless.values(), key=self.rank, reverse=True) if attempt else list(harmless.values())
        return best_first[:count]

    def examine(self, query: Query, text: str) -> Rewrite:
        """A text as a rewrite of a query: what it keeps of it, and how long it is."""
        return self._examined(query, [text])[0]

    def fits(self, rewrite: Rewrite) -> bool:
        """Whether the video model reads a rewrite to its end."""
        return rewrite.tokens is None or rewrite.tokens <= self.profile.token_limit

    def withheld(self, verdict: Verdict | None) -> str | None:
        """Why a text with this verdict is neither given out nor rendered; ``None`` when it may be, as everything may
        where nobody judges harm.
        """
        if self.safety == "off" or self._judge is None:
            return None
        if verdict is None:
            return "nobody could judge it"
        return "it is harmful" if verdict.unsafe else None

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

    def _draw(self, asked: Query, count: int, attempt: int) -> tuple[list[Rewrite], list[Failure]]:
        """Different rewrites, and why there are not more."""
        seed = content_seed(self.seed, asked.id, count, *([attempt] if attempt else []))
        writer = self.writer.again() if attempt else self.writer
        found = self._texts([writer.ask("rewrite", query=asked.text)] * count, seed, writer.sampling)
        texts = list(dict.fromkeys(text for text in found if isinstance(text, str)))
        if self.writer.format in prompts.INSTRUCTED:
            self._shorten(asked, texts, seed)
        rewrites = self._examined(asked, list(dict.fromkeys(texts)))
        return rewrites, [failure for failure in found if isinstance(failure, Failure)]

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

    def _texts(self, conversations: list[list[Message]], seed: int, sampling: Sampling) -> list[str | Failure]:
        """The prompt in the reply to each conversation, or why there is none.

        Only a batch of which every reply holds one is remembered: what could not be used is asked again.
        """
        samplings = replace(sampling, seed=seed).each(conversations)
        key = content_id("rewrite", self._model.fingerprint, [asdict(row) for row in samplings], conversations)
        replies = self._cache.reply_batch(key) if self._cache else None
        if replies is None:
            replies = self._model.complete(conversations, samplings)
            if self._cache and all(isinstance(_prompt(reply), str) for reply in replies):
                self._cache.add_reply_batch(key, self._model.fingerprint, replies, ORIGIN)
        return [_prompt(reply) for reply in replies]

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


def _prompt(reply: Reply | Failure) -> str | Failure:
    """The prompt in a reply, or why there is none."""
    if isinstance(reply, Failure):
        return reply
    try:
        return prompts.parse_rewrite(reply.text)
    except ReplyError as error:
        return Failure(UNUSABLE, str(error))
