"""Images, which are clips of one frame: their queries, the models that render and score them, and a whole run."""

import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import numpy as np
import pytest
import torch
import transformers
from tiny_encoders import WIDTH, clip_tokenizer

from promptreel import media, registry
from promptreel.config import load_recipe, parse_recipe
from promptreel.errors import Interrupted, RecipeError, UnknownName
from promptreel.preflight.check import check
from promptreel.rewards.clip import CLIP
from promptreel.store import Run
from promptreel.tiny.text_oracle import parse
from promptreel.tiny.wording import caption, complete, typed_queries
from promptreel.types import Clip, Component, Query, RenderRequest

SPLITS = ("train", "dev", "test")
SMALL = [
    "policy.fidelity=0", "sft.margin=-1000", "pairs-1.rule.margin=0.001", "pairs-2.rule.margin=0.001",
    "student.sampling={temperature=1.0, max_tokens=24}", "teacher.sampling={temperature=1.0, max_tokens=24}",
    "sample-1.sampling={temperature=1.0, max_tokens=24}", "sample-2.sampling={temperature=1.0, max_tokens=24}",
    "evolve.queries.take=6", "evolve.rounds=2", "sample-1.queries.take=6", "sample-2.queries.take=6",
    "sft.trainer.num_train_epochs=1", "dpo-1.trainer.num_train_epochs=1", "dpo-2.trainer.num_train_epochs=1",
    "evaluate.benchmarks.tiny-image-test.queries.take=6",
]  # fmt: skip


def test_queries_about_images_state_only_facts_that_one_frame_can_show() -> None:
    texts = {
        split: [query.text for query in islice(registry.find("dataset", f"tiny-image-{split}")(), 300)]
        for split in SPLITS
    }
    for found in texts.values():
        assert all("shape" in parse(text).facts for text in found)
        assert not any({"motion", "speed"} & parse(text).facts.keys() for text in found)
        assert not any("video" in text for text in found)
        assert sum("an image" in text for text in found) > 10
        assert sum(bool(parse(text).unsafe) for text in found) > 3
    assert not set(texts["train"]) & set(texts["test"])
    assert not set(texts["dev"]) & set(texts["test"])


@pytest.mark.slow
def test_the_tiny_video_model_renders_images_which_rewards_can_tell_apart() -> None:
    """Complete captions of images beat the queries as typed, for the oracle and for the rewards of training."""
    asked = list(islice(typed_queries("dev", still=True), 16))
    rng = np.random.default_rng(0)
    captions = [caption(complete(facts, rng), still=True) for _, facts in asked]
    generator = registry.build(Component("generator", "diffusers", {"profile": "tiny-image"}))
    rewards = {
        name: registry.build(Component("reward", name, options))
        for name, options in {
            "tiny-oracle": {}, "pixels": {}, "xclip": {"model": "package:promptreel.tiny/weights/alignment"},
        }.items()
    }  # fmt: skip
    means = {}
    for kind, texts in {"raw": [text for text, _ in asked], "caption": captions}.items():
        clips = generator.render([RenderRequest(text, "", 7) for text in texts])
        assert all(isinstance(clip, Clip) and clip.frames.shape == (1, 64, 64, 3) for clip in clips)
        items = [(Query(text), clip) for (text, _), clip in zip(asked, clips, strict=True)]
        scores = [dict(row) for reward in rewards.values() for row in reward.score(items)]
        means[kind] = {
            name: np.mean([row[name] for row in scores if row.get(name) is not None])
            for name in ("overall", "alignment", "sharpness")
        }
        assert all(row["steadiness"] is None for row in scores if "steadiness" in row)
    assert means["caption"]["overall"] > 0.85
    assert means["raw"]["overall"] < 0.7
    assert means["caption"]["alignment"] > means["raw"]["alignment"] + 1
    assert means["caption"]["sharpness"] > means["raw"]["sharpness"]


@pytest.mark.parametrize("change", [{"profile": "tiny-image"}, {"generator": {"name": "diffusers", "frames": 1}}])
def test_a_recipe_for_images_cannot_value_a_dimension_of_motion(change: dict[str, Any]) -> None:
    recipe, _ = load_recipe("tiny")
    check(recipe)
    with pytest.raises(RecipeError, match="an image has no steadiness"):
        check(parse_recipe({**recipe.resolved(), **change}))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a very small CLIP model with random weights."""
    path = tmp_path_factory.mktemp("clip")
    tokenizer = clip_tokenizer()
    torch.manual_seed(0)
    layers = {"hidden_size": WIDTH, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.CLIPConfig(
        text_config={**layers, **ends, "vocab_size": len(tokenizer)},
        vision_config={**layers, "image_size": 32, "patch_size": 8},
        projection_dim=WIDTH,
    )
    transformers.CLIPModel(config).save_pretrained(path)
    size = {"height": 32, "width": 32}
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(path)
    return path


def test_clip_scores_images_and_clips_by_their_frames(checkpoint: Path) -> None:
    reward = CLIP(str(checkpoint), frames=3)
    frames = np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3), np.uint8)
    images = [Clip(str(n), frames[n : n + 1], 1) for n in range(5)]
    queries = [Query("a red ball"), Query("the blue dog jumps over water " * 20)]  # longer than the text encoder reads
    items = [(query, image) for query in queries for image in images]
    scores = [row["alignment"] for row in reward.score(items)]
    assert len(set(scores)) == len(items)
    (whole,) = reward.score([(queries[0], Clip("x", frames, 8))])
    assert whole["alignment"] == pytest.approx(np.mean([scores[0], scores[2], scores[4]]), abs=1e-3)
    for item, score in zip(items, scores, strict=True):
        assert reward.score([item])[0]["alignment"] == pytest.approx(score, abs=1e-3)


def test_two_clip_models_can_go_into_one_objective(checkpoint: Path, fake_components: None) -> None:
    options = {"model": str(checkpoint), "processor": str(checkpoint), "dimension": "preference"}
    preference = registry.build(Component("reward", "clip", options))
    (scores,) = preference.score([(Query("a red ball"), Clip("x", np.zeros((1, 32, 32, 3), np.uint8), 1))])
    assert scores.keys() == {"preference"} == set(preference.dimensions)
    assert preference.fingerprint != CLIP(str(checkpoint)).fingerprint
    table = {"name": "clip", "model": str(checkpoint)}
    both = {"clip": table, "pick": {**table, "dimension": "preference"}}
    recipe = fakes.recipe(
        rewards=both,
        objectives={"total": {"weights": {"alignment": 1.0, "preference": 0.5}}},
    )
    check(recipe)


def test_the_dimensions_of_a_clip_model_are_known_without_building_it(fake_components: None) -> None:
    assert CLIP.dimensions == CLIP.dimensions_of({"model": "org/clip"}) == ("alignment",)
    assert CLIP.dimensions_of({"model": "org/clip", "dimension": "preference"}) == ("preference",)
    recipe = fakes.recipe(
        rewards={"clip": {"name": "clip", "model": "org/clip", "dimension": "preference"}},
        objectives={"total": {"weights": {"alignment": 1.0}}},
    )
    with pytest.raises(UnknownName, match=r"dimension in objective 'total': 'alignment'; available: preference"):
        check(recipe)


def test_denoising_steps_are_reported_and_change_no_pixel() -> None:
    generator = registry.build(Component("generator", "diffusers", {"profile": "tiny-image", "steps": 3}))
    requests = [RenderRequest("a red ball", "", seed) for seed in (1, 2)]
    steps: list[tuple[int, int]] = []
    reported = generator.render(requests, lambda done, total: steps.append((done, total)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    for clip, silent in zip(reported, generator.render(requests), strict=True):
        assert (clip.frames == silent.frames).all()


def test_the_steps_of_several_sizes_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = registry.build(Component("generator", "diffusers", {"profile": "tiny-image", "steps": 2}))
    sizes = {"": (64, 64), "1:2": (64, 128)}
    generator.profile = SimpleNamespace(size=sizes.get, fps=1, pipeline=generator.profile.pipeline)
    steps: list[tuple[int, int]] = []
    drawn: list[tuple[int, int]] = []

    def pipeline(width: int, height: int, prompt: list[str], **arguments: Any) -> Any:
        drawn.append((width, height))
        for step in range(2):
            arguments["callback_on_step_end"](SimpleNamespace(num_timesteps=2), step, 0, {})
        return SimpleNamespace(frames=np.zeros((len(prompt), 1, height, width, 3), np.float32))

    monkeypatch.setitem(vars(generator), "_pipeline", pipeline)
    requests = [RenderRequest("a", "", 1, "1:2"), RenderRequest("a", "", 2), RenderRequest("a", "", 3, "1:2")]
    clips = generator.render(requests, lambda done, total: steps.append((done, total)))
    assert [clip.frames.shape[1] for clip in clips] == [128, 64, 128]
    assert drawn == [(64, 128), (64, 64)]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("error", [Interrupted("stop"), ValueError("stop"), RuntimeError("stop"), KeyboardInterrupt()])
def test_a_render_can_be_cancelled_by_the_listener_of_its_steps(error: BaseException) -> None:
    generator = registry.build(Component("generator", "diffusers", {"profile": "tiny-image", "steps": 3}))
    steps: list[int] = []

    def stop(done: int, total: int) -> None:
        steps.append(done)
        if done == 2:
            raise error

    with pytest.raises(type(error)) as caught:
        generator.render([RenderRequest("a red ball", "", 1)], stop)
    assert caught.value is error
    assert steps == [1, 2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_whole_run_for_images_ends_with_a_report(tmp_path: Path) -> None:
    out = tmp_path / "run"
    sets = [word for change in SMALL for word in ("--set", change)]
    command = [sys.executable, "-m", "promptreel", "run", "tiny_image", "--out", str(out), *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Run(out, writable=False) as run:
        for stage in ("evolve", "sample-1", "sample-2", "evaluate"):
            assert run.records.renders(stage) > 0
    assert {len(media.decode(path.read_bytes(), path.name)) for path in (out / "clips").rglob("*.mkv")} == {1}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["finished"]
    assert (summary["systems"][-1], summary["ceiling"]) == ("dpo-2", "canonical")
    assert summary["benchmarks"]["tiny-image-test"]["queries"] == 6
    assert "data:image" in (out / "report.html").read_text()
