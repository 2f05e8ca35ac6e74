"""Generators, rewards and language models, as real small checkpoints loaded from disk."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptreel import registry
from promptreel.errors import RenderError
from promptreel.faults import out_of_memory
from promptreel.generators.diffusers import DiffusersGenerator
from promptreel.llms.local import LocalLLM
from promptreel.package_files import locate
from promptreel.rewards import pixels
from promptreel.rewards.xclip import XCLIP
from promptreel.tiny.judges import CanonicalLLM, OracleJudge, OracleReward
from promptreel.tiny.text_oracle import parse
from promptreel.tiny.wording import caption
from promptreel.tiny.world import random_scene, render
from promptreel.types import Candidate, Clip, Component, Failure, Query, RenderRequest, SamplingParams

WEIGHTS = Path(locate("package:promptreel.tiny/weights"))
REQUESTS = [RenderRequest(text, "", seed) for text in ("a red circle", "a blue star") for seed in (1, 2)]


@pytest.fixture(scope="module")
def generator() -> DiffusersGenerator:
    return DiffusersGenerator("tiny", batch_size=4, steps=2)


def test_clips_are_deterministic_and_paired_by_seed(generator: DiffusersGenerator) -> None:
    first, again = generator.render(REQUESTS), generator.render(REQUESTS)
    assert [clip.id for clip in first] == [request.clip_id(generator.fingerprint) for request in REQUESTS]
    for a, b in zip(first, again, strict=True):
        assert a.frames.shape == (9, 64, 64, 3)
        assert a.frames.dtype == np.uint8
        assert a.fps == 8
        assert (a.frames == b.frames).all()
    assert (first[0].frames != first[1].frames).any()
    assert (first[0].frames != first[2].frames).any()


def test_the_noise_of_a_clip_does_not_depend_on_its_batch(generator: DiffusersGenerator) -> None:
    whole, (alone,) = generator.render(REQUESTS), generator.render(REQUESTS[2:3])
    assert np.abs(whole[2].frames.astype(int) - alone.frames).max() <= 2  # but for rounding


def test_everything_that_changes_a_clip_changes_the_fingerprint() -> None:
    options: list[dict[str, Any]] = [{}, {"steps": 3}, {"guidance": 1.0}, {"frames": 5}, {"dtype": "float64"}]
    assert len({DiffusersGenerator("tiny", **chosen).fingerprint for chosen in options}) == len(options)
    assert DiffusersGenerator("tiny", batch_size=9).fingerprint == DiffusersGenerator("tiny").fingerprint


def test_one_frame_is_an_image() -> None:
    (clip,) = DiffusersGenerator("tiny", steps=2, frames=1).render(REQUESTS[:1])
    assert clip.frames.shape == (1, 64, 64, 3)


def test_values_that_are_no_numbers_are_a_failure(generator: DiffusersGenerator, monkeypatch) -> None:
    pipeline = generator._pipeline
    with monkeypatch.context() as patch:
        weight = torch.full_like(pipeline.vae.decoder.conv_out.weight, float("nan"))
        patch.setattr(pipeline.vae.decoder.conv_out, "weight", torch.nn.Parameter(weight))
        results = generator.render(REQUESTS[:1])
    assert isinstance(results[0], Failure)
    assert results[0].reason == "render"


def test_a_render_that_raises_says_why(generator: DiffusersGenerator, monkeypatch) -> None:
    freed = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(True))

    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(generator._pipeline, "encode_prompt", explode)
    with pytest.raises(RenderError, match="can't allocate") as caught:
        generator.render(REQUESTS[:2])
    assert caught.value.reason == "memory"
    assert freed == [True]  # for a smaller batch
    assert not out_of_memory(RuntimeError("shapes do not fit"))


def test_a_local_model_answers_deterministically_and_in_order() -> None:
    llm = LocalLLM(str(WEIGHTS / "base"))
    asked = [[{"role": "user", "content": f"Rewrite for video: a {c} ball"}] for c in ("red", "blue", "green")]
    drawn = SamplingParams(1.0, max_tokens=12, seed=3).each(asked)
    first = llm.complete(asked, drawn)
    assert first == llm.complete(asked, drawn)
    assert first != llm.complete(asked, SamplingParams(1.0, max_tokens=12, seed=4).each(asked))
    greedy = SamplingParams(0.0, max_tokens=12).each(asked)
    assert llm.complete(asked, greedy)[1].text == llm.complete(asked[1:2], greedy[:1])[0].text


def test_alignment_scores_every_clip_against_its_own_query() -> None:
    reward = XCLIP(str(WEIGHTS / "alignment"))
    rng = np.random.default_rng(0)
    clips = [Clip(str(n), render(random_scene(rng), n), 8) for n in range(3)]
    items = [(Query(text), clip) for clip in clips for text in ("a red ball", "a blue star")]
    scores = [row["alignment"] for row in reward.score(items)]
    alone = [reward.score([item])[0]["alignment"] for item in items]
    assert scores == pytest.approx(alone, abs=1e-4)
    assert len(set(scores)) == len(scores)
    image = Clip("image", clips[0].frames[:1], 8)
    assert reward.score([(Query("a ball"), image)])[0]["alignment"] is not None


def test_pixel_measures_tell_good_clips_from_spoilt_ones() -> None:
    rng = np.random.default_rng(1)
    for _ in range(6):
        facts = random_scene(rng).facts
        facts.pop("quality")
        sharp = pixels.measure(render(random_scene(rng, **facts), 1))
        poor = pixels.measure(render(random_scene(rng, **facts, quality="poor"), 1))
        for name in ("sharpness", "cleanness", "steadiness"):
            assert sharp[name] > poor[name], name
    still = pixels.measure(render(random_scene(rng, motion="still"), 1))
    moving = pixels.measure(render(random_scene(rng, motion="left", speed="fast", size="large"), 1))
    assert moving["motion"] > still["motion"]


def test_pixel_measures_that_cannot_be_taken_are_missing() -> None:
    image = pixels.measure(render(random_scene(np.random.default_rng(0)), 1, frames=1))
    assert image["sharpness"] is not None
    assert image["steadiness"] is image["motion"] is image["persistence"] is None
    flat = pixels.measure(np.full((9, 64, 64, 3), 100, np.uint8))
    assert flat["sharpness"] is flat["persistence"] is None


def test_the_oracle_scores_what_the_query_states() -> None:
    scene = random_scene(np.random.default_rng(3), shape="star", colour="red", motion="left", speed="fast")
    clip = Clip("x", render(scene, 1), 8)
    right, wrong = OracleReward().score([(Query("a red star going left"), clip), (Query("a blue star"), clip)])
    assert right == {"overall": 1.0, "facts": 1.0, "sharp": 1.0, "all_facts": 1.0}
    assert wrong == {"overall": pytest.approx(2 / 3), "facts": 0.5, "sharp": 1.0, "all_facts": 0.0}
    image = Clip("y", clip.frames[4:5], 8)
    assert OracleReward().score([(Query("a red star going left"), image)])[0]["facts"] == 1.0
    assert "red" in OracleReward().explain(Query("a red star"), clip)


def test_the_text_judge_sees_what_is_lost_and_changed() -> None:
    query = Query("a crimson ball heading east")
    (verdict,) = OracleJudge().judge([Candidate(query, "A gory large blue circle moves right.")])
    assert verdict.problems == ["changed: colour red", "unsafe: gory"]
    (verdict,) = OracleJudge().judge([Candidate(query, "A large red circle.")])
    assert verdict.problems == ["lost: motion right"]


def test_the_ceiling_says_everything_canonically() -> None:
    llm = CanonicalLLM()
    (reply,) = llm.complete(
        [[{"role": "user", "content": "Rewrite for video: a tiny crimson ball"}]], [SamplingParams()]
    )
    stated = parse(reply.text).stated
    assert (stated["shape"], stated["colour"], stated["size"], stated["quality"]) == ("circle", "red", "small", "sharp")
    assert len(stated) >= 7
    assert caption(random_scene(np.random.default_rng(0))).count(".") == 3


def test_components_are_built_with_their_options() -> None:
    built = registry.build(Component("generator", "diffusers", {"profile": "tiny", "steps": 2}))
    assert built.call["num_inference_steps"] == 2
    assert built.call["max_sequence_length"] == 48
