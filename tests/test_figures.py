"""Figures of the packaged tiny models, measured again and held to those of the manifest."""

import json
from pathlib import Path
from typing import Any

import pytest

from build_tiny import measure
from promptreel.package_files import locate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def manifest() -> Any:
    return json.loads(Path(locate("package:promptreel.tiny/weights/manifest.json")).read_text())["measure"]


def test_the_video_model_shows_the_facts_of_captions_in_its_own_words(manifest: Any) -> None:
    found = measure.video_model(200, "dev")
    assert found["canonical_stated"] >= manifest["video"]["canonical_stated"] - 0.08
    assert found["canonical_every"] >= manifest["video"]["canonical_every"] - 0.1
    assert found["raw_stated"] <= 0.45
    assert found["canonical_stated"] - found["raw_stated"] >= 0.3


def test_the_alignment_reward_finds_a_flipped_fact(manifest: Any) -> None:
    found = measure.alignment(300)
    assert found["prefers_true"] >= 0.9
    assert found["spearman"] >= 0.6


def test_the_base_model_reads_scores() -> None:
    found = measure.language_model(100)
    assert found["script_scored_higher"] >= found["sentences_scored_higher"] + 0.2


def test_the_second_video_model_reads_another_style(manifest: Any) -> None:
    found = measure.video_model(100, "dev", profile="tiny-tags", style="tags")
    other = measure.video_model(100, "dev", profile="tiny-tags", style="sentences")
    assert found["canonical_stated"] >= manifest["video_tags"]["canonical_stated"] - 0.1
    assert found["canonical_stated"] - other["canonical_stated"] >= 0.3
