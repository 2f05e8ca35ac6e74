"""Results of a run for other programs, as lines of JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import RECIPE, recipe

from promptreel.config import Recipe, parse_recipe
from promptreel.errors import RunError, UnknownName, UserError
from promptreel.pipeline import Pipeline, run
from promptreel.pipeline.export import export
from promptreel.store import Run


def test_scores_are_written_one_candidate_a_line(place: Path) -> None:
    run(recipe(), place, until="sample")
    with Run(place) as opened:
        stored = [c for stage in ("evolve", "sample") for c in opened.records.candidates(stage)]
        assert export(Pipeline(recipe(), opened), "scores", place / "scores.jsonl") == len(stored)
    rows = [json.loads(line) for line in (place / "scores.jsonl").read_text().splitlines()]
    assert [(row["text"], row["reward"], row["rejected"]) for row in rows] == [
        (c.text, c.reward, c.rejected) for c in stored
    ]
    assert rows[0]["scores"] == stored[0].scores


def exported(chosen: Recipe, place: Path, what: str) -> list[dict[str, Any]]:
    with Run(place) as opened:
        count = export(Pipeline(chosen, opened), what, place / f"{what}.jsonl")
    rows = [json.loads(line) for line in (place / f"{what}.jsonl").read_text().splitlines()]
    assert len(rows) == count
    return rows


def test_pairs_that_no_stage_learns_are_exported_for_a_training_elsewhere(place: Path) -> None:
    run(recipe(), place, until="pairs")
    with Run(place) as opened:
        pairs = opened.records.pairs("pairs")
    rows = exported(recipe(), place, "pairs")
    assert [(row["margin"], row["rule"], row["stage"]) for row in rows] == [(p.margin, p.rule, "pairs") for p in pairs]
    assert rows[0]["prompt"][0]["content"].startswith("Rewrite for video: ")
    assert rows[0]["chosen"] == [{"role": "assistant", "content": pairs[0].chosen}]
    with pytest.raises(RunError, match="the run has no sft to export yet"):
        exported(recipe(), place, "sft")


def test_what_a_training_learns_is_exported_as_it_learns_it(place: Path) -> None:
    """Under the name of the training, without the pairs that an earlier source of pairs displaces."""
    student = {"llm": {"name": "local", "model": "package:promptreel.tiny/weights/base"}, "format": "brief"}
    sample = {**RECIPE["stage"][1], "queries": {"source": "q.txt", "take": 3}}
    critique = {"kind": "critique", "queries": {"source": "q.txt", "take": 3}, "student": "other", "rounds": 1}
    stages = [
        RECIPE["stage"][0],
        {**sample, "student": "other"},
        RECIPE["stage"][2],
        {"kind": "pairs", "name": "more", "samples": "sample", "rule": {"name": "margin_floors", "margin": 0.0}},
        critique,
        {"kind": "sft", "data": "evolve"},
        {"kind": "dpo", "student": "sft", "pairs": ["pairs", "more"]},
    ]
    chosen = parse_recipe({**RECIPE, "student": student, "stage": stages})
    run(chosen, place, until="critique")
    with Run(place) as opened:
        pairs = opened.records.pairs("pairs")
        best = {c.query.text for c in opened.records.candidates("evolve")}
    rows = exported(chosen, place, "pairs")
    assert [row["margin"] for row in rows if row["stage"] == "dpo"] == [pair.margin for pair in pairs]
    examples = exported(chosen, place, "sft")
    assert examples
    assert {row["stage"] for row in examples} == {"sft"}
    assert all(any(query in row["completion"][0]["content"] for query in best) for row in examples)


def test_an_export_that_does_not_exist_or_has_no_place_is_one_line(place: Path) -> None:
    run(recipe(), place, until="evolve")
    with Run(place) as opened:
        pipeline = Pipeline(recipe(), opened)
        with pytest.raises(UnknownName, match="did you mean 'pairs'"):
            export(pipeline, "pears", place / "x.jsonl")
        with pytest.raises(UserError, match="there is no directory"):
            export(pipeline, "scores", place / "no" / "scores.jsonl")
