"""Draft, verdict, refinement: what fails is refined until it passes or the budget ends."""

from dataclasses import replace

from promptreel.critique import Critique
from promptreel.policy import Policy
from promptreel.types import Candidate, Fact, Pair, Query, Verdict

BALL, BOX = Query("a ball"), Query("a box")


def verdict(*broken: str, unsafe: tuple[str, ...] = ()) -> Verdict:
    return Verdict((Fact("shape ball", "kept"), *(Fact(text, "lost") for text in broken)), unsafe)


def judged(query: Query, text: str, found: Verdict | None, **more: object) -> Candidate:
    """Return a candidate as the default policy decides on it."""
    (decided,) = Policy().decide([replace(Candidate(query, text, verdict=found), **more)])  # type: ignore[arg-type]
    return decided


def test_drafts_that_fail_are_refined_until_they_pass_or_the_budget_ends() -> None:
    work = Critique(rounds=2)
    work.tell(
        {
            "good": judged(BALL, "good", verdict()),
            "bad": judged(BALL, "bad", verdict("colour red", unsafe=("gory",))),
            "worse": judged(BOX, "worse", verdict("size small")),
            "unsure": judged(BOX, "unsure", None),
        }
    )
    assert [draft.text for draft in work.ask().values()] == ["bad", "worse"]
    mended = judged(BALL, "bad, mended", verdict())
    work.tell({"bad": mended, "worse": judged(BOX, "worse again", verdict("size small", "speed"))})
    assert list(work.ask()) == ["worse"]
    work.tell({"worse": judged(BOX, "hopeless", verdict("size small"))})
    assert work.ask() == {}
    assert [candidate.text for candidate in work.accepted()] == ["good", "bad, mended"]
    assert work.refinements() == [Pair(BALL, "bad, mended", "bad", "text_refined", 2.0)]
    texts = [candidate.text for candidate in work.versions()]
    assert texts == ["good", "bad", "bad, mended", "worse", "worse again", "hopeless", "unsure"]


def test_without_rounds_nothing_is_refined() -> None:
    work = Critique(rounds=0)
    work.tell({"bad": judged(BALL, "bad", verdict("colour red"))})
    assert work.ask() == {}
    assert work.refinements() == []


def test_a_text_that_two_drafts_come_to_is_learned_once() -> None:
    work = Critique(rounds=1)
    work.tell({"a": judged(BALL, "same", verdict()), "b": judged(BALL, "bad", verdict("red"))})
    work.tell({"b": judged(BALL, "same", verdict())})
    assert [candidate.text for candidate in work.accepted()] == ["same"]


def test_a_draft_that_is_too_long_or_invents_something_is_refined() -> None:
    work = Critique(rounds=1)
    work.tell(
        {
            "long": judged(BALL, "a ball, at length", verdict(), fits=False),
            "more": judged(BALL, "a ball and a dog", Verdict((), (), ("a dog",))),
        }
    )
    assert [draft.problems for draft in work.ask().values()] == [["too long"], ["invented: a dog"]]


def test_the_widest_pairs_of_a_query_are_kept() -> None:
    work = Critique(rounds=2)
    for versions in (("a", verdict("x")), ("b", verdict("x", "y"))), (("c", verdict()), ("d", verdict())):
        work.tell({f"{n}": judged(BALL, text, found) for n, (text, found) in enumerate(versions)})
    first, second = work.refinements(per_query=None)
    assert [(p.chosen, p.rejected, p.margin) for p in (first, second)] == [("d", "b", 2.0), ("c", "a", 1.0)]
    assert work.refinements(per_query=1) == [first]


def test_a_version_without_a_verdict_or_of_the_same_text_makes_no_pair() -> None:
    work = Critique(rounds=3)
    for text, found in (("a", verdict("x")), ("b", verdict("x")), ("a", verdict())):
        work.tell({"draft": judged(BALL, text, found)})
    assert [(p.chosen, p.rejected) for p in work.refinements(None)] == [("a", "b")]
