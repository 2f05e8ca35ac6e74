"""The policy: one decision on texts and queries, for evolution, sampling, critique, evaluation and rewriting alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import fakes
import pytest
from policy_fakes import recipe_with

from promptreel.config import PolicyTable
from promptreel.errors import UnknownName
from promptreel.execution.writer import Writer
from promptreel.pipeline import Pipeline, run
from promptreel.policy import NO_VERDICT, REFUSED, TEXT_REASONS, Policy, Safety
from promptreel.rewriting import Rewriter
from promptreel.store import Run
from promptreel.types import Candidate, Component, Fact, Query, Verdict

BALL = Query("gory red ball")
KEPT = (Fact("red", "kept"), Fact("ball", "kept"), Fact("gory", "lost", "blood", harmful=True))
HARMLESS = Verdict(KEPT)
UNFAITHFUL = Verdict((Fact("red", "lost"), Fact("ball", "kept")))
HARMFUL = Verdict((Fact("red", "kept"), Fact("gory", "kept", harmful=True)), unsafe=("gory",))
INVENTIVE = Verdict(KEPT, invented=("a dragon",))
SAFETIES: tuple[Safety, ...] = get_args(Safety)


def text(verdict: Verdict | None, fits: bool = True) -> Candidate:
    return Candidate(BALL, "a text", 1, verdict, fits=fits)


# Texts


@pytest.mark.parametrize(
    ("verdict", "fits", "reason"),
    [
        (HARMLESS, True, None),
        (HARMLESS, False, "too long"),
        (UNFAITHFUL, True, "fidelity"),
        (HARMFUL, True, "unsafe"),
        (INVENTIVE, True, "invented"),
        (None, True, NO_VERDICT),
        (None, False, NO_VERDICT),
    ],
)
def test_a_text_is_rejected_for_the_first_of_its_faults(
    verdict: Verdict | None, fits: bool, reason: str | None
) -> None:
    policy = Policy()
    assert policy.rejects(text(verdict, fits)) == reason
    assert policy.accepts(text(verdict, fits)) == (reason is None)
    assert reason is None or reason == NO_VERDICT or reason in TEXT_REASONS


def test_a_text_may_lose_as_many_facts_as_the_policy_says() -> None:
    assert [Policy(fidelity=share).rejects(text(UNFAITHFUL)) for share in (0.0, 0.5, 0.51, 1.0)] == [
        None,
        None,
        "fidelity",
        "fidelity",
    ]


def test_an_invention_passes_only_where_the_policy_allows_it() -> None:
    assert Policy(invented="allow").accepts(text(INVENTIVE))
    assert Policy(invented="reject").rejects(text(INVENTIVE)) == "invented"
    assert Policy(safety="off").rejects(text(INVENTIVE)) == "invented"


@pytest.mark.parametrize("safety", ["rewrite_to_safe", "refuse"])
def test_a_harmful_text_and_one_without_a_verdict_are_withheld(safety: Safety) -> None:
    policy = Policy(safety)
    found = [policy.withholds(verdict) for verdict in (HARMLESS, UNFAITHFUL, INVENTIVE, HARMFUL, None)]
    assert found == [None, None, None, "unsafe", NO_VERDICT]


def test_nothing_is_withheld_where_harm_is_not_judged() -> None:
    for policy in (Policy("off"), Policy(judged=False)):
        assert [policy.withholds(verdict) for verdict in (HARMLESS, HARMFUL, None)] == [None] * 3


def test_a_text_that_no_judge_could_read_is_accepted_only_where_there_is_no_judge() -> None:
    assert Policy("off").rejects(text(None)) == NO_VERDICT
    assert Policy(judged=False).rejects(text(None)) is None
    assert Policy(judged=False).rejects(text(None, fits=False)) == "too long"


def test_decisions_are_written_into_candidates() -> None:
    decided = Policy().decide([text(v) for v in (HARMLESS, HARMFUL, INVENTIVE, None)])
    assert [(c.rejected, c.withheld) for c in decided] == [
        (None, None),
        ("unsafe", "unsafe"),
        ("invented", None),
        (NO_VERDICT, NO_VERDICT),
    ]


def test_where_harm_is_not_judged_every_fact_counts() -> None:
    """A harmful part of the query is a fact like the others then."""
    gory, clean = Policy("off").decide([text(HARMFUL), text(HARMLESS)])
    assert (gory.rejected, gory.withheld) == (None, None)
    assert gory.verdict == HARMFUL.ignoring_harm()
    assert (clean.rejected, clean.problems) == ("fidelity", ["lost: gory"])


def test_removed_parts_of_a_query_are_listed_with_reasons() -> None:
    assert HARMLESS.removed == ["gory (blood)"]
    assert HARMLESS.fidelity == 1.0
    assert HARMLESS.problems == []
    assert Verdict.from_json(HARMLESS.to_json()) == HARMLESS
    assert HARMLESS.ignoring_harm().problems == ["lost: gory"]
    assert HARMLESS.ignoring_harm().removed == []


# Queries


@pytest.mark.parametrize("safety", SAFETIES)
def test_only_a_policy_that_refuses_keeps_queries_out(safety: Safety) -> None:
    typed = [Candidate(BALL, BALL.text, verdict=verdict) for verdict in (HARMLESS, INVENTIVE, HARMFUL, None)]
    found = [Policy(safety).admits(candidate) for candidate in typed]
    assert found == ([None, None, REFUSED, NO_VERDICT] if safety == "refuse" else [None] * 4)


def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'refuse'"):
        Policy("refuze")  # type: ignore[arg-type]


def test_the_table_of_a_recipe_is_the_policy_that_it_describes() -> None:
    table = PolicyTable(safety="refuse", fidelity=0.5, invented="allow")
    assert table.policy() == Policy("refuse", 0.5, "allow")
    assert PolicyTable().policy() == Policy()


# One policy everywhere: a writer adds a dragon to every other text

DRAGONS: dict[str, Any] = {
    "judge": {"name": "dragon"},
    "student": {"llm": {"name": "fabulist"}, "format": "brief", "batch_size": 4},
    "teacher": {"llm": {"name": "fabulist"}, "format": "brief", "batch_size": 4},
    "stage": [
        {
            "kind": "critique",
            "queries": {"source": "q.txt", "take": 2},
            "candidates": 2,
            "rounds": 0,
        },
        *fakes.RECIPE["stage"][:2],
    ],
}


def dragons(place: Path, **policy: str) -> dict[str, dict[str, str | None]]:
    """Run critique, evolution and sampling; return the decision on every text, by stage."""
    Path("q.txt").write_text("red ball\nblue box\ntiny ring\ngreen cross\nwhite star")
    recipe = recipe_with({"fidelity": 1.0, **policy}, **DRAGONS)
    summary = run(recipe, place)
    with Run(place, writable=False) as opened:
        stored = {name: opened.records.candidates(name) for name in ("critique", "evolve", "sample")}
    for name, found in stored.items():
        rejected = sum(candidate.rejected == "invented" for candidate in found)
        assert summary.stages[name]["rejected"].get("invented", 0) == rejected
    written = {name: [c for c in found if c.text != c.query.text] for name, found in stored.items()}
    return {name: {c.text: c.rejected for c in found} for name, found in written.items()}


def reasons(decisions: Mapping[str, str | None]) -> set[tuple[bool, str | None]]:
    """Return all pairs of an invention and a decision."""
    return {("dragon" in words, reason) for words, reason in decisions.items()}


@pytest.mark.usefixtures("policy_components")
def test_an_invention_is_rejected_in_evolution_sampling_and_critique_alike(place: Path) -> None:
    for decisions in dragons(place).values():
        assert reasons(decisions) == {(True, "invented"), (False, None)}
    assert not [words for words in fakes.FakeGenerator.rendered if "dragon" in words]


@pytest.mark.usefixtures("policy_components")
def test_an_invention_is_accepted_everywhere_if_the_policy_allows_it(place: Path) -> None:
    for decisions in dragons(place, invented="allow").values():
        assert reasons(decisions) == {(True, None), (False, None)}
    assert [words for words in fakes.FakeGenerator.rendered if "dragon" in words]


@pytest.mark.usefixtures("policy_components")
def test_a_rewrite_that_invents_is_rejected_by_the_policy_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's only text has a dragon, so the rewriter draws as often as it may, and gives it as a fallback."""
    writer = Writer(Component("llm", "fabulist"), "brief", attempts=2)
    monkeypatch.setattr("promptreel.rewriting.rewriter.writer_for", lambda *named: writer)
    dragon = Component("judge", "dragon")
    for invented, reason in (("reject", "invented"), ("allow", None)):
        policy = recipe_with({"fidelity": 1.0, "invented": invented}, **DRAGONS).policy.policy()
        candidate = Rewriter("fabulist", "tiny", judge=dragon, policy=policy)("red ball")
        assert ("dragon" in candidate.text, candidate.rejected) == (True, reason)
    assert Rewriter("fabulist", "tiny", judge=dragon)("red ball").rejected == "invented"


@pytest.mark.usefixtures("policy_components")
def test_all_stages_of_a_run_ask_one_policy(place: Path) -> None:
    recipe = recipe_with({"invented": "allow", "safety": "refuse"}, **DRAGONS)
    with Run(place) as opened:
        pipeline = Pipeline(recipe, opened)
        policies = {id(pipeline.context(stage.name).resources.policy) for stage in recipe.stage}
        assert policies == {id(pipeline.resources.policy)}
        assert pipeline.resources.policy == recipe.policy.policy()
