"""Preference pairs from scored candidates: each rule a named function, every drop counted."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from promptreel.errors import RecipeError, UnknownName, did_you_mean
from promptreel.scoring import Scored, clears
from promptreel.types import Pair, Query

Rule = Callable[..., list[Pair]]


def margin_floors(
    samples: Mapping[Query, Sequence[tuple[Scored, float]]],
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
    for query, scored in samples.items():
        ranked = sorted(scored, key=lambda entry: -entry[1])
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


RULES: dict[str, Rule] = {"margin_floors": margin_floors}


def rule(name: str) -> Rule:
    if name not in RULES:
        raise UnknownName("pair rule", name, RULES)
    return RULES[name]


def check_rule(name: str, options: Mapping[str, object]) -> None:
    """Raise for a rule that does not exist, or an option that it does not take."""
    known = list(inspect.signature(rule(name)).parameters)[2:]
    for option in options:
        if option not in known:
            raise RecipeError(f"pair rule {name!r} has no option {option!r}{did_you_mean(option, known)}")
