"""Killed anywhere, a run goes on to the same result, and at most the batches at work are paid for twice."""

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fakes
import pytest
from recipe_files import write_recipe

from promptreel import cli, registry
from promptreel.config import Recipe, parse_recipe
from promptreel.media import ClipStore
from promptreel.pipeline import run
from promptreel.store import Database, Summary
from promptreel.testing import register_fakes

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here"),
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]
LOG, PAUSE, WORKERS = Path("renders.log"), Path("pause"), Path("workers.log")
BATCH = fakes.FakeGenerator.batch_size
QUERIES = "\n".join([*fakes.QUERIES, "broken hoop", "slow box"])
CRITIQUE = {"kind": "critique", "queries": {"source": "q.txt", "take": 5}, "candidates": 2, "rounds": 2}
LOGGED = {"name": "logged"}
PROCESSES = {"name": "processes", "workers": 2}


@pytest.fixture(autouse=True)
def logged(fake_components: None) -> None:
    register_fakes()
    registry.register("generator", "logged", "odd_workers:LoggedGenerator")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes a directory with queries the current one."""

    def enter(name: str) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "q.txt").write_text(QUERIES)
        monkeypatch.chdir(tmp_path / name)

    return enter


def untrained(**changes: Any) -> Recipe:
    """Return a recipe with every stage that trains nothing."""
    return parse_recipe(
        {**fakes.RECIPE, "generator": LOGGED, "stage": [CRITIQUE, *fakes.RECIPE["stage"]], "threads": None, **changes}
    )


def values(summary: Summary) -> dict[str, Any]:
    return {key: value for key, value in summary.to_json().items() if key != "seconds"}


def child(work: Callable[[], object]) -> int:
    """Return the id of a process that does the work and exits with 0."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os._exit(code)
    return process


def ended(process: int) -> int:
    """Return the exit code of a process, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def dying(moment: int, work: Callable[[], object]) -> Callable[[], object]:
    """Return work that is killed at one of its moments.

    These are before, in and after each transaction that writes, and after each clip that this process writes. Worker
    processes that the work has started by then are noted.
    """
    left = [moment]

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            WORKERS.write_text(" ".join(str(process.pid) for process in multiprocessing.active_children()))
            os.kill(os.getpid(), signal.SIGKILL)

    def until_dead() -> None:
        writing, write = Database.writing, ClipStore.write

        @contextmanager
        def writing_or_die(self: Database) -> Iterator[Any]:
            tick()
            with writing(self) as connection:
                yield connection
                tick()
            tick()

        def write_or_die(*given: Any) -> None:
            write(*given)
            tick()

        Database.writing, ClipStore.write = writing_or_die, write_or_die  # type: ignore[method-assign,assignment]
        work()

    return until_dead


def stage_at_work(place: Path) -> str:
    if not (place / "run.db").exists():
        return "none"
    with sqlite3.connect(place / "run.db") as connection:
        try:
            found = connection.execute("SELECT name FROM stages WHERE state = 'running'").fetchone()
        except sqlite3.OperationalError:
            return "none"
    return found[0] if found else "none"


def survives(moments: Iterator[int], go: Callable[[], Summary], least: int, most: int = 200) -> tuple[Summary, Counter]:
    """Kill a run at these moments of its sittings until it ends; return its summary, and kills by stage."""
    hit: Counter[str] = Counter()
    while ended(child(dying(next(moments), go))) == -signal.SIGKILL:
        for worker in WORKERS.read_text().split():
            gone(int(worker))
        hit[stage_at_work(Path("run"))] += 1
        assert hit.total() < most
    assert hit.total() >= least
    return go(), hit


def at_random(least: int, most: int) -> Iterator[int]:
    chance = random.Random(4)
    while True:
        yield chance.randrange(least, most)


def gone(process: int) -> None:
    """Wait for the end of a process that is no child of this one."""
    for _ in range(1000):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{process}/stat").exists() and " Z " in Path(f"/proc/{process}/stat").read_text():
            return
        time.sleep(0.01)
    raise AssertionError(f"process {process} outlives its parent")


LIVES = {"none": (3, 5), "critique": (5, 22), "evolve": (5, 22), "sample": (5, 9)}
"""Moments, from and up to, that a process lives after one that died in a stage, or between two: enough to store
something, and too few to end the next stage too."""


def test_killed_at_any_moment_a_run_ends_as_an_unbroken_one(home: Callable[[str], None]) -> None:
    home("whole")
    whole = run(untrained(), Path("run"))
    rendered = LOG.read_text().split()
    assert max(Counter(rendered).values()) == 1

    home("broken")
    chance = random.Random(4)

    def moments() -> Iterator[int]:
        while True:
            yield chance.randrange(*LIVES.get(stage_at_work(Path("run")), (5, 60)))

    broken, hit = survives(moments(), lambda: run(untrained(), Path("run")), 10)
    assert {stage.name for stage in untrained().stage} <= set(hit), hit
    assert values(broken) == values(whole)
    again = LOG.read_text().split()
    assert set(again) == set(rendered)
    assert len(again) - len(rendered) <= hit.total() * BATCH


def killed_with_processes(home: Callable[[str], None], moments: Iterator[int], least: int) -> None:
    """Kill a run that works in two processes at these moments, and compare it with an unbroken one in this process."""
    home("whole")
    whole = run(untrained(), Path("run"))
    rendered = LOG.read_text().split()
    home("broken")
    broken, hit = survives(moments, lambda: run(untrained(engine=PROCESSES), Path("run")), least)
    assert values(broken) == values(whole)
    again = LOG.read_text().split()
    assert set(again) == set(rendered)
    assert len(again) - len(rendered) <= hit.total() * 2 * BATCH


def test_killed_while_two_processes_work_a_run_ends_as_an_unbroken_one(home: Callable[[str], None]) -> None:
    """The worker processes end with it, and at most their two batches are done again."""
    killed_with_processes(home, iter([40, 25, 999]), 2)


@pytest.mark.slow
def test_killed_often_while_two_processes_work_a_run_ends_as_an_unbroken_one(home: Callable[[str], None]) -> None:
    killed_with_processes(home, at_random(5, 30), 8)


def test_killed_beside_another_run_in_its_database_a_run_ends_as_an_unbroken_one(
    home: Callable[[str], None], tmp_path: Path
) -> None:
    """The other run has stored some of what it asks for; no clip is rendered for it that both stored whole."""
    first = untrained()
    stages = [CRITIQUE, {**fakes.RECIPE["stage"][0], "queries": {"source": "q.txt", "take": 4}}]
    second = untrained(stage=[*stages, *fakes.RECIPE["stage"][1:]])

    def go(recipe: Recipe, name: str) -> Summary:
        return run(recipe, Path(name), database=f"sqlite:///{Path('shared.db').absolute()}")

    logs, found = [], []
    for place in ("whole", "broken"):
        home(place)
        go(first, "first")
        LOG.unlink()
        if place == "whole":
            found.append(go(second, "run"))
        else:
            summary, hit = survives(at_random(5, 40), lambda: go(second, "run"), 5)
            found.append(summary)
        logs.append(LOG.read_text().split())
    whole, broken = map(values, found)
    assert broken == whole
    rendered, again = logs
    assert max(Counter(rendered).values()) == 1
    assert set(again) == set(rendered)
    assert len(again) - len(rendered) <= hit.total() * BATCH


def test_a_worker_process_that_dies_costs_a_run_nothing(home: Callable[[str], None]) -> None:
    home("whole")
    whole = run(untrained(), Path("run"))
    home("broken")
    registry.register("generator", "logged", "odd_workers:MortalGenerator")
    assert values(run(untrained(engine=PROCESSES), Path("run"))) == values(whole)
    assert not multiprocessing.active_children()


# Signals

COMMAND = ["promptreel", "run", "mine.toml", "--out", "run", "--json"]


def interrupted(signals: Sequence[int], seconds: float) -> tuple[int, float]:
    """Return the exit code of ``promptreel run`` that is sent signals while it renders, and how long it took to end.

    Each batch takes so many seconds.
    """
    PAUSE.write_text(str(seconds))
    process = child(cli.main)
    while not LOG.exists():
        time.sleep(0.01)
    began = time.monotonic()
    for number in signals:
        os.kill(process, number)
        time.sleep(0.1)
    code, took = ended(process), time.monotonic() - began
    PAUSE.unlink()
    return code, took


def stored() -> set[str]:
    with sqlite3.connect("run/run.db") as connection:
        return {key for (key,) in connection.execute("SELECT id FROM clips")}


@pytest.mark.parametrize("engine", [{"name": "local"}, PROCESSES], ids=["local", "processes"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_batches_at_work_end(
    home: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, number: int, engine: dict[str, Any]
) -> None:
    monkeypatch.setattr(sys, "argv", COMMAND)
    evolve = {**fakes.RECIPE["stage"][0], "queries": {"source": "q.txt", "take": 6}, "clips_per_prompt": 2}
    home("whole")
    write_recipe(Path("mine.toml"), generator=LOGGED, stage=[evolve])
    whole = run("mine.toml", "run")
    home("broken")
    write_recipe(Path("mine.toml"), generator=LOGGED, stage=[evolve], engine=engine)
    code, _ = interrupted([number], 0.5)
    assert code == 130
    assert stored() == set(LOG.read_text().split())
    assert len(stored()) == engine.get("workers", 1) * BATCH
    broken = run("mine.toml", "run")
    assert max(Counter(LOG.read_text().split()).values()) == 1
    assert values(broken) == values(whole)


@pytest.mark.parametrize("engine", [{"name": "local"}, PROCESSES], ids=["local", "processes"])
def test_a_second_signal_does_not_wait(
    home: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, engine: dict[str, Any]
) -> None:
    monkeypatch.setattr(sys, "argv", COMMAND)
    home("broken")
    write_recipe(Path("mine.toml"), generator=LOGGED, engine=engine)
    code, seconds = interrupted([signal.SIGTERM, signal.SIGTERM], 60)
    assert code == 130
    assert seconds < 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_real_models_survives_too() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "kills.py"
    done = subprocess.run(
        [sys.executable, script, "--small", "--kills", "5", "--per-run", "5"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: 1 of 1" in done.stdout
