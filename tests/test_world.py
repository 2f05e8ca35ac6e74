"""The tiny world draws the facts of its scenes, and the oracle reads them back."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from promptreel.package_files import locate
from promptreel.tiny import pixel_oracle
from promptreel.tiny.judges import OracleReward
from promptreel.tiny.presets import MODELS
from promptreel.tiny.world import FPS, FRAMES, SIZE, VALUES, Scene, random_scene, render
from promptreel.types import Clip, Query


def test_the_same_scene_and_seed_give_the_same_clip() -> None:
    scene = random_scene(np.random.default_rng(0))
    assert (render(scene, 3) == render(scene, 3)).all()
    assert (render(scene, 3) != render(scene, 4)).any()


def test_a_clip_has_nine_frames_and_an_image_is_its_middle_one() -> None:
    scene = random_scene(np.random.default_rng(0), motion="left")
    clip = render(scene, 1)
    assert clip.shape == (FRAMES, SIZE, SIZE, 3)
    assert clip.dtype == np.uint8
    assert (render(scene, 1, frames=1)[0] == clip[FRAMES // 2]).all()


def test_a_scene_has_a_speed_if_and_only_if_it_moves() -> None:
    with pytest.raises(ValueError, match="speed"):
        Scene("circle", "red", "small", "still", "fast", "black", "plain")
    with pytest.raises(ValueError, match="speed"):
        Scene("circle", "red", "small", "left", None, "black", "plain")


COUNTS = pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])


def misread(quality: str, count: int) -> tuple[Counter[str], Counter[str], int]:
    """Return wrong readings and occurrences by attribute, and the number of clips with a wrong reading."""
    rng = np.random.default_rng(11)
    wrong, seen, clips = Counter[str](), Counter[str](), 0
    for index in range(count):
        scene = random_scene(rng, quality=quality)
        read = pixel_oracle.read(render(scene, 5000 + index))
        bad = [name for name, value in scene.facts.items() if not read.agrees(name, value)]
        if scene.speed is None and read.facts["speed"] is not None:
            bad.append("speed")
        seen.update(list(scene.facts))
        wrong.update(bad)
        clips += bool(bad)
    return wrong, seen, clips


@COUNTS
def test_the_oracle_reads_sharp_clips_without_a_mistake_in_97_of_100(count: int) -> None:
    _, _, clips = misread("sharp", count)
    assert 1 - clips / count >= 0.97


@COUNTS
def test_the_oracle_reads_every_fact_of_poor_clips_in_90_of_100(count: int) -> None:
    wrong, seen, _ = misread("poor", count)
    for name in VALUES:
        assert 1 - wrong[name] / seen[name] >= 0.90, name


def test_the_oracle_leaves_mush_unread() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    assert pixel_oracle.read(noise).facts["shape"] is None
    gray = np.full((FRAMES, SIZE, SIZE, 3), 125, np.uint8)
    read = pixel_oracle.read(gray)
    assert read.facts["background"] == "gray"
    assert read.facts["shape"] is None
    assert read.facts["motion"] is None


def test_the_oracle_reads_no_motion_off_an_image() -> None:
    scene = random_scene(np.random.default_rng(5), motion="right", speed="fast")
    read = pixel_oracle.read(render(scene, 1, frames=1))
    assert read.facts["motion"] is None
    assert read.agrees("shape", scene.shape)
    assert read.agrees("colour", scene.colour)


def test_the_oracle_refuses_frames_of_another_size() -> None:
    with pytest.raises(ValueError, match="shape"):
        pixel_oracle.read(np.zeros((9, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("frames", [FRAMES, 1])
def test_the_oracle_reward_scores_its_declared_dimensions_within_their_ranges(frames: int) -> None:
    scene = random_scene(np.random.default_rng(6), shape="star", colour="red", motion="spin")
    clip = Clip("", render(scene, 1, frames=frames), FPS)
    queries = [Query(text) for text in ("a red star spinning", "a blue ring moving left", "a corgi")]
    right, wrong, foreign = OracleReward().score([(query, clip) for query in queries])
    assert right == {"overall": 1.0, "facts": 1.0, "sharp": 1.0, "all_facts": 1.0}
    assert wrong["facts"] == 0.0
    assert foreign == dict.fromkeys(OracleReward.dimensions)
    assert set(OracleReward.ranges) == set(right) == set(OracleReward.dimensions)
    for name, value in wrong.items():
        low, high = OracleReward.ranges[name]
        assert value is not None
        assert low <= value <= high


def test_named_language_models_of_the_tiny_world_come_with_the_package() -> None:
    for weights, adapter in MODELS.values():
        assert (Path(locate(weights)) / "model.safetensors").is_file()
        assert adapter is None or (Path(locate(adapter)) / "adapter_model.safetensors").is_file()
