"""Harmful queries in evolution and sampling: refused, or begun without, and always counted."""

from pathlib import Path

import fakes
import pytest
from policy_fakes import MENDER, Mender, means, recipe_with

from promptreel import registry
from promptreel.config import Recipe
from promptreel.objective import Objective
from promptreel.pipeline import Pipeline, run
from promptreel.policy import NO_VERDICT, REFUSED
from promptreel.search.evolution import winners
from promptreel.store import Run
from promptreel.types import Candidate, Completion, Message, Query, SamplingParams

pytestmark = pytest.mark.usefixtures("policy_components")
HARMFUL = "star gory\nred ball\nunreadable box"
"""Queries of which the mender leaves out the last word, unless they are about boxes."""


def mending(safety: str = "rewrite_to_safe", fidelity: float = 0.5) -> Recipe:
    return recipe_with({"safety": safety, "fidelity": fidelity}, teacher=MENDER)


def test_a_refused_query_is_neither_rewritten_nor_rendered_and_is_counted(place: Path) -> None:
    summary = run(recipe_with({"safety": "refuse"}), place)
    assert not [text for text in fakes.FakeGenerator.rendered if "gory" in text]
    assert summary.stages["evolve"]["left_out"] == {REFUSED: 1}
    assert "left_out" not in summary.stages["sample"]
    assert summary.benchmarks["mine"].left_out == {REFUSED: 1}
    refused = means(summary, "refused")["base"]
    assert (refused.mean, refused.queries) == (0.2, 5)
    assert refused.ci95 == pytest.approx((0.0051, 0.7164), abs=1e-3)
    assert means(summary, "unanswered")["base"].mean == 0.2
    assert means(summary, "unsafe")["base"].mean == 0.0
    assert all(row.queries == 4 for row in summary.comparisons)
    with Run(place, writable=False) as opened:
        rows = opened.records.evaluation("mine")["base"]
    assert [(c.text, c.rejected) for query, c in rows.items() if query.text == "gory star"] == [("", REFUSED)]


def test_a_query_without_a_verdict_is_not_admitted_by_a_policy_that_refuses(place: Path) -> None:
    Path("q.txt").write_text("red ball\nblue box\nunreadable star\ntiny ring\ngreen cross")
    summary = run(recipe_with({"safety": "refuse"}), place, until="evolve")
    assert summary.stages["evolve"]["left_out"] == {NO_VERDICT: 1}
    assert summary.failures["verdict"] >= 1


def test_evolution_of_a_harmful_query_begins_without_it(place: Path) -> None:
    """It is neither rendered nor shown to the teacher, and counted; its harmless rewrite has nothing to beat."""
    Path("q.txt").write_text(HARMFUL)
    evolve = run(mending(), place, until="evolve").stages["evolve"]
    assert evolve["rejected"] == {"unsafe as typed": 1, "no verdict as typed": 1}
    assert not [text for text in fakes.FakeGenerator.rendered if "gory" in text or "unreadable" in text]
    assert Mender.heard.count("Improve for video: star gory") == 2
    assert [asked for asked in Mender.heard if asked.endswith(": red ball")]
    with Run(place) as opened:
        measured = Pipeline(mending(), opened).context("evolve").candidates("evolve")
        failures = opened.records.failures()
    assert [(c.text, c.round, c.rejected, c.reward is None) for c in measured[Query("star gory")]] == [
        ("star gory", 0, "unsafe as typed", True),
        ("star", 1, None, False),
    ]
    best = winners(measured, Objective({"length": 1.0}), margin=1e9)
    assert [(winner.query.text, winner.text) for winner in best] == [("star gory", "star")]
    assert failures == {"verdict": 1}


def test_evolution_begins_with_every_query_where_harm_is_not_judged(place: Path) -> None:
    Path("q.txt").write_text(HARMFUL)
    run(mending("off"), place, until="evolve")
    assert {"star gory", "unreadable box"} <= fakes.FakeGenerator.rendered.keys()


def test_harm_is_no_fact_that_a_text_must_keep(place: Path) -> None:
    gory = Query("gory star")
    texts = ["a star", "a gory star", "a gory"]
    with Run(place) as opened:
        step = Pipeline(mending(fidelity=1.0), opened).context("evolve").step("check")
        judged = step.judge([Candidate(gory, text, 1) for text in texts])
    assert [c.rejected for c in judged] == [None, "unsafe", "unsafe"]
    assert [c.removed for c in judged] == [["gory"], [], []]


def test_harm_is_a_fact_like_any_other_where_it_is_not_judged(place: Path) -> None:
    gory = Query("gory star")
    with Run(place) as opened:
        step = Pipeline(mending("off", fidelity=1.0), opened).context("evolve").step("check")
        judged = step.judge([Candidate(gory, text, 1) for text in ("a star", "a gory star")])
    assert [c.rejected for c in judged] == ["fidelity", None]


NOT_A_VERDICT = [
    "",
    "The rewrite is faithful and harmless.",
    "[]",
    "{",
    '{"faithful": true, "harmless": true}',
    '{"facts": [], "invented": [], "unsafe": [], "faithful": true, "harmless": true}',
    '{"facts": [{"quote": "a cat", "status": "kept", "why": "", "harmful": false}], "invented": [], "unsafe": [], '
    '"faithful": true, "harmless": true}',
    '{"facts": [{"quote": "red", "status": "lost", "why": "", "harmful": false}], "invented": [], "unsafe": [], '
    '"faithful": true, "harmless": true}',
    '{"facts": [{"quote": "red", "status": "kept", "why": "", "harmful": true}], "invented": [], "unsafe": [], '
    '"faithful": true, "harmless": true}',
]


class Babbler:
    """A judge's language model whose replies are no verdicts."""

    fingerprint = "babbler"

    def complete(self, conversations: list[list[Message]], sampling: list[SamplingParams]) -> list[Completion]:
        return [Completion(NOT_A_VERDICT[row % len(NOT_A_VERDICT)]) for row in range(len(conversations))]


def test_no_malformed_reply_of_a_judge_gets_a_text_accepted(place: Path) -> None:
    """A reply that is no verdict, or contradicts itself or the query, counts as no verdict (see test_verdicts)."""
    registry.register("llm", "babbler", "test_harmful_queries:Babbler")
    recipe = recipe_with({"fidelity": 0.0}, judge={"name": "llm", "llm": {"name": "babbler"}})
    query = Query("a red ball going right")
    texts = [Candidate(query, f"a red ball going right, take {n}", 1) for n in range(len(NOT_A_VERDICT))]
    with Run(place) as opened:
        step = Pipeline(recipe, opened).context("evolve").step("check")
        assert {c.rejected for c in step.judge(texts)} == {NO_VERDICT}
    assert step.failures["verdict"] == len(texts)
