"""The ledger of a run: batches are planned from it, and not from what other runs have stored."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from promptreel.store import Database, Records
from promptreel.store.content import Completions, Content
from promptreel.store.ledger import Batch, Ledger
from promptreel.types import Completion


@dataclass
class Kind:
    """A kind of work that the ledger plans."""

    kind: str = "complete"
    content: type[Content] = Completions
    fingerprint: str = "llm"
    size: int = 2


KIND = Kind()


@pytest.fixture
def database() -> Iterator[Database]:
    with closing(Database("sqlite://")) as opened:
        yield opened


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, "one")


def batches(found: Sequence[Batch]) -> list[str]:
    """Return batches as ``number part: ids``."""
    return [f"{batch.number}{batch.part and '/' + batch.part}: {' '.join(batch.ids)}" for batch in found]


def results(ids: Sequence[str], by: str = "llm") -> list[Completion]:
    return [Completion(f"{key} by {by}", 1, 1, 0.5) for key in ids]


def do(ledger: Ledger, step: str, ids: str, only: int | None = None, kind: Kind = KIND) -> dict[str, Any]:
    """Plan a step, and store the results of the first so many batches that are left."""
    plan = ledger.plan(step, kind, ids.split())
    for batch in plan.left[:only]:
        ledger.commit(plan, batch, batch.ids, results(batch.ids, ledger.run))
    return plan.known


def left(ledger: Ledger, step: str, ids: str, kind: Kind = KIND) -> list[str]:
    return batches(ledger.plan(step, kind, ids.split()).left)


def test_items_are_planned_in_order_each_once(ledger: Ledger) -> None:
    assert left(ledger, "s", "a b a c d e") == ["0: a b", "1: c d", "2: e"]


def test_a_plan_is_written_with_its_first_result(ledger: Ledger) -> None:
    """A step that was killed before has planned nothing; one killed later finds its batches as they were."""
    do(ledger, "s", "a b c", only=0)
    assert left(ledger, "s", "b c a") == ["0: b c", "1: a"]
    do(ledger, "s", "a b c", only=1)
    assert left(ledger, "s", "c b a") == ["1: c"]
    assert left(ledger, "s", "d c") == ["1: c", "2: d"]


def test_the_size_of_a_batch_may_change_for_new_items_alone(ledger: Ledger) -> None:
    do(ledger, "s", "a b c", only=1)
    assert left(ledger, "s", "a b c d e f", Kind(size=3)) == ["1: c", "2: d e f"]


def test_an_item_belongs_to_the_step_that_planned_it(ledger: Ledger) -> None:
    do(ledger, "first", "a b")
    known = do(ledger, "second", "b c a d")
    assert left(ledger, "third", "a b c d e") == ["0: e"]
    assert known["b"].text == "b by one"
    assert left(ledger, "first", "a b") == []


def test_kinds_of_work_are_planned_apart(ledger: Ledger) -> None:
    do(ledger, "s", "a b")
    assert ledger.plan("s", Kind("complete again"), ["a", "b"]).left == []  # known by their ids all the same
    assert batches(ledger.plan("s", Kind("complete again"), ["a", "b"]).batches) == ["0: a b"]


def test_an_item_that_a_stopped_step_has_no_result_of_goes_over_to_the_next(ledger: Ledger) -> None:
    do(ledger, "first", "a b c d e", only=1)
    assert left(ledger, "second", "c e f") == ["0: c e", "1: f"]
    do(ledger, "second", "c e f")
    assert left(ledger, "first", "a b c d e") == ["1: d"]


def test_a_batch_with_one_missing_result_is_done_whole_and_keeps_the_first_results(ledger: Ledger) -> None:
    do(Ledger(ledger.database, "other"), "s", "b")
    assert left(ledger, "s", "a b c") == ["0: a b", "1: c"]
    known = do(ledger, "s", "a b c")
    assert [known[key].text for key in "abc"] == ["a by one", "b by other", "c by one"]
    assert do(ledger, "s", "a b c") == known


def test_a_batch_that_another_run_has_stored_whole_is_found_and_paid_for_by_that_run(database: Database) -> None:
    one, two = Records(database, "one"), Records(database, "two")
    do(one.ledger, "evolve", "a b c d")
    assert left(two.ledger, "evolve/1", "a b x") == ["1: x"]
    do(two.ledger, "evolve/1", "a b x")
    assert one.usage("evolve")["cost"] == 2.0
    assert two.usage("evolve")["cost"] == 0.5
    assert two.usage("evolve/1")["cost"] == 0.5
    assert two.usage("evol")["cost"] == 0.0


def test_a_plan_in_which_everything_was_found_is_written_all_the_same(database: Database) -> None:
    do(Ledger(database, "one"), "s", "a b")
    two = Ledger(database, "two")
    plan = two.plan("s", KIND, ["a", "b"])
    assert plan.left == []
    two.commit(plan)
    assert two.plan("s", KIND, ["b", "a"]).unwritten == ()
    two.commit(plan)  # again, which does nothing


def test_batches_do_not_depend_on_what_another_run_has_stored(database: Database) -> None:
    one, two = Ledger(database, "one"), Ledger(database, "two")
    alone = left(one, "s", "a b c d e")
    do(two, "s", "b c d")
    assert batches(one.plan("s", KIND, list("abcde")).batches) == alone
    assert left(one, "s", "a b c d e") == ["0: a b", "2: e"]  # the other batch was found


def test_a_batch_that_was_halved_is_left_in_its_parts(ledger: Ledger) -> None:
    kind = Kind(size=5)
    plan = ledger.plan("s", kind, list("abcde"))
    (whole,) = plan.left
    first, second = whole.halves
    assert batches([first, second, *second.halves]) == ["0/0: a b", "0/1: c d e", "0/10: c", "0/11: d e"]
    ledger.commit(plan, first, first.ids, results(first.ids), {whole: "memory"})
    assert left(ledger, "s", "a b c d e", kind) == ["0/1: c d e"]
    part = second.halves[1]
    ledger.commit(plan, part, part.ids, results(part.ids), {second: "memory"})
    assert left(ledger, "s", "a b c d e", kind) == ["0/10: c"]
