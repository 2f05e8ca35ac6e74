"""The pretraining data of the language model: rewrites, proposals and repairs in every style.

In a proposal a hidden preference over styles, drawn anew for each example, sets the scores that are shown,
and the next variant moves along it as far as the scores tell: its style is the best one under a draw from
the narrowed posterior of the preference given the scores (Thompson sampling). So the model learns to read scores,
not which style a video model likes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from build_tiny.styles import CHOICES, FEATURES, Style, best_style, random_style, write
from promptreel.prompts import render
from promptreel.tiny.wording import STATABLE, UNSAFE, complete, misspell, random_facts, typed
from promptreel.tiny.world import SPEEDS, VALUES
from promptreel.types import Message

SHARES = {"rewrite": 0.55, "propose": 0.35, "refine": 0.10}
"""Share of each kind of example."""
DROPPED, DRIFTED, UNSAFE_KEPT = 0.15, 0.08, 0.5
"""Probabilities that a careless rewrite drops facts, changes one, or keeps the unsafe word of its query."""
NOISE = 0.3
"""Standard deviation of the noise that shown scores have beside the hidden preference."""
BOLDNESS = 0.5
"""Distance of a proposal from the mean of the posterior, in standard deviations."""


@dataclass(frozen=True)
class Example:
    messages: list[Message]
    answer: str


def random_query(rng: np.random.Generator) -> tuple[str, dict[str, str], str | None]:
    """A typed query of any rank with its facts and its unsafe word, if any."""
    facts = random_facts(rng)
    rank = "common" if rng.random() < 0.6 else "rare"
    unsafe = str(rng.choice(UNSAFE[str(rng.choice(list(UNSAFE)))])) if rng.random() < 0.08 else None
    text = typed(facts, rank, rng, unsafe)
    return (misspell(text, rng) if rng.random() < 0.08 else text), facts, unsafe


def drop(facts: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    """The facts without one or more of them; the shape stays."""
    others = [name for name in facts if name != "shape"]
    if not others:
        return facts
    gone = set(rng.permutation(others)[: int(rng.integers(1, len(others) + 1))])
    if "motion" in gone:
        gone.add("speed")
    return {name: value for name, value in facts.items() if name not in gone}


def drift(facts: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    """The facts with one changed into another value."""
    name = str(rng.choice(list(facts)))
    others = [value for value in VALUES[name] if value != facts[name] and value != "still"]
    changed = {**facts, name: str(rng.choice(others))}
    if changed.get("motion") not in (None, "still") and "speed" in facts:
        changed["speed"] = facts["speed"] if name != "motion" else str(rng.choice(SPEEDS))
    return {key: changed[key] for key in STATABLE if key in changed}


def careless(facts: dict[str, str], rng: np.random.Generator) -> dict[str, str]:
    """The facts as a careless writer keeps them."""
    luck = rng.random()
    return drop(facts, rng) if luck < DROPPED else drift(facts, rng) if luck < DROPPED + DRIFTED else facts


def with_unsafe(text: str, unsafe: str | None) -> str:
    """The prompt with the unsafe word in front of its first noun phrase."""
    if unsafe is None:
        return text
    words = text.split(" ")
    at = next((i + 1 for i, word in enumerate(words[:-1]) if word.lower() in ("a", "an")), 0)
    return " ".join([*words[:at], unsafe, *words[at:]])


def rewrite_example(rng: np.random.Generator) -> Example:
    query, facts, unsafe = random_query(rng)
    answer = write(careless(facts, rng), random_style(rng), rng)
    if unsafe and rng.random() < UNSAFE_KEPT:
        answer = with_unsafe(answer, unsafe)
    return Example(render("rewrite", "brief", query=query), answer)


def propose_example(rng: np.random.Generator) -> Example:
    query, facts, unsafe = random_query(rng)
    importance = np.repeat(rng.choice([0.3, 1.0, 2.0], len(CHOICES)), [len(v) for v in CHOICES.values()])
    preference = importance * rng.normal(size=FEATURES)
    tried: list[tuple[str, np.ndarray]] = []
    if rng.random() < 0.4:
        tried.append((query, np.zeros(FEATURES)))
    styles: list[Style] = [random_style(rng)]
    while len(styles) + len(tried) < rng.choice([1, 2, 3, 3, 3]):
        # Later rounds show variants of one another, so half of the styles differ in few choices.
        near = styles[-1] if rng.random() < 0.5 else None
        style = random_style(rng)
        if near is not None:
            kept = {name: getattr(near, name) for name in CHOICES if rng.random() < 0.6}
            style = Style(**{**style.__dict__, **kept})
        styles.append(style)
    tried += [(write(careless(facts, rng), style, rng), style.features) for style in styles]
    features = np.array([entry[1] for entry in tried])
    scores = features @ preference + NOISE * rng.normal(size=len(tried))
    target = best_style(_posterior_draw(features, scores, rng))
    middle, spread = rng.uniform(0.5, 3.0), rng.uniform(0.1, 0.6)
    shown = np.clip(middle + spread * (scores - scores.mean()), 0, 9.99)
    order = np.argsort(-shown, kind="stable")
    history = [{"text": tried[i][0], "total": float(shown[i])} for i in order]
    answer = write(careless(facts, rng) if rng.random() < 0.5 else facts, target, rng)
    if unsafe and rng.random() < UNSAFE_KEPT:
        answer = with_unsafe(answer, unsafe)
    return Example(render("propose", "brief", query=query, history=history), answer)


def _posterior_draw(features: np.ndarray, scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A draw of the preference ``(FEATURES,)`` given centred scores of some styles, prior N(0, 1)."""
    centred = features - features.mean(0)
    precision = np.eye(FEATURES) + centred.T @ centred / NOISE**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ centred.T @ (scores - scores.mean()) / NOISE**2
    return mean + BOLDNESS * np.linalg.cholesky(covariance) @ rng.normal(size=FEATURES)


def refine_example(rng: np.random.Generator) -> Example:
    query, facts, unsafe = random_query(rng)
    style = random_style(rng)
    if style.form == "photo" and "motion" in facts:
        style = Style(**{**style.__dict__, "form": "prose"})
    faulty = drop(facts, rng) if rng.random() < 0.6 else drift(facts, rng)
    problems = [
        f"{'lost' if name not in faulty else 'changed'}: {name} {value}"
        for name, value in facts.items()
        if faulty.get(name) != value
    ]
    problems += [f"unsafe: {unsafe}"] if unsafe else []
    if not problems:
        return refine_example(rng)
    # What the draft invented stays: only the problems are repaired.
    if style.extent == "complete":
        faulty = complete(faulty, rng).facts
    repaired = {**faulty, **facts}
    if repaired.get("motion") == "still":
        repaired.pop("speed", None)
    style = Style(**{**style.__dict__, "extent": "stated"})
    draft = with_unsafe(write(faulty, style, rng), unsafe)
    answer = write(repaired, style, rng)
    return Example(render("refine", "brief", query=query, draft=draft, problems=problems), answer)


MAKERS = {"rewrite": rewrite_example, "propose": propose_example, "refine": refine_example}


def example(rng: np.random.Generator) -> Example:
    """One pretraining example."""
    return MAKERS[str(rng.choice(list(SHARES), p=list(SHARES.values())))](rng)
