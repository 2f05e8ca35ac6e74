"""Oracles of the tiny world behind the ports that real judges and reward models implement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from promptreel.errors import QueryError
from promptreel.fingerprint import content_seed
from promptreel.protocols import Modality
from promptreel.tiny import pixel_oracle
from promptreel.tiny.text_oracle import Parse, parse
from promptreel.tiny.wording import caption, complete
from promptreel.tiny.world import VALUES
from promptreel.types import Candidate, Clip, Completion, Fact, Failure, Message, Query, SamplingParams, Scores, Verdict

VERSION = 1
JUDGE_VERSION = 2


def facts_of(query: Query) -> dict[str, str]:
    """Return the facts that a query states without contradiction: attribute to value, without its quality."""
    return {name: value for name, value in parse(query.text).stated.items() if name != "quality"}


def status_of(value: str, found: Parse, attribute: str) -> str:
    """Return the fate of a query's fact in a parsed text: ``kept``, ``changed`` or ``lost``."""
    values = found.facts.get(attribute, ())
    if values == (value,):
        return "kept"
    return "changed" if values else "lost"


class OracleReward:
    """The pixel oracle against the facts of the query. For evaluation only: no training uses it.

    - ``facts``: share of the stated facts that the clip shows (0 to 1);
    - ``sharp``: 1 if the clip is sharp and steady, else 0;
    - ``overall``: (stated facts shown + ``sharp``) / (stated facts + 1), 0 to 1;
    - ``all_facts``: 1 if every stated fact is shown, else 0.

    A single frame is not asked for motion and speed. All dimensions of a query without facts are missing.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("overall", "facts", "sharp", "all_facts")
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = dict.fromkeys(dimensions, (0.0, 1.0))
    modality: ClassVar[Modality] = "video"
    licence: ClassVar[str] = "Apache-2.0"

    def __init__(self) -> None:
        self.fingerprint = f"tiny-oracle:{VERSION}"

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        return [self._score(query, clip) for query, clip in items]

    def explain(self, query: Query, clip: Clip) -> str:
        """Describe the facts that the oracle reads, attribute by attribute; unread ones get a question mark."""
        facts = pixel_oracle.read(clip.frames).facts
        return ", ".join(value or f"{name}?" for name, value in facts.items() if value or name != "speed")

    def _score(self, query: Query, clip: Clip) -> Scores:
        stated = facts_of(query)
        if len(clip.frames) == 1:
            stated = {name: value for name, value in stated.items() if name not in ("motion", "speed")}
        if not stated:
            return dict.fromkeys(self.dimensions)
        read = pixel_oracle.read(clip.frames)
        shown = sum(read.agrees(name, value) for name, value in stated.items())
        sharp = float(read.agrees("quality", "sharp"))
        return {
            "overall": (shown + sharp) / (len(stated) + 1),
            "facts": shown / len(stated),
            "sharp": sharp,
            "all_facts": float(shown == len(stated)),
        }


class OracleJudge:
    """The text oracle as a judge: exact on the tiny world. An unsafe word of the query is a harmful fact."""

    def __init__(self) -> None:
        self.fingerprint = f"tiny-text-oracle:{JUDGE_VERSION}"

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        """Return a verdict on each candidate. Raises ``QueryError`` for a query that states no fact of the world."""
        return [self._judge(candidate.query, candidate.text) for candidate in candidates]

    def _judge(self, query: Query, text: str) -> Verdict:
        found = parse(text)
        stated = facts_of(query)
        if not stated:
            raise QueryError(
                f"the tiny world cannot show {query.text!r}: it has a {', a '.join(VALUES['shape'])}, which may be "
                "coloured, small or large, moving, on a background; try 'a red ball going right'"
            )
        facts = [Fact(f"{name} {value}", status_of(value, found, name)) for name, value in stated.items()]
        for word in dict.fromkeys(parse(query.text).unsafe):
            facts.append(Fact(f"unsafe {word}", "kept" if word in found.unsafe else "lost", harmful=True))
        return Verdict(tuple(facts), found.unsafe)


class CanonicalLLM:
    """A writer of the canonical caption of the facts in the last message: the ceiling of an evaluation.

    Facts that are not stated are filled in at random, from the content and the seed. ``style`` is ``sentences`` or
    ``tags``; ``still`` gives captions of images.
    """

    def __init__(self, style: str = "sentences", still: bool = False) -> None:
        self.style, self.still = style, still
        self.fingerprint = f"tiny-canonical:{VERSION}:{style}:{still}"

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        rows = zip(conversations, sampling, strict=True)
        return [Completion(self._answer(conversation[-1]["content"], params.seed)) for conversation, params in rows]

    def _answer(self, text: str, seed: int) -> str:
        stated = {name: value for name, value in parse(text).stated.items() if name != "quality"}
        if stated.get("motion") == "still":
            stated.pop("speed", None)
        rng = np.random.default_rng(content_seed(text, seed))
        return caption(complete(stated, rng), self.style, self.still)
