"""The nouns: frozen, without I/O, identified by their content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    import numpy as np


def content_id(*parts: Any) -> str:
    """The sha256, in hex, of what the parts are: strings, numbers, ``None``, lists and mappings of these."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def content_seed(*parts: Any) -> int:
    """A seed (0 to 2**32 - 1) that depends on nothing but what the parts are."""
    return int(content_id(*parts)[:8], 16)


def load_json(text: str) -> Any:
    """What JSON says, read strictly, however it was written: replies and files come from anybody.

    Raises ``ValueError``, and nothing else, for what is not JSON, has a key twice in one object, is nested too deep, or
    has a number that is none or too long. Halves of surrogate pairs, which nothing can store, become U+FFFD.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        if "\\u" in text:
            pairs = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass")
            found = json.loads(pairs.decode("utf-16", "replace"), object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {key[:40]!r} comes twice")
    return found


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


class Message(TypedDict):
    """One turn of a conversation with a chat model."""

    role: str
    content: str


@dataclass(frozen=True)
class Component:
    """A component that was named but not built: small, picklable, with options of plain data."""

    kind: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Query:
    """What a person asks for."""

    text: str
    """What the video should show."""
    negative: str = ""
    """What it should not show."""
    options: tuple[tuple[str, str], ...] = ()
    """What else was typed, as name and value: flags (``aspect``, ``seed``, ``motion`` …), wishes that no prompt
    can grant (``aside``: sound, file formats, lengths) and what was left over (``debris``)."""

    @property
    def id(self) -> str:
        """Of what it asks for: queries that differ in other options are judged and scored as one."""
        return content_id("query", self.text, self.negative, self.aspect)

    @property
    def aspect(self) -> str:
        """The aspect ratio asked for, as ``16:9``, or an empty string."""
        return next((value for name, value in reversed(self.options) if name == "aspect"), "")


@dataclass(frozen=True)
class Rewrite:
    """A prompt written for a query. ``text`` goes as it is into a video model."""

    query: Query
    text: str
    verdict: Verdict | None = None
    """What a judge said of it; ``None`` when nobody was asked or the judge could not tell."""
    tokens: int | None = None
    """Length in tokens of the video model's text encoder; ``None`` when its tokenizer is not at hand."""

    @property
    def removed(self) -> list[str]:
        """What of the query was left out because it is harm, with reasons; nothing where nobody judged."""
        return self.verdict.removed if self.verdict else []

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class RenderRequest:
    """One clip to be rendered. Two requests with the same seed start from the same noise."""

    prompt: str
    negative: str
    seed: int
    aspect: str = ""
    """The aspect ratio asked for, as ``16:9``; empty for the model's own."""

    def clip_id(self, generator: str) -> str:
        """The id of the clip that the generator with this fingerprint renders for the request."""
        shape = [self.aspect] if self.aspect else []
        return content_id("clip", generator, self.prompt, self.negative, self.seed, *shape)


@dataclass(frozen=True)
class Clip:
    """Rendered media. ``frames`` is ``(T, H, W, 3)`` uint8; an image has T = 1."""

    id: str
    frames: np.ndarray = field(repr=False, compare=False)
    fps: float


@dataclass(frozen=True)
class Failure:
    """What could not be made, and the reason it is counted under (``render``, ``reply``, ``oom`` …)."""

    reason: str
    detail: str = ""
    read: int = 0
    """Tokens that a language model read all the same, as in a ``Reply``."""
    written: int = 0
    cost: float = 0.0

    @property
    def unanswered(self) -> bool:
        """Whether a server gave no answer, or none in time: later it may, so it says nothing of what was asked."""
        return self.reason in ("connection", "timeout") or self.reason.startswith("status ")


Scores = Mapping[str, float | None]
"""Dimension to value on the reward's native scale, higher is better; ``None`` is missing, never zero."""


@dataclass(frozen=True)
class Fact:
    """One atom of what a query states, and what became of it: ``kept``, ``lost`` or ``changed``."""

    text: str
    status: str
    why: str = ""
    harmful: bool = False
    """Whether what the query asks for here is harm: a prompt is better without it."""

    def __post_init__(self) -> None:
        if self.status not in ("kept", "lost", "changed"):
            raise ValueError(f"a fact is kept, lost or changed, not {self.status!r}")


@dataclass(frozen=True)
class Verdict:
    """A text-level judgement of a rewrite against its query."""

    facts: tuple[Fact, ...]
    unsafe: tuple[str, ...] = ()
    """What makes the rewrite harmful, in words; empty when it is not."""
    invented: tuple[str, ...] = ()
    """What the rewrite adds that changes the scene, in words."""

    @property
    def fidelity(self) -> float:
        """Share of the query's harmless facts that are kept (0 to 1); 1 for a query that states none."""
        harmless = [fact for fact in self.facts if not fact.harmful]
        if not harmless:
            return 1.0
        return sum(fact.status == "kept" for fact in harmless) / len(harmless)

    @property
    def problems(self) -> list[str]:
        """What is wrong, one phrase each: nothing for a faithful and harmless rewrite."""
        broken = [f"{fact.status}: {fact.text}" for fact in self.facts if fact.status != "kept" and not fact.harmful]
        return [*broken, *(f"invented: {what}" for what in self.invented), *(f"unsafe: {what}" for what in self.unsafe)]

    @property
    def removed(self) -> list[str]:
        """What the query asks for and the rewrite leaves out because it is harm, one phrase each, with reasons."""
        gone = [fact for fact in self.facts if fact.harmful and fact.status != "kept"]
        return [f"{fact.text} ({fact.why})" if fact.why else fact.text for fact in gone]

    def ignoring_harm(self) -> Verdict:
        """The same verdict by one who does not judge harm: every fact counts, and nothing is unsafe."""
        return Verdict(tuple(replace(fact, harmful=False) for fact in self.facts), (), self.invented)

    def to_json(self) -> dict[str, Any]:
        facts = [[fact.text, fact.status, fact.why, fact.harmful] for fact in self.facts]
        return {"facts": facts, "unsafe": list(self.unsafe), "invented": list(self.invented)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        return cls(tuple(Fact(*fact) for fact in data["facts"]), tuple(data["unsafe"]), tuple(data["invented"]))


@dataclass(frozen=True)
class Candidate:
    """A rewrite on trial. ``total`` is the blend of its scores, ``None`` if it was dropped or unscored."""

    text: str
    round: int
    total: float | None = None
    dimensions: Scores = field(default_factory=dict)
    dropped: str | None = None
    """Why it was not rendered."""


@dataclass(frozen=True)
class Pair:
    """A preference: for this query, ``chosen`` over ``rejected``, by how much and by which rule."""

    query: Query
    chosen: str
    rejected: str
    rule: str
    margin: float


@dataclass(frozen=True)
class Sampling:
    """How a language model draws its replies."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 256
    """Of a reply, in the language model's own tokens."""
    seed: int = 0
    schema: str = ""
    """A JSON schema that the reply must follow, as JSON; empty for free text. Models that can are held to it."""

    def each(self, conversations: Sequence[Sequence[Message]]) -> list[Sampling]:
        """The same for each conversation, with a seed of its own: of this seed, of what is said in it, and of how many
        before it say the same. What else is asked at once does not change it.
        """
        before: Counter[str] = Counter()
        rows = []
        for conversation in conversations:
            said = content_id(self.seed, list(conversation))
            rows.append(replace(self, seed=content_seed(said, before[said])))
            before[said] += 1
        return rows


@dataclass(frozen=True)
class Reply:
    """What a language model answered, and what it took."""

    text: str
    read: int = 0
    """Tokens of the conversation; 0 where nobody counted."""
    written: int = 0
    """Tokens of the reply; 0 where nobody counted."""
    cost: float = 0.0
    """In the money that the model's price is given in."""
