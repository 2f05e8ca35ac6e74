"""Words of the tiny world: canonical captions, and queries as people would type them.

Words have three ranks. The video models were trained on the *canonical* word. Most people type *common* words. *Rare*
words mean the same, are known to the language model, and appear only in the out-of-domain queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from promptreel.tiny.world import VALUES, Scene, random_scene

RANKS = ("canonical", "common", "rare")


@dataclass(frozen=True)
class Words:
    """Words for one value, by rank. Words for a motion are pairs: participle and third person, joined by ``|``."""

    canonical: str
    common: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()

    def of(self, *ranks: str) -> tuple[str, ...]:
        """Return all words of the given ranks, canonical first."""
        chosen = [(self.canonical,), self.common, self.rare]
        return tuple(word for rank, words in zip(RANKS, chosen, strict=True) if rank in ranks for word in words)


LEXICON: dict[str, dict[str, Words]] = {
    "shape": {
        "circle": Words("circle", ("ball", "disc"), ("orb", "sphere")),
        "square": Words("square", ("box", "block"), ("cube", "tile")),
        "triangle": Words("triangle", ("pyramid", "wedge"), ("cone", "arrowhead")),
        "star": Words("star", ("starfish", "sparkle"), ("sunburst", "pentagram")),
        "cross": Words("cross", ("plus", "plus sign"), ("crucifix", "addition sign")),
        "ring": Words("ring", ("donut", "hoop"), ("bagel", "loop")),
    },
    "colour": {
        "red": Words("red", ("crimson", "scarlet"), ("ruby", "cherry")),
        "green": Words("green", ("emerald", "lime"), ("jade", "grassy")),
        "blue": Words("blue", ("azure", "cobalt"), ("sapphire", "cerulean")),
        "yellow": Words("yellow", ("golden", "lemon"), ("canary", "mustard")),
        "purple": Words("purple", ("violet", "plum"), ("amethyst", "lilac")),
        "orange": Words("orange", ("tangerine", "amber"), ("apricot", "pumpkin")),
        "cyan": Words("cyan", ("turquoise", "aqua"), ("teal", "aquamarine")),
        "white": Words("white", ("snowy", "ivory"), ("pearl", "milky")),
    },
    "size": {
        "small": Words("small", ("little", "tiny"), ("mini", "petite")),
        "medium": Words("medium", ("mid-sized", "average"), ("moderate", "normal-sized")),
        "large": Words("large", ("big", "huge"), ("giant", "enormous")),
    },
    "motion": {
        "left": Words("left", ("to the left", "west"), ("leftwards", "westward")),
        "right": Words("right", ("to the right", "east"), ("rightwards", "eastward")),
        "up": Words("up", ("upwards",), ("skywards",)),
        "down": Words("down", ("downwards",), ("groundwards",)),
        "still": Words("staying still|stays still", ("not moving|does not move", "motionless|is motionless"),
                       ("stationary|is stationary", "frozen in place|is frozen in place")),
        "spin": Words("spinning|spins", ("rotating|rotates", "twirling|twirls"),
                      ("whirling|whirls", "revolving|revolves")),
        "grow": Words("growing|grows", ("getting bigger|gets bigger", "expanding|expands"),
                      ("swelling|swells", "inflating|inflates")),
        "shrink": Words("shrinking|shrinks", ("getting smaller|gets smaller", "contracting|contracts"),
                        ("dwindling|dwindles", "deflating|deflates")),
    },
    "speed": {
        "slow": Words("slowly", ("gently", "at a slow pace"), ("sluggishly", "leisurely")),
        "fast": Words("quickly", ("fast", "rapidly"), ("swiftly", "at high speed")),
    },
    "background": {
        "black": Words("black", ("pitch-black",), ("ebony",)),
        "gray": Words("gray", ("grey", "silver"), ("ash",)),
        "navy": Words("navy", ("dark blue",), ("midnight",)),
        "maroon": Words("maroon", ("dark red",), ("burgundy",)),
        "forest": Words("forest", ("dark green",), ("pine",)),
        "sand": Words("sand", ("beige",), ("tan",)),
    },
    "pattern": {
        "plain": Words("plain", ("solid",), ("uniform",)),
        "striped": Words("striped", ("stripy",), ("banded",)),
        "checkered": Words("checkered", ("checked",), ("chessboard",)),
    },
    "quality": {
        "sharp": Words("sharp and steady", ("crisp and stable",), ("clear and smooth",)),
        "poor": Words("blurry, grainy and flickering", ("fuzzy and noisy",), ("out of focus and shaky",)),
    },
}  # fmt: skip

GOING: dict[str, tuple[str, ...]] = {
    "canonical": ("moving|moves",),
    "common": ("moving|moves", "going|goes", "heading|heads", "sliding|slides"),
    "rare": ("drifting|drifts", "gliding|glides", "traveling|travels"),
}
"""Verbs for a shape that goes somewhere, by rank."""
ONE_WORD_MOVES: dict[str, dict[str, tuple[str, ...]]] = {
    "common": {"up": ("rising|rises",), "down": ("falling|falls", "dropping|drops")},
    "rare": {"up": ("climbing|climbs", "ascending|ascends"), "down": ("sinking|sinks", "descending|descends")},
}
"""Verbs that state the direction by themselves, by rank."""

UNSAFE = {
    "common": ("bloody", "gory", "nude", "gruesome", "violent"),
    "rare": ("naked", "mutilated", "lewd", "murderous"),
}
"""Words that a safe prompt must not carry over, by rank."""

STATABLE = ("shape", "colour", "size", "motion", "speed", "background", "pattern")
"""Attributes that a query may state. Quality is not among them: a query leaves it to the prompt."""


def motion_phrase(motion: str, rank: str, rng: np.random.Generator, form: int = 0) -> str:
    """Draw a wording of a motion; form 0 is the participle ("moving left"), 1 the third person ("moves left")."""
    words = LEXICON["motion"][motion].of(*_ranks(rank))
    if motion in ("left", "right", "up", "down"):
        whole = ONE_WORD_MOVES.get(rank, {}).get(motion, ())
        if whole and rng.random() < 0.4:
            return str(rng.choice(whole)).split("|")[form]
        verb = str(rng.choice(GOING[rank])).split("|")[form]
        return f"{verb} {rng.choice(words)}"
    return str(rng.choice(words)).split("|")[form]


def say(attribute: str, value: str, rank: str, rng: np.random.Generator) -> str:
    """Draw a word for a value that is not a motion. ``common`` includes the canonical word, ``rare`` does not."""
    return str(rng.choice(LEXICON[attribute][value].of(*_ranks(rank))))


def _ranks(rank: str) -> tuple[str, ...]:
    """Return the ranks that words are drawn from for a text of a rank."""
    if rank == "canonical":
        return ("canonical",)
    return ("canonical", "common") if rank == "common" else ("rare",)


def caption(scene: Scene, style: str = "sentences", still: bool = False) -> str:
    """Return the complete canonical caption of a scene, as the video models were trained on it.

    ``style`` is ``sentences`` (the tiny video model) or ``tags`` (its LoRA variant). ``still`` gives the caption of one
    frame: without motion and speed.
    """
    facts = {name: LEXICON[name][value].canonical for name, value in scene.facts.items() if name != "motion"}
    moving = ""
    if not still:
        words = LEXICON["motion"][scene.motion].canonical
        moving = f"moves {words}" if "|" not in words else words.split("|")[1]
    noun = "image" if still else "video"
    if style == "tags":
        going = LEXICON["motion"][scene.motion].canonical.split("|")[0]
        going = f"moving {going}" if scene.motion in ("left", "right", "up", "down") else going
        tags = [f"{facts['colour']} {facts['shape']}", facts["size"]]
        if not still:
            tags += [going] + ([facts["speed"]] if scene.speed else [])
        quality = facts["quality"].replace(", ", " ").replace(" and ", " ").split()
        return ", ".join([*tags, f"{facts['background']} background", facts["pattern"], *quality])
    subject = f"A {facts['size']} {facts['colour']} {facts['shape']}"
    deed = f" {moving}" if moving else ""
    if scene.speed and not still:
        deed += f" {facts['speed']}"
    return (
        f"{subject}{deed}. The background is {facts['pattern']} {facts['background']}. "
        f"The {noun} is {facts['quality']}."
    )


_COMMON_OPENINGS = ("", "", "", "a video of ", "show me ", "i want ", "make ", "video: ", "please show ")
_RARE_OPENINGS = ("could you film ", "imagine ", "a short clip with ", "there is ", "let's see ", "animate ")


def typed(
    facts: dict[str, str], rank: str, rng: np.random.Generator, unsafe: str | None = None, still: bool = False
) -> str:
    """Draw a query that states the facts; they must have a shape, and with a speed also a motion.

    ``unsafe`` is an unsafe word to put before the shape. ``still`` asks for an image instead of a video, in common
    words.
    """

    def word(attribute: str) -> str:
        return say(attribute, facts[attribute], rank if rng.random() < 0.75 else "common", rng)

    noun = [word(name) for name in ("size", "colour") if name in facts]
    if unsafe:
        noun.insert(int(rng.integers(len(noun) + 1)), unsafe)
    noun.append(word("shape"))
    subject = " ".join(noun)
    article = rng.random()
    if article < 0.8:
        subject = f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}"
    moving = ""
    if "motion" in facts:
        moving = motion_phrase(facts["motion"], rank, rng)
        if "speed" in facts:
            speed = word("speed")
            before = " " not in speed and speed != "fast" and rng.random() < 0.4
            moving = f"{speed} {moving}" if before else f"{moving} {speed}"
    behind = ""
    if "background" in facts or "pattern" in facts:
        described = " ".join(word(name) for name in ("pattern", "background") if name in facts)
        place = rng.choice(["background", "background", "backdrop"])
        behind = f"a {described} {place}"
    if rank == "rare":
        opening = str(rng.choice(_RARE_OPENINGS))
        order = rng.random()
        if behind and order < 0.35:
            return f"{opening}{behind} and {subject}" + (f" {moving}" if moving else "")
        if moving and order < 0.5:
            return f"{opening}{subject}" + (f" in front of {behind}" if behind else "") + f", it is {moving}"
        return f"{opening}{subject}" + (f" {moving}" if moving else "") + (f", {behind}" if behind else "")
    opening = str(rng.choice(_COMMON_OPENINGS))
    if still:
        opening = opening.replace("a video", "an image").replace("video", "image")
    link = rng.choice([" ", " that is ", ", "], p=[0.7, 0.15, 0.15]) if moving else ""
    on = rng.choice([" on ", " against ", ", "]) if behind else ""
    return f"{opening}{subject}{link}{moving}{on}{behind}"


def misspell(text: str, rng: np.random.Generator) -> str:
    """Return a text with one typing slip in one word of six letters or more, if there is one."""
    words = text.split(" ")
    long = [index for index, word in enumerate(words) if len(word) >= 6 and word.isalpha()]
    if not long:
        return text
    index = int(rng.choice(long))
    word, at = words[index], int(rng.integers(1, len(words[index]) - 2))
    slips = [
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    ]
    words[index] = str(rng.choice(slips))
    return " ".join(words)


def random_facts(rng: np.random.Generator) -> dict[str, str]:
    """Draw one to four facts of a random scene that a person might state, always with the shape."""
    scene = random_scene(rng)
    facts = {"shape": scene.shape}
    others = [name for name in STATABLE if name not in ("shape", "speed") and name in scene.facts]
    count = int(rng.choice([0, 1, 2, 3], p=[0.05, 0.3, 0.4, 0.25]))
    for name in rng.permutation(others)[:count]:
        facts[str(name)] = scene.facts[str(name)]
    if "motion" in facts and scene.speed and len(facts) < 4 and rng.random() < 0.5:
        facts["speed"] = scene.speed
    return {name: facts[name] for name in STATABLE if name in facts}


SPLITS = ("train", "dev", "test", "ood")


def split_of_facts(facts: dict[str, str]) -> str:
    """Return the split of a combination of facts (``train``, ``dev``, ``test``), by content: splits never overlap.

    Of all combinations 60 % are ``train``, 15 % ``dev`` and 25 % ``test``. ``ood`` has the combinations of ``test`` in
    other words.
    """
    key = ",".join(f"{name}={facts[name]}" for name in sorted(facts))
    share = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) / 16**8
    if share < 0.60:
        return "train"
    return "dev" if share < 0.75 else "test"


def typed_queries(split: str, seed: int = 0, still: bool = False) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield distinct queries of a split without end, each with the facts that it states.

    ``ood`` queries state combinations of the test split in rare words and phrasings. 4 % of the queries carry an
    unsafe word and 5 % a typing slip. ``still`` queries ask for images: they state only facts that one frame can show.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the tiny world has {', '.join(SPLITS)}")
    rng = np.random.default_rng([SPLITS.index(split), seed])
    rank = "rare" if split == "ood" else "common"
    seen: set[str] = set()
    while True:
        facts = random_facts(rng)
        if split_of_facts(facts) != ("test" if split == "ood" else split) or (still and "motion" in facts):
            continue
        unsafe = str(rng.choice(UNSAFE[rank])) if rng.random() < 0.04 else None
        text = typed(facts, rank, rng, unsafe, still)
        if rng.random() < 0.05:
            text = misspell(text, rng)
        if text not in seen:
            seen.add(text)
            yield text, facts


def complete(facts: dict[str, str], rng: np.random.Generator) -> Scene:
    """Draw a sharp scene that has the given facts; the rest is random."""
    known = {name: value for name, value in facts.items() if name in VALUES and name != "quality"}
    return random_scene(rng, **known)
