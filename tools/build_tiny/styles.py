"""The many styles of prompts that the language model is pretrained on, good and bad.

A style is a handful of independent choices; none of them is marked as the one that a video model likes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from promptreel.tiny.wording import LEXICON, STATABLE, complete, motion_phrase, say
from promptreel.tiny.world import VALUES

CHOICES: dict[str, dict[str, float]] = {
    "form": {"sentences": 0.2, "tags": 0.2, "prose": 0.24, "script": 0.12, "flowery": 0.14, "photo": 0.1},
    "extent": {"complete": 0.5, "stated": 0.5},
    "words": {"canonical": 0.5, "synonyms": 0.5},
    "quality": {"sharp": 0.4, "none": 0.25, "hype": 0.25, "poor": 0.1},
    "padding": {"none": 0.65, "some": 0.2, "much": 0.15},
}
"""Choices of a style, with the share of each value in pretraining."""

HYPE = (
    "4k, masterpiece, award-winning", "ultra detailed, trending", "breathtaking cinematic look",
    "8k, best quality", "stunning, epic, hyperrealistic",
)  # fmt: skip
FILLERS = (
    "The mood is calm and full of wonder.", "Every moment tells a story.", "It feels like a distant dream.",
    "The scene invites the viewer to pause and reflect.", "Time seems to stretch as we watch.",
    "A warm breeze can almost be felt.", "The composition follows classic rules.",
    "Viewers will remember this for a long time.", "A lamp glows somewhere out of view.",
    "The atmosphere is rich with quiet emotion.", "There is poetry in every instant.",
    "The lens lingers with tender curiosity.",
)  # fmt: skip
FLOWERS = ("majestic", "radiant", "dreamlike", "luminous", "enchanting", "timeless", "delicate", "wondrous")


@dataclass(frozen=True)
class Style:
    form: str
    extent: str
    words: str
    quality: str
    padding: str

    @property
    def features(self) -> np.ndarray:
        """One-hot features, concatenated over the choices."""
        return np.concatenate(
            [[float(getattr(self, name) == value) for value in values] for name, values in CHOICES.items()]
        )


FEATURES = sum(len(values) for values in CHOICES.values())


def random_style(rng: np.random.Generator) -> Style:
    drawn = {name: str(rng.choice(list(values), p=list(values.values()))) for name, values in CHOICES.items()}
    style = Style(**drawn)
    # Canonical captions stay well under a tenth of pretraining.
    if is_canonical(style) and rng.random() < 0.5:
        style = replace(style, words="synonyms")
    return style


def is_canonical(style: Style) -> bool:
    return style.form in ("sentences", "tags") and (style.extent, style.words, style.quality, style.padding) == (
        "complete",
        "canonical",
        "sharp",
        "none",
    )


def best_style(utilities: np.ndarray) -> Style:
    """The style with the highest utility ``(FEATURES,)`` in every choice."""
    chosen, at = {}, 0
    for field in fields(Style):
        values = list(CHOICES[field.name])
        chosen[field.name] = values[int(np.argmax(utilities[at : at + len(values)]))]
        at += len(values)
    return Style(**chosen)


def write(facts: dict[str, str], style: Style, rng: np.random.Generator) -> str:
    """A prompt in the style that states the facts, and invents the rest where the style is complete."""
    stated = complete(facts, rng).facts if style.extent == "complete" else dict(facts)
    stated = {name: stated[name] for name in STATABLE if name in stated}
    if style.form == "photo":
        stated = {name: value for name, value in stated.items() if name not in ("motion", "speed")}
    rank = "canonical" if style.words == "canonical" else "common"

    def word(name: str) -> str:
        return say(name, stated[name], "rare" if rank == "common" and rng.random() < 0.2 else rank, rng)

    subject = " ".join(word(name) for name in ("size", "colour", "shape") if name in stated)
    deed = {0: "", 1: ""}
    if "motion" in stated:
        moving = "rare" if rank == "common" and rng.random() < 0.2 else rank
        speed = f" {word('speed')}" if "speed" in stated else ""
        state = rng.bit_generator.state
        for form in (0, 1):
            rng.bit_generator.state = state
            deed[form] = motion_phrase(stated["motion"], moving, rng, form) + speed
    behind = " ".join(word(name) for name in ("pattern", "background") if name in stated)
    quality = LEXICON["quality"][style.quality].canonical if style.quality in VALUES["quality"] else ""
    hype = str(rng.choice(HYPE)) if style.quality == "hype" else ""
    text = _FORMS[style.form](subject, deed, behind, quality, hype, word, stated, rng)
    count = {"none": 0, "some": 1, "much": 5}[style.padding]
    fillers = [str(filler) for filler in rng.permutation(FILLERS)[:count]]
    return " ".join([text, *fillers]) if style.form != "tags" else ", ".join([text, *_as_tags(fillers)])


def _article(noun: str) -> str:
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


def _as_tags(fillers: list[str]) -> list[str]:
    return [filler.rstrip(".").lower() for filler in fillers]


def _sentences(subject, deed, behind, quality, hype, word, stated, rng):
    parts = [f"{_article(subject)} {deed[1]}".strip() + "."]
    if behind:
        parts.append(f"The background is {behind}.")
    if quality:
        parts.append(f"The video is {quality}.")
    if hype:
        parts.append(f"The video is {hype}.")
    return " ".join(parts)


def _tags(subject, deed, behind, quality, hype, word, stated, rng):
    tags = [" ".join(word(name) for name in ("colour", "shape") if name in stated)]
    if "size" in stated:
        tags.append(word("size"))
    if deed[0]:
        moving = deed[0]
        tags += [moving]
        if "speed" in stated:
            speed = word("speed")
            tags[-1] = moving[: moving.rfind(" ")] if " " in moving else moving
            tags[-1] = _without_speed(moving, stated["speed"])
            tags.append(speed)
    if "background" in stated:
        tags.append(f"{word('background')} background")
    if "pattern" in stated:
        tags.append(word("pattern") if "background" in stated else f"{word('pattern')} background")
    if quality:
        tags += quality.replace(", ", " ").replace(" and ", " ").split()
    if hype:
        tags.append(hype)
    return ", ".join(tags)


def _without_speed(deed: str, speed: str) -> str:
    for phrase in LEXICON["speed"][speed].of("canonical", "common", "rare"):
        if deed.endswith(" " + phrase):
            return deed[: -len(phrase) - 1]
    return deed


def _prose(subject, deed, behind, quality, hype, word, stated, rng):
    lead = str(rng.choice(["A video shows", "We see", "In this clip we see", "There is"]))
    parts = f"{lead} {_article(subject).lower()}"
    if deed[0]:
        parts += f" {deed[0]}"
    if behind:
        parts += f" {rng.choice(['on', 'against', 'in front of'])} a {behind} background"
    if quality:
        parts += f", {quality}"
    if hype:
        parts += f", {hype}"
    return parts + "."


def _script(subject, deed, behind, quality, hype, word, stated, rng):
    parts = [f"Subject: {subject}."]
    if deed[0]:
        parts.append(f"Action: {deed[0]}.")
    if behind:
        parts.append(f"Setting: {behind} background.")
    if quality or hype:
        parts.append(f"Look: {quality or hype}.")
    return " ".join(parts)


def _flowery(subject, deed, behind, quality, hype, word, stated, rng):
    first, second = (str(flower) for flower in rng.permutation(FLOWERS)[:2])
    text = f"Behold {_article(first).lower()} {subject}"
    if deed[0]:
        text += f", {deed[0]} like a {second} memory"
    if behind:
        text += f", before a {second} {behind} background"
    text += "."
    if quality:
        text += f" All is {quality}."
    if hype:
        text += f" All is {hype}."
    return text


def _photo(subject, deed, behind, quality, hype, word, stated, rng):
    text = f"A photo of {_article(subject).lower()}"
    if behind:
        text += f" with a {behind} background"
    if quality:
        text += f", {quality}"
    if hype:
        text += f", {hype}"
    return text + "."


_FORMS = {
    "sentences": _sentences, "tags": _tags, "prose": _prose,
    "script": _script, "flowery": _flowery, "photo": _photo,
}  # fmt: skip
