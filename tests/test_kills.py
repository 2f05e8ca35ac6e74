"""Killed anywhere, a run goes on to the same result, and at most the batch in hand is paid for twice."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fakes
import pytest
from fakes import recipe

from promptreel import cli, media, recipes, registry
from promptreel.pipeline import run
from promptreel.store import Database
from promptreel.types import Clip, Failure, RenderRequest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
LOG = Path("renders.log")
CRITIQUE = {"kind": "critique", "queries": {"source": "q.txt", "take": 5}, "candidates": 2, "rounds": 2}
UNTRAINED = {"stage": [CRITIQUE, *fakes.RECIPE["stage"]]}
"""Every stage that trains nothing."""
BATCH = fakes.FakeGenerator.batch_size


class Logged(fakes.FakeGenerator):
    """Writes down every clip that it is about to render, where a killed process leaves it."""

    seconds = 0.0

    def render(self, requests: Sequence[RenderRequest]) -> list[Clip | Failure]:
        with LOG.open("a") as log:
            log.writelines(f"{request.clip_id(self.fingerprint)}\n" for request in requests)
        time.sleep(self.seconds)
        return super().render(requests)


@pytest.fixture(autouse=True)
def logged(fake_components: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN["generator"], "fake", "test_kills:Logged")


def child(work: Callable[[], object]) -> int:
    """The process id of a process that does the work and exits with 0."""
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
    """How a process ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def dying(moment: int) -> Callable[[], object]:
    """A run that is killed at one of its moments: before and after it stores, and after it wrote a clip."""
    left = [moment]

    def tick() -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        add, write = Database.add, media.write_lossless

        def add_or_die(*given: Any, **options: Any) -> None:
            tick()
            add(*given, **options)
            tick()

        def write_or_die(*given: Any) -> None:
            write(*given)
            tick()

        Database.add, media.write_lossless = add_or_die, write_or_die  # type: ignore[method-assign]
        run(recipe(**UNTRAINED), "x", Path("run"))

    return work


FURTHEST = {"none": 8, "critique": 12, "evolve": 15, "sample": 16}
"""How many moments a process lives at most after one that died in a stage: too few to end the next stage too."""


def stage_at_work(place: Path) -> str:
    if not (place / "run.db").exists():
        return "none"
    with sqlite3.connect(place / "run.db") as connection:
        try:
            found = connection.execute("SELECT name FROM stages WHERE state = 'running'").fetchone()
        except sqlite3.OperationalError:
            return "none"
    return found[0] if found else "none"


def test_killed_at_any_moment_a_run_ends_as_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join([*fakes.QUERIES, "broken hoop", "slow box"])
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "q.txt").write_text(text)
    monkeypatch.chdir(tmp_path / "whole")
    whole = run(recipe(**UNTRAINED), "x", Path("run"))
    rendered = LOG.read_text().split()
    assert max(Counter(rendered).values()) == 1

    monkeypatch.chdir(tmp_path / "broken")
    chance = random.Random(4)
    hit: Counter[str] = Counter()
    at = "none"
    while ended(child(dying(chance.randrange(5, FURTHEST.get(at, 40))))) == -signal.SIGKILL:
        at = stage_at_work(Path("run"))
        hit[at] += 1
        assert hit.total() < 200
    assert hit.total() >= 10
    assert {stage.name for stage in recipe(**UNTRAINED).stage} <= set(hit), hit
    broken = run(recipe(**UNTRAINED), "x", Path("run"))
    whole.pop("seconds")
    broken.pop("seconds")
    assert broken == whole
    again = LOG.read_text().split()
    assert set(again) == set(rendered)
    assert len(again) - len(rendered) <= hit.total() * BATCH


def interrupted(monkeypatch: pytest.MonkeyPatch, signals: Sequence[int], seconds: float) -> tuple[int, float]:
    """How ``promptreel run`` ends that is sent signals once it renders, and how long that took."""
    monkeypatch.setattr(recipes, "load_recipe", lambda *given: (recipe(), "x"))
    monkeypatch.setattr(sys, "argv", ["promptreel", "run", "fake", "--out", "run", "--json"])
    monkeypatch.setattr(Logged, "seconds", seconds)
    LOG.unlink(missing_ok=True)
    process = child(cli.main)
    while not LOG.exists():
        time.sleep(0.01)
    began = time.monotonic()
    for number in signals:
        os.kill(process, number)
        time.sleep(0.1)
    code = ended(process)
    monkeypatch.setattr(Logged, "seconds", 0.0)
    return code, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_batch_in_hand_end(place: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    whole = run(recipe(), "x", place.with_name("whole"))
    code, _ = interrupted(monkeypatch, [number], 0.5)
    assert code == 130
    stored = len(LOG.read_text().split())
    with sqlite3.connect(place / "run.db") as connection:
        assert connection.execute("SELECT count(*) FROM clips").fetchone() == (stored,)
    broken = run(recipe(), "x", place)
    assert len(LOG.read_text().split()) == len(set(LOG.read_text().split()))
    whole.pop("seconds")
    broken.pop("seconds")
    assert broken == whole


def test_a_second_signal_does_not_wait(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, seconds = interrupted(monkeypatch, [signal.SIGTERM, signal.SIGTERM], 60)
    assert code == 130
    assert seconds < 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_on_real_models_survives_too() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    done = subprocess.run(
        [sys.executable, script, "--small", "--kills", "5", "--per-run", "5"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: 1 of 1" in done.stdout
