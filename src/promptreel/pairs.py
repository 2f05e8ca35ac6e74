"""Preference pairs from the candidates of a query: each rule a named function, every query without a pair counted.

A rule is given all candidates of each query: accepted ones, with a reward if they were rendered and scored, and those
that the policy rejected.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from promptreel.errors import RecipeError, UnknownName, did_you_mean
from promptreel.objective import clears
from promptreel.policy import TEXT_REASONS
from promptreel.types import Candidate, Pair, Query

Rule = Callable[..., list[Pair]]


def margin_floors(
    samples: Mapping[Query, Sequence[Candidate]],
    drops: Counter[str],
    floors: Mapping[str, float],
    margin: float = 1.4,
    top: int = 2,
    max_words: int = 130,
    per_query: int | None = None,
) -> list[Pair]:
    """Prompt-A-Video's rule (booster/dpo/filter.py of its repository, which has these defaults).

    The ``top`` candidates by reward are chosen if they clear all floors and are at most ``max_words`` long;
    each is paired with every later candidate that it beats by more than ``margin``, widest first, at most
    ``per_query`` pairs for a query.
    """
    pairs: list[Pair] = []
    for query, candidates in samples.items():
        ranked = sorted(_rewarded(candidates), key=lambda entry: -entry[1])
        found: list[Pair] = []
        if len(ranked) < 2:
            drops["one candidate"] += 1
            continue
        reasons: Counter[str] = Counter()
        for rank, (chosen, high) in enumerate(ranked[:top]):
            if not clears(chosen.scores, floors):
                reasons["below a floor"] += 1
            elif len(chosen.text.split()) > max_words:
                reasons["too long"] += 1
            else:
                later = [(other, high - low) for other, low in ranked[rank + 1 :] if high - low > margin]
                found += [Pair(query, chosen.text, other.text, "margin_floors", gap) for other, gap in later]
                reasons["margin too small"] += not later
        if not found:
            drops[reasons.most_common(1)[0][0]] += 1
        pairs += sorted(found, key=lambda pair: -pair.margin)[:per_query]
    return pairs


def dominance(
    samples: Mapping[Query, Sequence[Candidate]],
    drops: Counter[str],
    floors: Mapping[str, float],
    margin: float = 0.5,
    dimensions: Sequence[str] | None = None,
    tolerance: float | Mapping[str, float] = 0.0,
    per_query: int | None = 1,
) -> list[Pair]:
    """VPO's rule (src/process_data.py of its repository, which has these defaults).

    The chosen candidate is worse in no dimension (by more than ``tolerance``) and better in at least one, and
    its reward is higher by more than ``margin``; the widest pair of each query. ``dimensions`` are all that both
    have, unless named. Measured dimensions, unlike yes-or-no answers, never tie: ``tolerance``,
    one for all or by dimension, is the largest difference that counts as none.
    """
    pairs: list[Pair] = []
    for query, candidates in samples.items():
        scored = _rewarded(candidates)
        reasons: Counter[str] = Counter()
        found: list[Pair] = []
        for chosen, high in scored:
            for other, low in scored:
                if high <= low:
                    continue
                if not _dominates(chosen, other, dimensions, tolerance):
                    reasons["no dominance"] += 1
                elif high - low <= margin:
                    reasons["margin too small"] += 1
                elif not clears(chosen.scores, floors):
                    reasons["below a floor"] += 1
                else:
                    found.append(Pair(query, chosen.text, other.text, "dominance", high - low))
        if not found:
            drops[reasons.most_common(1)[0][0] if reasons else "one candidate"] += 1
        pairs += sorted(found, key=lambda pair: -pair.margin)[:per_query]
    return pairs


def _dominates(
    a: Candidate, b: Candidate, dimensions: Sequence[str] | None, tolerance: float | Mapping[str, float]
) -> bool:
    better = False
    for name in dimensions or [name for name in a.scores if name in b.scores]:
        x, y = a.scores.get(name), b.scores.get(name)
        slack = tolerance.get(name, 0.0) if isinstance(tolerance, Mapping) else tolerance
        if x is None or y is None or x - y < -slack:
            return False
        better = better or x - y > slack
    return better


def accepted(
    samples: Mapping[Query, Sequence[Candidate]],
    drops: Counter[str],
    floors: Mapping[str, float],
    per_query: int | None = 3,
    length: float = 0.85,
) -> list[Pair]:
    """Pair texts that the policy accepted with texts that it rejected: no clip is needed.

    Each rejected candidate loses against the most similar accepted one, so that they differ in the fault. Among equals
    the higher reward, if clips were scored, decides. At most ``per_query`` pairs for a query, in the order in which
    they were drawn. Only candidates that clear all floors are chosen, and only if the shorter text of a pair has at
    least ``length`` (0..1) times the words of the longer: a longer text has more to get wrong, so pairs of any length
    teach the student to write little. The defaults were chosen on the tiny world (docs/LOG.md).
    """
    if not 0 <= length <= 1:
        raise RecipeError(f"pair rule 'accepted': length is {length}, and is a share between 0 and 1")
    pairs: list[Pair] = []
    for query, candidates in samples.items():
        passed = [c for c in candidates if c.rejected is None and clears(c.scores, floors)]
        good = {c.text: -math.inf if c.reward is None else c.reward for c in passed}
        bad = dict.fromkeys(c.text for c in candidates if c.rejected in TEXT_REASONS)
        if not good:
            drops["nothing accepted"] += 1
            continue
        if not bad:
            drops["nothing rejected"] += 1
            continue
        made: list[Pair] = []
        for text in bad:
            alike = [other for other in good if _length_ratio(other, text) >= length]
            if alike:
                chosen = max(alike, key=lambda other: (_similarity(other, text), good[other]))
                made.append(Pair(query, chosen, text, "accepted", 0.0))
        if not made:
            drops["other lengths"] += 1
        pairs += made[:per_query]
    return pairs


def _length_ratio(a: str, b: str) -> float:
    """Return the words of the shorter text as a share of those of the longer, 0 to 1."""
    shorter, longer = sorted([len(a.split()), len(b.split())])
    return shorter / longer if longer else 1.0


def _similarity(a: str, b: str) -> float:
    """Return the share of words that two texts have in common in the same order, 0 to 1."""
    return difflib.SequenceMatcher(None, a.split(), b.split(), autojunk=False).ratio()


def _rewarded(candidates: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
    """Return the candidates that have a reward, with it."""
    return [(candidate, candidate.reward) for candidate in candidates if candidate.reward is not None]


def merge(sources: Sequence[Sequence[Pair]], exclusive: bool) -> list[Pair]:
    """Return the pairs of several sources. If ``exclusive``, a query that has pairs in one source loses those of all
    later ones, as in VPO, where text-level pairs come first.
    """
    merged: list[Pair] = []
    taken: set[str] = set()
    for source in sources:
        merged += [pair for pair in source if not (exclusive and pair.query.id in taken)]
        taken |= {pair.query.id for pair in source}
    return merged


RULES: dict[str, Rule] = {"margin_floors": margin_floors, "dominance": dominance, "accepted": accepted}
OF_TEXTS = ("accepted",)
"""Rules that need no clips."""


def rule(name: str) -> Rule:
    if name not in RULES:
        raise UnknownName("pair rule", name, RULES)
    return RULES[name]


def check_rule(name: str, options: Mapping[str, object], rendered: bool = True) -> None:
    """Raise for a rule that does not exist, options that it does not take, or clips it needs and does not get."""
    known = list(inspect.signature(rule(name)).parameters)[2:]
    if not rendered and name not in OF_TEXTS:
        raise RecipeError(
            f"pair rule {name!r} compares clips, and a critique renders none: name {', '.join(OF_TEXTS)}, or the "
            "candidates of a sample stage"
        )
    for option in options:
        if option not in known:
            raise RecipeError(f"pair rule {name!r} has no option {option!r}{did_you_mean(option, known)}")
    try:
        rule(name)({}, Counter(), **{"floors": {}, **options})
    except TypeError as error:
        raise RecipeError(f"pair rule {name!r}: {error}") from None
