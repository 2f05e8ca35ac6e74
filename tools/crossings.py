"""Count of what one evolve stage of the fakes costs in calls between rooms and in database transactions.

    PYTHONPATH=src:tests python tools/crossings.py           # the code at hand
    PYTHONPATH=OLD/src:OLD/tests python tools/crossings.py   # another checkout, in OLD

The stage has one query, one round and one child, and only its execution is counted: the run and its components are
made before. A room is the top-level package or module under ``promptreel``. A crossing is a call of a function of a
room whose nearest caller among promptreel's frames is in another; calls from and into rows 0 and 1 of ARCHITECTURE.md
are free. A generator is called once, however often it is resumed. A transaction writes if it has an INSERT, UPDATE,
DELETE or CREATE, reads if it has only SELECTs, and is empty if nothing was executed in it.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import fakes
from sqlalchemy import Engine, event

import promptreel
from golden_fakes import OLD, registered


def lowest_rows() -> set[str]:
    """Return the rooms of rows 0 and 1, nouns and errors, which everybody uses; also those of old checkouts."""
    block = (Path(__file__).parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]
    rows = dict(re.findall(r"^ *(\d+)  (.*)$", block, re.MULTILINE))
    return {room.strip("/") for row in "01" for room in rows[row].split()} | {"resources"}


FREE = lowest_rows()
"""Rooms that calls from and into are not counted for."""
WRITING = ("INSERT", "UPDATE", "DELETE", "CREATE")


# The only part that knows how a run is driven.


@contextlib.contextmanager
def prepared(directory: Path) -> Iterator[Callable[[], object]]:
    """Yield a function that executes the evolve stage, in a run directory where everything else is ready."""
    from promptreel.pipeline import Pipeline
    from promptreel.store import Run

    recipe = fakes.recipe(evolve={"queries": {"source": "q.txt", "take": 1}, "rounds": 1, "children": 1})
    with registered(), Run(directory) as run:
        pipeline = Pipeline(recipe, run)
        if not OLD:
            _ = pipeline.resources  # the components are made
        yield lambda: pipeline.do("evolve")


# Counting


def room(frame: FrameType) -> str | None:
    """Return the room that a frame's code lies in, or ``None`` outside of promptreel, where fakes are, too."""
    package, _, inside = frame.f_globals.get("__name__", "").partition(".")
    return (inside.partition(".")[0] or "promptreel") if package == "promptreel" and inside != "testing" else None


class Crossings:
    """A profile function that counts calls from one room into another."""

    def __init__(self) -> None:
        self.pairs: Counter[tuple[str, str]] = Counter()
        self.calls: Counter[tuple[str, str, str]] = Counter()
        """The same by function: caller's room, callee's room, callee's qualified name."""
        self._generators: set[FrameType] = set()

    def __call__(self, frame: FrameType, kind: str, argument: object) -> None:
        if kind != "call" or (callee := room(frame)) is None or callee in FREE:
            return
        if frame.f_code.co_flags & (inspect.CO_GENERATOR | inspect.CO_COROUTINE):
            if frame in self._generators:
                return
            self._generators.add(frame)
        above = frame.f_back
        while above is not None and room(above) is None:
            above = above.f_back
        caller = room(above) if above is not None else None
        if caller is None or caller in FREE or caller == callee:
            return
        self.pairs[caller, callee] += 1
        self.calls[caller, callee, frame.f_code.co_qualname] += 1

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count in this thread, and in those that are started, until the block ends."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


class Transactions:
    """Transactions by what was executed in them: ``writing``, ``reading``, ``empty``."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self._open: dict[int, list[str]] = {}

    def _begin(self, connection: Any) -> None:
        self._open[id(connection)] = []

    def _execute(self, connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        verb = statement.split()[0].upper()
        if verb != "BEGIN" and id(connection) in self._open:
            self._open[id(connection)].append(verb)

    def _end(self, connection: Any) -> None:
        verbs = self._open.pop(id(connection), None)
        if verbs is not None:
            writing = any(verb in WRITING for verb in verbs)
            self.kinds["writing" if writing else "reading" if verbs else "empty"] += 1

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count until the block ends."""
        hooks = [
            ("begin", self._begin),
            ("before_cursor_execute", self._execute),
            ("commit", self._end),
            ("rollback", self._end),
        ]
        for name, hook in hooks:
            event.listen(Engine, name, hook)
        try:
            yield
        finally:
            for name, hook in hooks:
                event.remove(Engine, name, hook)


def measure() -> tuple[Crossings, Transactions]:
    """Execute the stage in a fresh run directory and return what was counted."""
    crossings, transactions = Crossings(), Transactions()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(contextlib.chdir(directory))
        Path("q.txt").write_text(fakes.QUERIES[0])
        execute = stack.enter_context(prepared(directory / "run"))
        stack.enter_context(transactions.counting())
        with crossings.counting():
            execute()
    return crossings, transactions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", action="store_true", help="list the functions that are called, too")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args()
    measure()  # imports and caches that last as long as the process are filled
    crossings, transactions = measure()
    kinds = {kind: transactions.kinds[kind] for kind in ("writing", "reading", "empty")}
    if given.json:
        pairs = {f"{caller} -> {callee}": count for (caller, callee), count in crossings.pairs.most_common()}
        print(json.dumps({"crossings": crossings.pairs.total(), "pairs": pairs, "transactions": kinds}, indent=1))
        return
    print(f"code: {Path(promptreel.__file__).parent}")
    print(f"crossings: {crossings.pairs.total()}, distinct pairs: {len(crossings.pairs)}")
    for (caller, callee), count in crossings.pairs.most_common():
        print(f"{count:6}  {caller} -> {callee}")
        for (above, below, name), calls in crossings.calls.most_common() if given.calls else ():
            if (above, below) == (caller, callee):
                print(f"            {calls:4}  {name}")
    print(f"transactions: {sum(kinds.values())} ({', '.join(f'{kind} {count}' for kind, count in kinds.items())})")


if __name__ == "__main__":
    main()
