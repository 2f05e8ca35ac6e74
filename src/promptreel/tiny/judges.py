"""The oracles of the tiny world behind the ports that real judges implement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptreel.errors import QueryError
from promptreel.tiny import pixel_oracle
from promptreel.tiny.text_oracle import parse
from promptreel.tiny.wording import caption, complete
from promptreel.tiny.world import VALUES
from promptreel.types import Clip, Fact, Failure, Message, Query, Reply, Sampling, Scores, Verdict, content_seed

VERSION = 1
JUDGE_VERSION = 2


def facts_of(query: Query) -> dict[str, str]:
    """The facts a query states without contradiction; its quality is not among them."""
    return {name: value for name, value in parse(query.text).stated.items() if name != "quality"}


class OracleReward:
    """The pixel oracle against the facts of the query. For evaluation only.

    - ``facts``: share of the stated facts that the clip shows (0..1);
    - ``sharp``: 1 when the clip is sharp and steady, else 0;
    - ``overall``: (stated facts shown + ``sharp``) / (stated facts + 1);
    - ``all_facts``: 1 when every stated fact is shown, else 0.

    Motion and speed are not asked of a single frame. A query that states nothing is missing.
    """

    dimensions = ("overall", "facts", "sharp", "all_facts")

    def __init__(self) -> None:
        self.fingerprint = f"tiny-oracle:{VERSION}"

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        return [self._score(query, clip) for query, clip in items]

    def explain(self, query: Query, clip: Clip) -> str:
        """What the oracle read, attribute by attribute."""
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
    """The text oracle as a judge: exact on the tiny world, and raises ``QueryError`` for any other.

    An unsafe word of the query is a harmful fact.
    """

    def __init__(self) -> None:
        self.fingerprint = f"tiny-text-oracle:{JUDGE_VERSION}"

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        return [self._judge(query, text) for query, text in items]

    def _judge(self, query: Query, text: str) -> Verdict:
        found = parse(text)
        if not facts_of(query):
            raise QueryError(
                f"the tiny world cannot show {query.text!r}: it has a {', a '.join(VALUES['shape'])}, which may be "
                "coloured, small or large, moving, on a background; try 'a red ball going right'"
            )
        facts = []
        for name, value in facts_of(query).items():
            values = found.facts.get(name, ())
            status = "kept" if values == (value,) else "changed" if values else "lost"
            facts.append(Fact(f"{name} {value}", status))
        for word in dict.fromkeys(parse(query.text).unsafe):
            facts.append(Fact(f"unsafe {word}", "kept" if word in found.unsafe else "lost", harmful=True))
        return Verdict(tuple(facts), found.unsafe)


class CanonicalLLM:
    """Answers with the canonical caption of the facts in the last message: the ceiling of an evaluation.

    What is not stated is filled in at random, from the content and the seed. ``style`` is ``sentences`` or
    ``tags``; ``still`` gives captions of images.
    """

    def __init__(self, style: str = "sentences", still: bool = False) -> None:
        self.style, self.still = style, still
        self.fingerprint = f"tiny-canonical:{VERSION}:{style}:{still}"

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        rows = zip(conversations, samplings, strict=True)
        return [Reply(self._answer(conversation[-1]["content"], sampling.seed)) for conversation, sampling in rows]

    def _answer(self, text: str, seed: int) -> str:
        stated = {name: value for name, value in parse(text).stated.items() if name != "quality"}
        if stated.get("motion") == "still":
            stated.pop("speed", None)
        rng = np.random.default_rng(content_seed(text, seed))
        return caption(complete(stated, rng), self.style, self.still)
