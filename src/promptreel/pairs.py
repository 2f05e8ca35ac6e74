"""Preference pairs from the candidates of a query: each rule a named function, every drop counted.

A rule is given all candidates of each query: those that passed the gate, with a total where they were rendered and
scored, and those that it dropped.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from promptreel.errors import RecipeError, UnknownName, did_you_mean
from promptreel.scoring import clears
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

    The ``top`` candidates by total are chosen if they clear all floors and are at most ``max_words`` long;
    each is paired with every later candidate that it beats by more than ``margin``, widest first, at most
    ``per_query`` pairs for a query.
    """
    pairs: list[Pair] = []
    for query, candidates in samples.items():
        ranked = sorted(_totals(candidates), key=lambda entry: -entry[1])
        found: list[Pair] = []
        if len(ranked) < 2:
            drops["one candidate"] += 1
            continue
        reasons: Counter[str] = Counter()
        for rank, (chosen, high) in enumerate(ranked[:top]):
            if not clears(chosen.dimensions, floors):
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
    its total is higher by more than ``margin``; the widest pair of each query. ``dimensions`` are all that both
    have, unless named. Where dimensions are measured and not answered with yes or no, no two clips are equal: then
    ``tolerance``, one for all or by dimension, says what is no difference.
    """
    pairs: list[Pair] = []
    for query, candidates in samples.items():
        scored = _totals(candidates)
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
                elif not clears(chosen.dimensions, floors):
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
    for name in dimensions or [name for name in a.dimensions if name in b.dimensions]:
        x, y = a.dimensions.get(name), b.dimensions.get(name)
        slack = tolerance.get(name, 0.0) if isinstance(tolerance, Mapping) else tolerance
        if x is None or y is None or x - y < -slack:
            return False
        better = better or x - y > slack
    return better


GATE = ("fidelity", "unsafe", "invented", "too long")
"""Reasons that say what is wrong with a text. Where there was no verdict, nobody knows."""


def gate(
    samples: Mapping[Query, Sequence[Candidate]],
    drops: Counter[str],
    floors: Mapping[str, float],
    per_query: int | None = 3,
    length: float = 0.85,
) -> list[Pair]:
    """What passed the gate over what it dropped, by what the texts say: no clip is needed.

    Each dropped candidate loses against the one that passed and says most nearly the same, so that what differs
    is what was wrong with it; the better total, where clips were scored, decides among equals. At most
    ``per_query`` pairs for a query, in the order in which they were drawn. Only candidates that clear all floors
    are chosen, and only where the shorter text of a pair has at least ``length`` (0..1) times the words of the
    longer: who says more has more to get wrong, so that pairs of any length teach to say little. The defaults were
    chosen on the tiny world (docs/LOG.md).
    """
    if not 0 <= length <= 1:
        raise RecipeError(f"pair rule 'gate': length is {length}, and is a share between 0 and 1")
    pairs: list[Pair] = []
    for query, candidates in samples.items():
        passed = [c for c in candidates if c.dropped is None and clears(c.dimensions, floors)]
        good = {c.text: -math.inf if c.total is None else c.total for c in passed}
        bad = dict.fromkeys(c.text for c in candidates if c.dropped in GATE)
        if not good or not bad:
            drops["nothing passed" if not good else "nothing dropped"] += 1
            continue
        made: list[Pair] = []
        for text in bad:
            if alike := [other for other in good if _same_length(other, text) >= length]:
                chosen = max(alike, key=lambda other: (_likeness(other, text), good[other]))
                made.append(Pair(query, chosen, text, "gate", 0.0))
        if not made:
            drops["other lengths"] += 1
        pairs += made[:per_query]
    return pairs


def _same_length(a: str, b: str) -> float:
    """The words of the shorter text as a share of those of the longer, 0 to 1."""
    shorter, longer = sorted([len(a.split()), len(b.split())])
    return shorter / longer if longer else 1.0


def _likeness(a: str, b: str) -> float:
    """The share of words that two texts have in common in the same order, 0 to 1."""
    return difflib.SequenceMatcher(None, a.split(), b.split(), autojunk=False).ratio()


def _totals(candidates: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
    """The candidates that have a total, with it."""
    return [(candidate, candidate.total) for candidate in candidates if candidate.total is not None]


def merge(sources: Sequence[Sequence[Pair]], exclusive: bool) -> list[Pair]:
    """The pairs of several sources. If ``exclusive``, a query that has pairs in one source loses those of all
    later ones, as in VPO, where text-level pairs come first.
    """
    merged: list[Pair] = []
    taken: set[str] = set()
    for source in sources:
        merged += [pair for pair in source if not (exclusive and pair.query.id in taken)]
        taken |= {pair.query.id for pair in source}
    return merged


RULES: dict[str, Rule] = {"margin_floors": margin_floors, "dominance": dominance, "gate": gate}
OF_TEXTS = ("gate",)
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
