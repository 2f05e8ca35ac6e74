"""Systems are compared on the queries and the seeds that both have; a missing value is no number."""

import pytest

from promptreel.evaluation import compare
from promptreel.evaluation.evaluate import findings
from promptreel.policy import REFUSED
from promptreel.types import Candidate, Fact, Query, ScoredClip, Verdict

BALL, BOX = Query("a ball"), Query("a box")
FINE = Verdict((Fact("shape ball", "kept"),))


def seen(*values: float | None, query: Query = BALL, verdict: Verdict | None = FINE) -> Candidate:
    """Return a candidate with a clip for each seed; ``None`` is a clip that could not be had."""
    clips = tuple(
        ScoredClip(index, None if value is None else "clip", {} if value is None else {"overall": value})
        for index, value in enumerate(values)
    )
    return Candidate(query, "three words long", verdict=verdict, clips=clips)


def test_missing_rows_and_values_are_left_out_of_comparisons_and_not_zeroed() -> None:
    results = {
        "raw": {BALL: seen(0.2), BOX: seen(0.9, query=BOX)},
        "base": {BALL: seen(0.8), BOX: seen(None, query=BOX)},
        "sft": {BALL: seen(0.9)},
        "canonical": {BALL: seen(1.0), BOX: seen(1.0, query=BOX)},
    }
    found = findings("b", results, ["overall"], "oracle", ["raw", "base"], "canonical", 2)
    made = {(row.a, row.b): (row.win_rate, row.queries) for row in found.comparisons}
    assert made == {("base", "raw"): (1.0, 1), ("sft", "raw"): (1.0, 1), ("sft", "base"): (1.0, 1)}
    assert {(row.benchmark, row.metric, row.judge) for row in found.comparisons} == {("b", "overall", "oracle")}
    means = {row.system: (row.mean, row.queries) for row in found.means if row.metric == "overall"}
    assert means == {"raw": (0.55, 2), "base": (0.8, 1), "sft": (0.9, 1), "canonical": (1.0, 2)}
    unanswered = {row.system: row.mean for row in found.means if row.metric == "unanswered"}
    assert unanswered == {"raw": 0.0, "base": 0.0, "sft": 0.5, "canonical": 0.0}


def test_systems_are_compared_on_the_seeds_that_both_have() -> None:
    """A system whose clip of the hard seed failed has not won by that."""
    results = {"raw": {BALL: seen(0.9, 0.1)}, "base": {BALL: seen(0.9, None)}, "sft": {BALL: seen(None, 0.3)}}
    found = compare.comparisons("b", results, {"base": ["raw"], "sft": ["raw", "base"]}, ["overall"], "oracle")
    assert {(row.a, row.b): row.win_rate for row in found} == {("base", "raw"): 0.5, ("sft", "raw"): 1.0}
    results = {"raw": {BALL: seen(0.2, None)}, "sft": {BALL: seen(0.4, 0.0)}, "top": {BALL: seen(0.8, 0.0)}}
    (gap,) = compare.gap_closed("b", results, "top", "overall")
    assert gap.closed == pytest.approx(1 / 3, abs=1e-4)


def test_the_same_values_by_other_seeds_are_a_tie() -> None:
    results = {"raw": {BALL: seen(0.1, 0.2, 0.3)}, "base": {BALL: seen(0.3, 0.2, 0.1)}}
    (row,) = compare.comparisons("b", results, {"base": ["raw"]}, ["overall"], "oracle")
    assert row.win_rate == 0.5


def test_a_text_that_was_not_rendered_neither_wins_nor_loses() -> None:
    results = {"raw": {BALL: seen(), BOX: seen(0.2, query=BOX)}, "base": {BALL: seen(0.5), BOX: seen(0.5, query=BOX)}}
    (row,) = compare.comparisons("b", results, {"base": ["raw"]}, ["overall"], "oracle")
    assert (row.win_rate, row.queries) == (1.0, 1)


def test_the_gap_closed_is_measured_between_raw_and_the_ceiling() -> None:
    queries = [Query(str(n)) for n in range(40)]
    results = {
        "raw": {q: seen(0.2 + 0.01 * n) for n, q in enumerate(queries)},
        "sft": {q: seen(0.5 + 0.01 * n) for n, q in enumerate(queries)},
        "top": {q: seen(0.8 + 0.01 * n) for n, q in enumerate(queries)},
    }
    (gap,) = compare.gap_closed("b", results, "top", "overall")
    assert gap.system == "sft"
    assert gap.closed == pytest.approx(0.5)
    assert gap.ci95 == pytest.approx([0.5, 0.5])
    assert compare.gap_closed("b", {**results, "top": results["raw"]}, "top", "overall") == ()


def test_every_system_is_compared_with_the_baselines_before_it_and_the_one_before_it() -> None:
    results = {name: {BALL: seen(0.1 * n)} for n, name in enumerate(["raw", "base", "sft", "dpo", "top"])}
    found = findings("b", results, ["overall"], "oracle", ["raw", "base"], "top", 1)
    assert [(row.a, row.b) for row in found.comparisons] == [
        ("base", "raw"), ("sft", "raw"), ("sft", "base"), ("dpo", "raw"), ("dpo", "base"), ("dpo", "sft"),
    ]  # fmt: skip
    assert findings("b", results, ["overall"], "oracle", [], None, 1).gaps == ()


def test_texts_are_measured_whether_they_were_rendered_or_not() -> None:
    """Where no verdict could be had there is none to count."""
    broken = Verdict((Fact("shape ball", "lost"), Fact("red", "kept")), ("gory",))
    results = {"base": {BALL: seen(verdict=broken), BOX: seen(query=BOX, verdict=None)}}
    means = {row.metric: (row.mean, row.queries) for row in compare.means("b", results, ["overall"], 4)}
    assert means == {
        "fidelity": (0.5, 1),
        "aligned": (0.0, 1),
        "unsafe": (1.0, 1),
        "over_limit": (0.0, 2),
        "words": (3.0, 2),
        "unanswered": (0.5, 4),
    }


def test_a_refused_query_is_harmless_and_nothing_else_is_known_of_it() -> None:
    refused = Candidate(BALL, "", rejected=REFUSED)
    assert compare.is_refused(refused)
    assert compare.metric(refused, "unsafe") == 0.0
    assert [compare.metric(refused, name) for name in ("fidelity", "words", "over_limit", "overall")] == [None] * 4
    means = {row.metric: row.mean for row in compare.means("b", {"base": {BALL: refused, BOX: seen(query=BOX)}}, [], 2)}
    assert means["refused"] == 0.5
    assert means["unsafe"] == 0.0
    assert means["words"] == 3.0
    assert means["unanswered"] == 0.5
