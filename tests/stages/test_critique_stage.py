"""The critique stage: drafts are judged and refined, and give pairs and data without a single clip."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fakes
import pytest
from policy_fakes import MENDER, recipe_with

from promptreel.config import Recipe
from promptreel.errors import RecipeError, RunError
from promptreel.pipeline import Pipeline
from promptreel.pipeline.export import export
from promptreel.pipeline.status import status
from promptreel.policy import TEXT_REASONS
from promptreel.preflight.check import check
from promptreel.store import Run
from promptreel.training.job import TrainingJob
from promptreel.types import Pair

pytestmark = pytest.mark.usefixtures("policy_components")
CRITIQUE: dict[str, Any] = {"kind": "critique", "queries": {"source": "q.txt"}, "candidates": 2}
SAMPLE: dict[str, Any] = {
    "kind": "sample",
    "student": "other",
    "queries": {"source": "q.txt"},
    "candidates": 3,
    "objective": "total",
}
PAIRS: dict[str, Any] = {
    "kind": "pairs",
    "samples": "sample",
    "rule": {"name": "dominance", "margin": 0.0, "dimensions": ["length"]},
}
DPO: dict[str, Any] = {"kind": "dpo", "student": "base", "pairs": ["critique", "pairs"]}


def recipe(*stages: dict[str, Any]) -> Recipe:
    return recipe_with({"fidelity": 1.0}, student=MENDER, teacher=MENDER, stage=list(stages))


class Learner:
    """A training method that remembers its data."""

    def __init__(self) -> None:
        self.learned: dict[str, list[Pair]] = {}

    def __call__(self, job: TrainingJob, data: Sequence[Pair]) -> dict[str, float]:
        self.learned[job.out.name.strip(".").removesuffix(".part")] = list(data)
        (job.out / "model.safetensors").write_bytes(b"weights")
        return {"loss": 0.1}


def test_drafts_without_clips_are_paired_by_the_decisions_on_them(place: Path) -> None:
    """Every draft that the policy rejects loses against an accepted one of its query; nothing is refined here."""
    drafts = {**CRITIQUE, "rounds": 0, "candidates": 8, "student": "other"}
    pairs = {"kind": "pairs", "samples": "critique", "rule": {"name": "accepted", "length": 0.0}}
    chosen = recipe(drafts, pairs)
    with Run(place) as opened:
        assert status(chosen, opened)[0].seconds_left is None  # no earlier stage tells how long texts take
        summary = Pipeline(chosen, opened).execute()
        assert status(chosen, opened)[0].seconds_left == 0
        made = opened.records.pairs("pairs")
        assert summary.stages["pairs"]["pairs"] == len(made) > 0
        stored = {(c.query.text, c.text): c.rejected for c in opened.records.candidates("critique")}
    assert {stored[pair.query.text, pair.chosen] for pair in made} == {None}
    assert {stored[pair.query.text, pair.rejected] for pair in made} <= set(TEXT_REASONS)
    assert not fakes.FakeGenerator.rendered


def test_a_rule_that_compares_clips_is_refused_for_a_critique() -> None:
    pairs = {"kind": "pairs", "samples": "critique", "rule": {"name": "dominance"}}
    with pytest.raises(RecipeError, match="'dominance' compares clips, and a critique renders none"):
        check(recipe(CRITIQUE, pairs))


def test_refined_drafts_are_preferred_to_what_they_mend_and_learned_before_clips(place: Path) -> None:
    """A query with a pair of texts learns no pair of clips, as in VPO."""
    learner = Learner()
    with Run(place) as opened:
        summary = Pipeline(recipe(CRITIQUE, SAMPLE, PAIRS, DPO), opened, trainers={"dpo": learner}).execute()
        text, video = opened.records.pairs("critique"), opened.records.pairs("pairs")
        history = [c for c in opened.records.candidates("critique") if c.query.text == "gory star"]
    critique = summary.stages["critique"]
    assert critique["drafts"] == 5  # each query's two are alike
    assert critique["passed_at_once"] == 1  # the one about a box
    assert critique["accepted"] == 5
    assert critique["made_harmless"] == 1
    assert critique["rejected"] == {"fidelity": 3, "unsafe": 1}
    assert {(pair.query.text, pair.chosen, pair.rejected) for pair in text} == {
        ("red ball", "red ball mended", "red"),
        ("tiny ring", "tiny ring mended", "tiny"),
        ("green cross", "green cross mended", "green"),
        ("gory star", "star mended", "gory"),
    }
    assert {pair.rule for pair in text} == {"text_refined"}
    assert [(c.text, c.round, c.rejected) for c in history] == [("gory", 0, "unsafe"), ("star mended", 1, None)]
    assert video
    learned = learner.learned["dpo"]
    assert [pair for pair in learned if pair.rule == "text_refined"] == text
    by_clips = {pair.query.text for pair in learned if pair.rule == "dominance"}
    assert by_clips <= {"blue box"} < {pair.query.text for pair in video}
    assert summary.stages["dpo"] == {"pairs": len(learned), "loss": 0.1}
    assert summary.finished


@pytest.mark.parametrize("exclusive", [True, False])
def test_an_export_of_pairs_has_exactly_those_that_each_dpo_stage_learns(place: Path, exclusive: bool) -> None:
    """Also their order, and a stage that learns from one source alone."""
    learner = Learner()
    both = {**DPO, "name": "both", "exclusive": exclusive}
    clips_first = {**DPO, "name": "clips-first", "pairs": ["pairs", "critique"], "exclusive": exclusive}
    clips = {**DPO, "name": "clips", "pairs": ["pairs"], "exclusive": exclusive}
    to = place.with_name("pairs.jsonl")
    with Run(place) as opened:
        stages = recipe(CRITIQUE, SAMPLE, PAIRS, both, clips_first, clips)
        pipeline = Pipeline(stages, opened, trainers={"dpo": learner})
        pipeline.execute()
        found = export(pipeline, "pairs", to)
        made = len(opened.records.pairs("critique")) + len(opened.records.pairs("pairs"))
        writer = pipeline.context("both").writer("base")
    rows = [json.loads(line) for line in to.read_text().splitlines()]
    assert found == len(rows)
    expected = [
        {
            "prompt": writer.ask("rewrite", query=pair.query.text),
            "chosen": [{"role": "assistant", "content": pair.chosen}],
            "rejected": [{"role": "assistant", "content": pair.rejected}],
            "rule": pair.rule,
            "margin": pair.margin,
            "stage": stage,
        }
        for stage in ("both", "clips-first", "clips")
        for pair in learner.learned[stage]
    ]
    assert rows == expected
    assert (len(learner.learned["both"]) < made) == exclusive
    assert (len(learner.learned["both"]) == made) == (not exclusive)
    assert learner.learned["both"] != learner.learned["clips-first"]


def test_an_export_of_pairs_before_any_were_made_says_so(place: Path) -> None:
    to = place.with_name("pairs.jsonl")
    with Run(place) as opened, pytest.raises(RunError, match="no pairs to export yet"):
        export(Pipeline(recipe(CRITIQUE, DPO | {"pairs": ["critique"]}), opened), "pairs", to)
    assert not to.exists()
