"""The nouns: frozen, without I/O, identified by their content."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

from promptreel.fingerprint import content_id, content_seed

if TYPE_CHECKING:
    import numpy as np


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
class Attachment:
    """A file that belongs to a query, such as the first frame of an image-to-video request."""

    role: str
    """Use of the file: ``image``, ``first_frame``, ``audio`` …"""
    sha256: str
    """Hash of its content, in hex: its identity."""
    uri: str = ""
    """Path or URL to read it from. Not part of its identity."""


@dataclass(frozen=True)
class Query:
    """A person's request, parsed."""

    text: str
    """Content of the video that is asked for."""
    negative: str = ""
    """Content to avoid."""
    options: tuple[tuple[str, str], ...] = ()
    """Further settings that were typed, as name and value: flags (``aspect``, ``seed``, ``motion`` …), wishes that no
    prompt can grant (``aside``: sound, file formats, lengths), and unreadable remains (``debris``)."""
    attachments: tuple[Attachment, ...] = ()

    @property
    def id(self) -> str:
        """Id of the request itself. Queries that differ only in other options are judged and scored as one."""
        return content_id("query", self.text, self.negative, self.aspect, *self._attached)

    @property
    def row_id(self) -> str:
        """Id of the query's row in a database, which covers everything that was typed."""
        return content_id("typed", self.text, self.negative, self.options, *self._attached)

    @property
    def aspect(self) -> str:
        """The aspect ratio asked for, as ``16:9``, or an empty string."""
        return next((value for name, value in reversed(self.options) if name == "aspect"), "")

    @property
    def _attached(self) -> list[list[list[str]]]:
        """The attachments as the last part of an id; no part where there are none."""
        return [[[a.role, a.sha256] for a in self.attachments]] if self.attachments else []


@dataclass(frozen=True)
class RenderRequest:
    """One clip to render. Two requests with the same seed start from the same noise."""

    prompt: str
    negative: str
    seed: int
    aspect: str = ""
    """The aspect ratio asked for, as ``16:9``; empty for the model's default."""

    def clip_id(self, generator: str) -> str:
        """Return the id of the clip that the generator with this fingerprint renders for the request."""
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
    """A result that could not be had, and the reason it is counted under (``render``, ``reply``, ``memory`` …)."""

    reason: str
    detail: str = ""
    prompt_tokens: int = 0
    """Tokens that a language model read and billed all the same, as in a ``Completion``."""
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def transient(self) -> bool:
        """True for a failure of the server (connection, timeout, HTTP status): worth retrying later."""
        return self.reason in ("connection", "timeout") or self.reason.startswith("status ")

    @property
    def retryable(self) -> bool:
        """True for a failure of the server or the machine: another run may succeed with the same request."""
        return self.transient or self.reason == "memory"


Scores = Mapping[str, float | None]
"""Dimension to value on the reward model's native scale, higher is better; ``None`` is missing, never zero."""


@dataclass(frozen=True)
class Fact:
    """One atom of a query's content, and its fate in a prompt: ``kept``, ``lost`` or ``changed``."""

    text: str
    status: str
    why: str = ""
    harmful: bool = False
    """True for a harmful part of the query: a prompt is better without it."""

    def __post_init__(self) -> None:
        if self.status not in ("kept", "lost", "changed"):
            raise ValueError(f"a fact is kept, lost or changed, not {self.status!r}")


@dataclass(frozen=True)
class Verdict:
    """A text-level judgement of a candidate against its query."""

    facts: tuple[Fact, ...]
    unsafe: tuple[str, ...] = ()
    """Reasons for which the text is harmful, in words; empty for a harmless text."""
    invented: tuple[str, ...] = ()
    """Additions of the text that change the scene, in words."""

    @property
    def fidelity(self) -> float:
        """Share of the query's harmless facts that are kept (0 to 1); 1 for a query without facts."""
        harmless = [fact for fact in self.facts if not fact.harmful]
        if not harmless:
            return 1.0
        return sum(fact.status == "kept" for fact in harmless) / len(harmless)

    @property
    def problems(self) -> list[str]:
        """Faults of the text, one phrase each; empty for a faithful and harmless text."""
        broken = [f"{fact.status}: {fact.text}" for fact in self.facts if fact.status != "kept" and not fact.harmful]
        invented = [f"invented: {addition}" for addition in self.invented]
        return [*broken, *invented, *(f"unsafe: {reason}" for reason in self.unsafe)]

    @property
    def removed(self) -> list[str]:
        """Harmful facts of the query that the text leaves out, one phrase each, with reasons."""
        gone = [fact for fact in self.facts if fact.harmful and fact.status != "kept"]
        return [f"{fact.text} ({fact.why})" if fact.why else fact.text for fact in gone]

    def ignoring_harm(self) -> Verdict:
        """Return the verdict of a judge that does not judge harm: every fact counts, and nothing is unsafe."""
        return Verdict(tuple(replace(fact, harmful=False) for fact in self.facts), (), self.invented)

    def to_json(self) -> dict[str, Any]:
        facts = [[fact.text, fact.status, fact.why, fact.harmful] for fact in self.facts]
        return {"facts": facts, "unsafe": list(self.unsafe), "invented": list(self.invented)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        return cls(tuple(Fact(*fact) for fact in data["facts"]), tuple(data["unsafe"]), tuple(data["invented"]))


MAIN = "main"
"""Name of a recipe's own generator, beside those under ``[generators]``."""
FULL = "full"
"""Fidelity of a render at the generator's own settings. Cheaper previews have other names."""


@dataclass(frozen=True)
class ScoredClip:
    """One render of a candidate, with its scores."""

    seed_index: int
    """Place of its noise seed in the step's stream: clips with equal indices are paired."""
    clip: str | None
    """Id of the clip; ``None`` if it could not be rendered."""
    scores: Scores = field(default_factory=dict)
    """Scores by every reward model that scored it; empty without a clip."""
    failure: str = ""
    """Reason for which there is no clip."""
    generator: str = MAIN
    """Name of the generator in the recipe."""
    fidelity: str = FULL


@dataclass(frozen=True)
class Candidate:
    """A prompt written for a query, with everything known about it. The query as typed is the candidate of round 0."""

    query: Query
    text: str
    round: int = 0
    verdict: Verdict | None = None
    """``None`` when no judge was asked, or the judge could not tell."""
    tokens: int | None = None
    """Length in tokens of the video model's text encoder; ``None`` if it was not counted."""
    fits: bool = True
    """False for a prompt longer than the video model reads."""
    rejected: str | None = None
    """Reason for which the policy does not accept it; it is not rendered then."""
    withheld: str | None = None
    """Reason for which the policy neither renders it nor gives it out: ``unsafe`` or ``no verdict``."""
    clips: tuple[ScoredClip, ...] = ()
    reward: float | None = None
    """Value of the objective; ``None`` if it was not rendered, or a score is missing."""

    @classmethod
    def as_typed(cls, query: Query) -> Candidate:
        """Return the query's own text as a candidate."""
        return cls(query, query.text)

    @property
    def id(self) -> str:
        return content_id("candidate", self.query.row_id, self.text)

    @property
    def problems(self) -> list[str]:
        """Faults to mend, one phrase each."""
        return [*(self.verdict.problems if self.verdict else []), *([] if self.fits else ["too long"])]

    @property
    def removed(self) -> list[str]:
        """Harmful facts of the query that the text leaves out, each with the judge's reason."""
        return self.verdict.removed if self.verdict else []

    @property
    def full_clips(self) -> tuple[ScoredClip, ...]:
        """The clips of the recipe's own generator at full quality, in the order of their seeds."""
        return tuple(clip for clip in self.clips if (clip.generator, clip.fidelity) == (MAIN, FULL))

    @property
    def scores(self) -> Scores:
        """Mean of each dimension over the full clips that have it; ``None`` if none has."""
        return mean_scores([clip.scores for clip in self.full_clips])

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """Return everything but the query as plain data."""
        data = {name: getattr(self, name) for name in _PLAIN_FIELDS}
        verdict = self.verdict.to_json() if self.verdict else None
        return {**data, "verdict": verdict, "clips": [asdict(clip) for clip in self.clips]}

    @classmethod
    def from_json(cls, query: Query, data: Mapping[str, Any]) -> Candidate:
        plain = {name: data[name] for name in _PLAIN_FIELDS}
        verdict = None if data["verdict"] is None else Verdict.from_json(data["verdict"])
        return cls(query, **plain, verdict=verdict, clips=tuple(ScoredClip(**clip) for clip in data["clips"]))


_PLAIN_FIELDS = ("text", "round", "tokens", "fits", "rejected", "withheld", "reward")


def distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the candidates without repetitions of a text for a query, in order."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        found.setdefault(candidate.id, candidate)
    return list(found.values())


def mean_scores(rows: Sequence[Scores]) -> Scores:
    """Return the mean of each dimension over the rows that have it; ``None`` if none has."""
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [value for row in rows if (value := row.get(name)) is not None]
        means[name] = mean(values) if values else None
    return means


def mean(values: Sequence[float]) -> float:
    """Return the mean, rounded once: the same values in another order give the same mean, so ties stay ties."""
    return math.fsum(values) / len(values)


@dataclass(frozen=True)
class ClipToScore:
    """A clip of a query, as a reward model is asked to score it."""

    query: Query
    clip: str
    """Id of the clip."""
    fps: float


@dataclass(frozen=True)
class ScoreResult:
    """The scores of a clip; ``None`` if the reward model failed, with the reason as detail."""

    scores: Scores | None
    detail: str = ""
    explanation: str = ""
    """Description of the clip, by reward models that give one."""


@dataclass(frozen=True)
class StageRecord:
    """The state of a stage: ``new``, ``running`` (begun and not done) or ``done``."""

    name: str
    kind: str = ""
    state: str = "new"
    seconds: float = 0.0
    output: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """A preference: for this query, ``chosen`` over ``rejected``, by this margin and rule."""

    query: Query
    chosen: str
    rejected: str
    rule: str
    margin: float


@dataclass(frozen=True)
class Example:
    """A training example: the prompt that the student should write for a query."""

    query: Query
    text: str


@dataclass(frozen=True)
class SamplingParams:
    """Settings with which a language model draws a completion."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    max_tokens: int = 256
    """Limit of a completion, in the language model's own tokens."""
    seed: int = 0
    schema: str = ""
    """JSON schema that the completion must follow, as JSON; empty for free text."""

    def each(self, conversations: Sequence[Sequence[Message]]) -> list[SamplingParams]:
        """Return one ``SamplingParams`` per conversation, each with its own seed.

        A seed depends on this seed, the conversation, and its repeat count, so a completion never depends on its batch.
        """
        repeats: Counter[str] = Counter()
        rows = []
        for conversation in conversations:
            said = content_id(self.seed, list(conversation))
            rows.append(replace(self, seed=content_seed(said, repeats[said])))
            repeats[said] += 1
        return rows


@dataclass(frozen=True)
class Completion:
    """A language model's answer, and its usage."""

    text: str
    prompt_tokens: int = 0
    """Tokens of the conversation; 0 if unknown."""
    completion_tokens: int = 0
    """Tokens of the answer; 0 if unknown."""
    cost: float = 0.0
    """In the currency of the model's price."""
