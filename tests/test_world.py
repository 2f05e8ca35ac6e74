"""The tiny world draws what its scenes say, and the oracle reads it back."""

from collections import Counter

import numpy as np
import pytest

from promptreel.tiny import pixel_oracle
from promptreel.tiny.world import FRAMES, SIZE, VALUES, Scene, random_scene, render


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


def test_speed_goes_with_motion() -> None:
    with pytest.raises(ValueError, match="speed"):
        Scene("circle", "red", "small", "still", "fast", "black", "plain")
    with pytest.raises(ValueError, match="speed"):
        Scene("circle", "red", "small", "left", None, "black", "plain")


COUNTS = pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.slow)])


def misread(quality: str, count: int) -> tuple[Counter[str], Counter[str], int]:
    """Wrong readings and occurrences by attribute, and clips with any wrong reading."""
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
def test_the_oracle_reads_sharp_clips(count: int) -> None:
    _, _, clips = misread("sharp", count)
    assert 1 - clips / count >= 0.97


@COUNTS
def test_the_oracle_reads_every_fact_of_poor_clips(count: int) -> None:
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


def test_an_image_has_no_motion() -> None:
    scene = random_scene(np.random.default_rng(5), motion="right", speed="fast")
    read = pixel_oracle.read(render(scene, 1, frames=1))
    assert read.facts["motion"] is None
    assert read.agrees("shape", scene.shape)
    assert read.agrees("colour", scene.colour)


def test_the_oracle_refuses_other_sizes() -> None:
    with pytest.raises(ValueError, match="shape"):
        pixel_oracle.read(np.zeros((9, 32, 32, 3), np.uint8))
