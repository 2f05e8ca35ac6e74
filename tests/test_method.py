"""The method on made-up scores: evolution, pair rules, statistics."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from promptreel.execution.scoring import clears, total
from scipy.stats import binomtest

from promptreel.critique import Critique, Draft
from promptreel.errors import RecipeError, UnknownName
from promptreel.evaluation import compare, stats
from promptreel.evaluation.compare import Row
from promptreel.evaluation.evaluate import findings
from promptreel.pairs import check_rule, dominance, gate, margin_floors, merge, rule
from promptreel.search.evolution import Fixed, winners
from promptreel.types import Candidate, Fact, Pair, Query, Verdict

Q = [Query("a ball"), Query("a box")]


def test_evolution_asks_every_query_in_every_round_and_shows_the_best() -> None:
    search = Fixed(Q, rounds=2, children=3, context=2)
    assert search.start() == [(Q[0], "a ball"), (Q[1], "a box")]
    search.tell({query: [Candidate(query.text, 0, 1.0)] for query in Q})
    asks = search.ask()
    assert [(ask.query, ask.children) for ask in asks] == [(Q[0], 3), (Q[1], 3)]
    assert [candidate.text for candidate in asks[0].history] == ["a ball"]
    children = [Candidate("b", 1, 3.0), Candidate("c", 1, 2.0), Candidate("d", 1, None, dropped="fidelity")]
    search.tell({Q[0]: children, Q[1]: []})
    assert [candidate.text for candidate in search.ask()[0].history] == ["b", "c"]
    assert search.mean_best() == pytest.approx((3.0 + 1.0) / 2)
    assert not search.fresh(Q[0], "d")
    assert search.fresh(Q[1], "d")
    search.tell({})
    assert search.ask() == []


def test_a_winner_beats_the_raw_query_by_the_margin_and_clears_the_floors() -> None:
    tried = {
        Q[0]: [
            Candidate("a ball", 0, 1.0),
            Candidate("dim", 1, 5.0, {"x": 0.1}),
            Candidate("good", 1, 2.0, {"x": 0.9}),
        ],
        Q[1]: [Candidate("a box", 0, 1.9), Candidate("close", 1, 2.0, {"x": 0.9})],
    }
    assert {q: c.text for q, c in winners(tried, {"x": 0.5}, 0.5).items()} == {Q[0]: "good"}


def test_a_missing_score_is_never_a_number() -> None:
    assert total({"a": 1.0, "b": None}, {"a": 1.0, "b": 2.0}) is None
    assert total({"a": 1.0}, {"a": 1.0, "b": 2.0}) is None
    assert total({"a": 1.0, "b": 2.0, "c": None}, {"a": 1.0, "b": 2.0}) == 5.0
    assert not clears({"a": None}, {"a": -99})
    assert clears({"a": 0.0}, {"a": 0.0})


def scored(text: str, value: float, **dimensions: float | None) -> Candidate:
    return Candidate(text, 1, value, dimensions)


def test_margin_floors_pairs_the_top_with_what_it_clearly_beats() -> None:
    samples = {Q[0]: [scored("worst", 0.0), scored("best", 3.0), scored("second", 2.5), scored("middle", 1.2)]}
    drops = Counter[str]()
    pairs = margin_floors(samples, drops, floors={})
    assert [(p.chosen, p.rejected, round(p.margin, 1)) for p in pairs] == [
        ("best", "worst", 3.0), ("second", "worst", 2.5), ("best", "middle", 1.8),
    ]  # fmt: skip
    assert len(margin_floors(samples, drops, floors={}, per_query=1)) == 1
    assert not drops


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([scored("a", 1.0)], {}, "one candidate"),
        ([scored("a", 1.0), scored("b", 0.0)], {}, "margin too small"),
        ([scored("a", 9.0, x=0.0), scored("b", 0.0, x=0.0)], {"floors": {"x": 1.0}}, "below a floor"),
        ([scored("word " * 200, 9.0), scored("b", 0.0)], {}, "too long"),
    ],
)
def test_every_query_without_a_pair_is_counted_under_its_reason(rows, options, reason) -> None:
    drops = Counter[str]()
    assert margin_floors({Q[0]: rows}, drops, **{"floors": {}, **options}) == []
    assert drops == {reason: 1}


def test_rules_and_their_options_are_checked() -> None:
    with pytest.raises(UnknownName, match="did you mean 'margin_floors'"):
        rule("margin_floor")
    with pytest.raises(RecipeError, match="did you mean 'margin'"):
        check_rule("margin_floors", {"margn": 1})


outcomes = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60)


@given(outcomes)
def test_win_rates_of_both_sides_sum_to_one_and_intervals_hold_them(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    rate, mirrored = stats.win_rate(a, b), stats.win_rate(b, a)
    assert rate.value + mirrored.value == pytest.approx(1)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1
    assert rate.count == len(pairs)


def test_a_tie_counts_half_and_certainty_still_has_an_interval() -> None:
    assert stats.win_rate([1, 1], [1, 1]).value == 0.5
    sure = stats.win_rate([1.0] * 20, [0.0] * 20)
    assert sure.value == 1.0
    assert 0.8 < sure.low < 0.9  # Clopper and Pearson: 0.832
    assert stats.proportion(0, 1000).high == pytest.approx(0.00368, abs=1e-4)
    for successes in range(21):
        exact = binomtest(successes, 20).proportion_ci(method="exact")
        share = stats.proportion(successes, 20)
        assert (share.low, share.high) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("count", [1, 2, 7, 400])
def test_agreement_alone_is_no_certainty(count: int) -> None:
    """Whether all queries are won, lost or tied; more of them say more."""
    for other in (0.0, 0.5, 1.0):
        rate, more = (stats.win_rate([0.5] * n, [other] * n) for n in (count, 4 * count))
        assert rate.low <= rate.value <= rate.high
        assert 0 < more.high - more.low < rate.high - rate.low


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        outcomes = (rng.random(80) < 0.7).astype(float)
        estimate = stats.win_rate(outcomes, np.full(80, 0.5), seed=trial)
        covered += estimate.low <= 0.7 <= estimate.high
    assert 0.89 <= covered / 200 <= 0.99


def row(value: float | None, fidelity: float | None = 1.0) -> Row:
    return Row("text", {"overall": value}, fidelity, 0.0, 3, 0.0, by_seed=({"overall": value},))


def test_missing_rows_and_values_are_left_out_of_comparisons_not_zeroed() -> None:
    results = {
        "raw": {Q[0]: row(0.2), Q[1]: row(0.9)},
        "base": {Q[0]: row(0.8), Q[1]: row(None)},
        "sft": {Q[0]: row(0.9)},
        "canonical": {Q[0]: row(1.0), Q[1]: row(1.0)},
    }
    found = findings("b", results, ["overall"], "oracle", ["raw", "base"], "canonical", 2)
    made = {(r["a"], r["b"]): (r["win_rate"], r["queries"]) for r in found["comparisons"]}
    assert made == {("base", "raw"): (1.0, 1), ("sft", "raw"): (1.0, 1), ("sft", "base"): (1.0, 1)}
    means = {r["system"]: r["mean"] for r in found["means"] if r["metric"] == "overall"}
    assert means == {"raw": 0.55, "base": 0.8, "sft": 0.9, "canonical": 1.0}


def seen(*values: float | None) -> Row:
    """A row by seed; ``None`` where the clip could not be had."""
    have = [value for value in values if value is not None]
    by_seed = tuple({} if value is None else {"overall": value} for value in values)
    return Row("text", {"overall": sum(have) / len(have)}, 1.0, 0.0, 3, 0.0, by_seed=by_seed)


def test_systems_are_compared_on_the_seeds_that_both_have() -> None:
    """A system whose clip of the hard seed failed has not won by that."""
    results = {"raw": {Q[0]: seen(0.9, 0.1)}, "base": {Q[0]: seen(0.9, None)}, "sft": {Q[0]: seen(None, 0.3)}}
    found = compare.comparisons("b", results, {"base": ["raw"], "sft": ["raw", "base"]}, ["overall"], "oracle")
    assert {(r["a"], r["b"]): r["win_rate"] for r in found} == {("base", "raw"): 0.5, ("sft", "raw"): 1.0}
    results = {"raw": {Q[0]: seen(0.2, None)}, "sft": {Q[0]: seen(0.4, 0.0)}, "top": {Q[0]: seen(0.8, 0.0)}}
    (gap,) = compare.gap_closed("b", results, "top", "overall")
    assert gap["closed"] == pytest.approx(1 / 3, abs=1e-4)


def test_the_same_values_by_other_seeds_are_a_tie() -> None:
    results = {"raw": {Q[0]: seen(0.1, 0.2, 0.3)}, "base": {Q[0]: seen(0.3, 0.2, 0.1)}}
    (row,) = compare.comparisons("b", results, {"base": ["raw"]}, ["overall"], "oracle")
    assert row["win_rate"] == 0.5


def test_the_gap_closed_is_measured_between_raw_and_the_ceiling() -> None:
    queries = [Query(str(n)) for n in range(40)]
    results = {
        "raw": {q: row(0.2 + 0.01 * n) for n, q in enumerate(queries)},
        "sft": {q: row(0.5 + 0.01 * n) for n, q in enumerate(queries)},
        "top": {q: row(0.8 + 0.01 * n) for n, q in enumerate(queries)},
    }
    (gap,) = compare.gap_closed("b", results, "top", "overall")
    assert gap["system"] == "sft"
    assert gap["closed"] == pytest.approx(0.5)
    assert gap["ci95"] == pytest.approx([0.5, 0.5])


def verdict(*broken: str, unsafe: tuple[str, ...] = ()) -> Verdict:
    return Verdict((Fact("shape ball", "kept"), *(Fact(text, "lost") for text in broken)), unsafe)


def test_critique_refines_what_fails_until_it_passes_or_the_budget_ends() -> None:
    work = Critique(rounds=2)
    good, bad, worse, unsure = ((Q[0], "good"), (Q[0], "bad"), (Q[1], "worse"), (Q[1], "unsure"))
    work.tell(
        {
            good: Draft("good", verdict()),
            bad: Draft("bad", verdict("colour red", unsafe=("gory",))),
            worse: Draft("worse", verdict("size small")),
            unsure: Draft("unsure", None),
        }
    )
    assert [key for key, _ in work.ask()] == [bad, worse]
    work.tell({bad: Draft("bad, mended", verdict()), worse: Draft("worse again", verdict("size small", "speed"))})
    assert [key for key, _ in work.ask()] == [worse]
    work.tell({worse: Draft("hopeless", verdict("size small"))})
    assert work.ask() == []
    assert work.accepted() == {Q[0]: ["good", "bad, mended"]}
    assert work.refinements() == [Pair(Q[0], "bad, mended", "bad", "text_refined", 2.0)]


def test_harm_is_let_through_only_where_nobody_judges_it() -> None:
    harm = verdict(unsafe=("gory",))
    assert not Critique(1).passes(Draft("gory ball", harm))
    assert Critique(1).passes(Draft("gory ball", harm.ignoring_harm()))
    assert not Critique(1).passes(Draft("a ball, at length", verdict(), too_long=True))
    assert not Critique(1).passes(Draft("a ball and a dog", Verdict((), (), ("a dog",))))


def test_dominance_wants_no_dimension_worse_and_a_gap() -> None:
    a = scored("a", 3.0, x=1.0, y=1.0)
    b = scored("b", 2.0, x=1.0, y=0.0)
    c = scored("c", 1.0, x=2.0, y=0.5)
    near = scored("near", 2.8, x=1.0, y=0.9)
    drops = Counter[str]()
    assert [(p.chosen, p.rejected) for p in dominance({Q[0]: [b, a, c]}, drops, {})] == [("a", "b")]
    assert dominance({Q[0]: [a, c]}, drops, {}) == []
    assert dominance({Q[0]: [a, near]}, drops, {}) == []
    assert drops == {"no dominance": 1, "margin too small": 1}
    assert dominance({Q[0]: [a, c]}, drops, {}, dimensions=["y"])[0].margin == 2.0
    missing = scored("m", 0.0, x=0.0, y=None)
    assert dominance({Q[0]: [a, missing]}, drops, {}) == []


def test_what_the_gate_dropped_loses_against_what_says_most_nearly_the_same() -> None:
    good = [scored("a red ball goes up", 1.0), scored("We see a ball of red", 2.0, x=0.0)]
    bad = [
        Candidate("a red ball goes down", 1, dropped="fidelity"),
        Candidate("We see a bloody ball of red", 1, dropped="unsafe"),
        Candidate("nobody could judge it", 1, dropped="no verdict"),
    ]
    drops = Counter[str]()
    samples = {Q[0]: [*bad, *good], Q[1]: good}
    pairs = gate(samples, drops, {})
    assert [(p.chosen, p.rejected) for p in pairs] == [(g.text, b.text) for g, b in zip(good, bad, strict=False)]
    assert drops == {"nothing dropped": 1}
    assert [p.chosen for p in gate(samples, drops, {"x": 1.0})] == []
    assert drops["nothing passed"] == 2
    assert len(gate(samples, drops, {}, per_query=1)) == 1
    assert gate({Q[0]: [*bad, *bad, *good]}, drops, {}) == pairs  # what is said twice counts once


def test_texts_of_a_critique_make_pairs_by_what_they_say() -> None:
    """Nothing was rendered, so no candidate has a total."""
    passed = [Candidate("a red ball goes up", 0), Candidate("We see a ball of red", 1)]
    bad = [Candidate("a red ball goes down", 0, dropped="fidelity"), Candidate("a dog", 0, dropped="invented")]
    pairs = gate({Q[0]: [*bad, *passed]}, Counter[str](), {}, length=0.4)
    assert [(p.chosen, p.rejected) for p in pairs] == [(passed[0].text, b.text) for b in bad]
    longer = Candidate("We see a red ball that goes down and down and down", 0, dropped="fidelity")
    drops = Counter[str]()
    assert gate({Q[0]: [longer, *passed]}, drops, {}) == []
    assert drops == {"other lengths": 1}
    assert len(gate({Q[0]: [longer, *passed]}, drops, {}, length=0.4)) == 1


def test_options_of_a_rule_are_checked_before_it_has_anything_to_do() -> None:
    check_rule("gate", {"per_query": 2, "length": 1.0}, rendered=False)
    with pytest.raises(
        RecipeError, match="'dominance' compares clips, and a critique renders none: name gate, or the "
    ):
        check_rule("dominance", {}, rendered=False)
    with pytest.raises(RecipeError, match="length is 85, and is a share between 0 and 1"):
        check_rule("gate", {"length": 85})
    with pytest.raises(RecipeError, match="pair rule 'gate': '<=' not supported"):
        check_rule("gate", {"length": "0.85"})


def test_a_query_with_a_text_pair_drops_its_video_pair_unless_told_otherwise() -> None:
    text = [Pair(Q[0], "a", "b", "text_refined", 1.0)]
    video = [Pair(Q[0], "c", "d", "dominance", 1.0), Pair(Q[1], "e", "f", "dominance", 1.0)]
    assert merge([text, video], exclusive=True) == [text[0], video[1]]
    assert merge([text, video], exclusive=False) == [*text, *video]
    flagged = [Pair(Query(Q[0].text, options=(("motion", "3"),)), "c", "d", "dominance", 1.0)]
    assert merge([text, flagged], exclusive=True) == text
