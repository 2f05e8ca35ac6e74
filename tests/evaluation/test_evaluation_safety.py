"""Harm in evaluations: harmful texts are measured as texts, and never rendered."""

from pathlib import Path
from typing import Any

import fakes
import pytest
from policy_fakes import MENDER, means, recipe_with

from promptreel.config import Recipe
from promptreel.pipeline import Pipeline, run
from promptreel.policy import NO_VERDICT
from promptreel.report import page
from promptreel.report.tables import print_summary
from promptreel.store import BenchmarkSize, Run
from promptreel.types import Query

pytestmark = pytest.mark.usefixtures("policy_components")
HARMFUL = "star gory\nred ball\nunreadable box"
"""Queries of which the mender leaves out the last word, unless they are about boxes."""


def recipe(safety: str = "rewrite_to_safe", fidelity: float = 0.5, **evaluate: Any) -> Recipe:
    """Return a recipe that only evaluates; its system ``other`` is the mender."""
    stage = {**fakes.RECIPE["stage"][-1], **evaluate}
    policy = {"safety": safety, "fidelity": fidelity}
    return recipe_with(policy, stage=[stage], systems={"other": MENDER})


def test_a_removed_harmful_part_costs_no_fidelity_and_is_stored(place: Path) -> None:
    Path("q.txt").write_text("star gory\nred ball\nblue box")
    summary = run(recipe(fidelity=1.0), place)
    unsafe = means(summary, "unsafe")
    assert (unsafe["other"].mean, unsafe["other"].queries) == (0.0, 3)
    assert unsafe["other"].ci95 == pytest.approx((0.0, 0.7076), abs=1e-3)
    assert unsafe["raw"].mean == pytest.approx(1 / 3, abs=1e-3)
    assert means(summary, "aligned")["other"].mean == pytest.approx(2 / 3, abs=1e-3)
    assert "refused" not in {row.metric for row in summary.means}
    with Run(place, writable=False) as opened:
        stored = opened.records.evaluation("mine")["other"][Query("star gory")]
    assert stored.removed == ["gory"]
    assert stored.verdict
    assert stored.verdict.fidelity == 1.0


def test_no_harmful_text_is_rendered_for_an_evaluation(place: Path) -> None:
    """Texts of systems and queries as typed alike: they are measured as texts, and left out of comparisons of clips."""
    Path("q.txt").write_text(HARMFUL)
    chosen = recipe()
    summary = run(chosen, place)
    assert not [text for text in fakes.FakeGenerator.rendered if "gory" in text or "unreadable" in text]
    assert summary.benchmarks["mine"].not_rendered == {"raw": 2, "base": 2, "other": 1}
    raw = means(summary, "unsafe")["raw"]
    assert (raw.mean, raw.queries) == (0.5, 2)
    assert raw.ci95 == pytest.approx((0.0126, 0.9874), abs=1e-3)
    assert means(summary, "length")["other"].queries == 2
    assert {(row.a, row.b): row.queries for row in summary.comparisons} == {
        ("base", "raw"): 1,
        ("other", "raw"): 1,
        ("other", "base"): 1,
    }
    with Run(place, writable=False) as opened:
        rows = opened.records.evaluation("mine")
        shown = page.write(opened, chosen, summary).read_text()
    typed, other = rows["raw"][Query("star gory")], rows["other"][Query("star gory")]
    assert (typed.withheld, typed.scores, typed.clips) == ("unsafe", {}, ())
    assert typed.verdict
    assert typed.verdict.unsafe == ("gory",)
    assert (other.withheld, other.text, len(other.clips)) == (None, "star", 2)
    assert rows["raw"][Query("unreadable box")].withheld == NO_VERDICT
    assert "left out of comparisons of clips: 2 of <bdi>raw</bdi>, 2 of <bdi>base</bdi>, 1 of <bdi>other</bdi>" in shown


def test_every_text_is_rendered_where_harm_is_not_judged(place: Path) -> None:
    Path("q.txt").write_text(HARMFUL)
    summary = run(recipe("off"), place)
    assert {"star gory", "unreadable box"} <= fakes.FakeGenerator.rendered.keys()
    assert not summary.benchmarks["mine"].not_rendered
    assert all(row.queries == 3 for row in summary.comparisons)


def test_texts_alone_can_be_measured_without_a_render(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run(recipe(benchmarks={"texts": {"queries": {"source": "q.txt"}, "clips_per_prompt": 0}}), place)
    assert not fakes.FakeGenerator.rendered
    assert summary.benchmarks == {"texts": BenchmarkSize(queries=5, clips_per_prompt=0)}
    metrics = {"fidelity", "aligned", "unsafe", "over_limit", "words", "unanswered"}
    assert {row.metric for row in summary.means} == metrics
    assert summary.comparisons == ()
    print_summary(summary)
    printed = capsys.readouterr().out
    assert "aligned" in printed
    assert "win rates" not in printed


def test_an_evaluation_can_have_a_judge_of_its_own(place: Path) -> None:
    Path("q.txt").write_text("a red ball\na gory blue box")
    texts = {"texts": {"queries": {"source": "q.txt"}, "clips_per_prompt": 0}}
    chosen = recipe(judge={"name": "tiny-oracle"}, systems=["raw", "base"], benchmarks=texts)
    with Run(place) as opened:
        Pipeline(chosen, opened).do("evaluate")
        verdicts = [c.verdict for c in opened.records.evaluation("texts")["raw"].values()]
    facts = [[(fact.text, fact.status) for fact in verdict.facts] for verdict in verdicts if verdict]
    assert facts[0] == [("colour red", "kept"), ("shape circle", "kept")]
    assert ("unsafe gory", "kept") in facts[1]
