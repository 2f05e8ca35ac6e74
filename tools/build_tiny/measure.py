"""Figures of the tiny models for the manifest; the slow tests measure them again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy import stats

from build_tiny.alignment import describe
from build_tiny.styles import Style, write
from promptreel import prompts, registry
from promptreel.tiny import pixel_oracle
from promptreel.tiny.judges import OracleReward
from promptreel.tiny.wording import caption, complete, random_facts, typed, typed_queries
from promptreel.tiny.world import VALUES, random_scene, render
from promptreel.types import Clip, Component, Query, RenderRequest, SamplingParams

WEIGHTS = "package:promptreel.tiny/weights"


def share(values: Sequence[bool]) -> float:
    return round(float(np.mean(values)), 4)


def render_all(texts: Sequence[str], profile: str = "tiny", **options: object) -> list[Clip]:
    """Render one clip for each prompt, the n-th with seed n."""
    generator = registry.build(Component("generator", "diffusers", {"profile": profile, "batch_size": 32, **options}))
    requests = [RenderRequest(text, "", seed) for seed, text in enumerate(texts)]
    return [clip for at in range(0, len(requests), 32) for clip in generator.render(requests[at : at + 32])]


def video_model(count: int, split: str, style: str = "sentences", **options: object) -> dict[str, float]:
    """Return the shares of clips that show all stated facts, for queries of a split.

    ``canonical_stated`` is of canonical captions and ``raw_stated`` of queries as typed. ``canonical_every`` is the
    share of clips that show every fact of the canonical caption.
    """
    asked = list(itertools.islice(typed_queries(split), count))
    rng = np.random.default_rng(0)
    scenes = [complete(facts, rng) for _, facts in asked]
    canonical = [pixel_oracle.read(c.frames) for c in render_all([caption(s, style) for s in scenes], **options)]
    raw = [pixel_oracle.read(clip.frames) for clip in render_all([text for text, _ in asked], **options)]
    stated = [facts for _, facts in asked]
    found = {
        "canonical_stated": share(
            [all(r.agrees(*f) for f in s.items()) for r, s in zip(canonical, stated, strict=True)]
        ),
        "canonical_every": share(
            [all(r.agrees(*f) for f in s.facts.items()) for r, s in zip(canonical, scenes, strict=True)]
        ),
        "raw_stated": share([all(r.agrees(*f) for f in s.items()) for r, s in zip(raw, stated, strict=True)]),
    }
    for name in VALUES:
        right = [r.agrees(name, s.facts[name]) for r, s in zip(canonical, scenes, strict=True) if name in s.facts]
        found[f"canonical_{name}"] = share(right)
    return found


def alignment(count: int) -> dict[str, float]:
    """Return two figures of the alignment reward.

    ``prefers_true`` is the share of true descriptions of true clips that score above one with a single fact flipped.
    ``spearman`` is the rank correlation with the oracle, on clips rendered from good and bad prompts.
    """
    reward = registry.build(Component("reward", "xclip", {"model": f"{WEIGHTS}/alignment"}))

    def score(items: Sequence[tuple[Query, Clip]]) -> list[float]:
        return [r["alignment"] for at in range(0, len(items), 32) for r in reward.score(items[at : at + 32])]

    rng = np.random.default_rng(1)
    true, flipped = [], []
    for index in range(count):
        scene = random_scene(rng, quality="poor" if rng.random() < 0.4 else "sharp")
        clip = Clip(str(index), render(scene, 10**6 + index), 8)
        text, _, wrong = describe(scene, rng)
        true += [(Query(text), clip)] * len(wrong)
        flipped += [(Query(other), clip) for other, _ in wrong]
    wins = share([a > b for a, b in zip(score(true), score(flipped), strict=True)])
    asked = list(itertools.islice(typed_queries("dev", seed=1), count))
    texts = []
    for index, (text, facts) in enumerate(asked):
        other = dict(facts)
        changed = str(rng.choice([name for name in facts if name != "speed"]))
        other[changed] = str(rng.choice([v for v in VALUES[changed] if v not in (facts[changed], "still")]))
        texts.append([caption(complete(facts, rng)), text, caption(complete(other, rng))][index % 3])
    rendered = list(zip([Query(text) for text, _ in asked], render_all(texts), strict=True))
    truth = [row["facts"] for row in OracleReward().score(rendered)]
    return {
        "prefers_true": wins,
        "spearman": round(float(stats.spearmanr(score(rendered), truth).statistic), 4),
    }


def language_model(count: int) -> dict[str, float]:
    """Return the share of scripts among the base model's proposals, by the better scored of two examples.

    It sees the same two prompts of one query, a script and a caption, with their scores one way and swapped.
    """
    llm = registry.build(Component("llm", "local", {"model": f"{WEIGHTS}/base"}))
    rng = np.random.default_rng(3)
    script = Style("script", "stated", "canonical", "hype", "some")
    sentences = Style("sentences", "complete", "canonical", "sharp", "none")
    asked: dict[str, list[list]] = {"script_scored_higher": [], "sentences_scored_higher": []}
    for _ in range(count):
        facts = random_facts(rng)
        query, pair = typed(facts, "common", rng), (write(facts, script, rng), write(facts, sentences, rng))
        for name, (a, b) in zip(asked, (pair, pair[::-1]), strict=True):
            history = [{"text": a, "total": 2.4}, {"text": b, "total": 0.8}]
            asked[name].append(prompts.render("propose", "brief", query=query, history=history))
    found = {}
    for name, conversations in asked.items():
        replies = llm.complete(conversations, SamplingParams(1.0, max_tokens=80, seed=0).each(conversations))
        found[name] = share([reply.text.startswith("Subject:") for reply in replies])
    return found


def everything() -> dict[str, object]:
    """Return the figures of the manifest. Settings are chosen on dev; the figures are of test."""
    return {
        "video": video_model(400, "test"),
        "video_tags": video_model(200, "test", style="tags", profile="tiny-tags"),
        "sentences_on_tags_model": video_model(200, "test", profile="tiny-tags")["canonical_stated"],
        "alignment": alignment(600),
        "language_model": language_model(150),
    }
