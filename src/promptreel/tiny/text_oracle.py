"""The text oracle: parses a prompt or a query of the tiny world back into its facts.

Phrases are matched longest first against the lexicon. An unknown word of five letters or more is read as the known word
one typing slip away, if there is exactly one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from promptreel.tiny.wording import LEXICON, ONE_WORD_MOVES, RANKS, UNSAFE

FILLER_WORDS = frozenset(
    """
    a an and the of on in at to it is that this with there video clip background backdrop against front show
    please make want could you film imagine short let's see animate image moving moves going goes heading heads
    sliding slides drifting drifts gliding glides traveling travels behind i glows glowing gentle shark sharks
    swing swings quick shift ground world
    """.split()
)
"""Words that state no fact, and English words that must not be taken for misspelt words of the world."""


@dataclass(frozen=True)
class Parse:
    """Facts that a text states."""

    facts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Attribute to all the different values stated for it, in order. Two values are a contradiction."""
    unsafe: tuple[str, ...] = ()
    """Unsafe words, in order."""

    @property
    def stated(self) -> dict[str, str]:
        """The facts that are stated without contradiction: attribute to value."""
        return {name: values[0] for name, values in self.facts.items() if len(values) == 1}


@cache
def _phrases() -> dict[tuple[str, ...], tuple[str, str]]:
    """Return every phrase of the lexicon as words, with the attribute and value that it states."""
    phrases: dict[tuple[str, ...], tuple[str, str]] = {}

    def add(phrase: str, attribute: str, value: str) -> None:
        for form in phrase.split("|"):
            words = tuple(_words(form))
            if phrases.setdefault(words, (attribute, value)) != (attribute, value):
                raise ValueError(f"{form!r} would state both {phrases[words]} and {(attribute, value)}")

    for attribute, values in LEXICON.items():
        for value, entry in values.items():
            for phrase in entry.of(*RANKS):
                add(phrase, attribute, value)
    for moves in ONE_WORD_MOVES.values():
        for value, verbs in moves.items():
            for verb in verbs:
                add(verb, "motion", value)
    for fact, extra in _MORE.items():
        for phrase in extra:
            add(phrase, *fact)
    for word in (*UNSAFE["common"], *UNSAFE["rare"]):
        add(word, "unsafe", word)
    return phrases


_MORE: dict[tuple[str, str], tuple[str, ...]] = {
    ("quality", "sharp"): ("sharp", "steady", "crisp", "stable"),
    ("quality", "poor"): ("blurry", "grainy", "flickering", "fuzzy", "noisy", "shaky", "out of focus"),
    ("speed", "slow"): ("slow",),
    ("motion", "still"): ("still", "frozen"),
}
"""Further words of the world, which stand alone in tags and fragments."""


def _words(text: str) -> list[str]:
    """Return the words of a text in lower case; a hyphenated one is one word."""
    return re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())


@cache
def _vocabulary() -> frozenset[str]:
    """Return all words of all phrases."""
    return frozenset(word for phrase in _phrases() for word in phrase)


@cache
def _corrected(word: str) -> str:
    """Return the known word one typing slip away, or the word itself."""
    if len(word) < 5 or word in _vocabulary() or word in FILLER_WORDS:
        return word
    near = {known for known in _vocabulary() if len(known) >= 5 and _one_slip(word, known)}
    return near.pop() if len(near) == 1 else word


def _one_slip(a: str, b: str) -> bool:
    """Return True for words that differ by one letter left out, doubled, changed or swapped with the next."""
    if abs(len(a) - len(b)) > 1 or a[0] != b[0]:
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if len(a) == len(b):
        swapped = a[:start] + a[start + 1 : start + 2] + a[start : start + 1] + a[start + 2 :]
        return a[start + 1 :] == b[start + 1 :] or swapped == b
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return longer[:start] + longer[start + 1 :] == shorter


def parse(text: str) -> Parse:
    """Read the facts and unsafe words of a text. A text outside the world has none."""
    facts: dict[str, list[str]] = {}
    unsafe: list[str] = []
    for attribute, value, _ in _found(text):
        if attribute == "unsafe":
            unsafe.append(value)
        elif value not in facts.setdefault(attribute, []):
            facts[attribute].append(value)
    return Parse({name: tuple(values) for name, values in facts.items()}, tuple(unsafe))


def spans(text: str) -> dict[str, str]:
    """Return the words, as typed, that first state each attribute."""
    words: dict[str, str] = {}
    for attribute, _, said in _found(text):
        words.setdefault(attribute, said)
    return words


def _found(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield attribute, value and the words as typed of every statement of a text, in order."""
    typed = _words(text)
    words = [_corrected(word) for word in typed]
    phrases = _phrases()
    longest = max(len(phrase) for phrase in phrases)
    start = 0
    while start < len(words):
        for length in range(min(longest, len(words) - start), 0, -1):
            if found := phrases.get(tuple(words[start : start + length])):
                yield (*found, " ".join(typed[start : start + length]))
                start += length
                break
        else:
            start += 1
