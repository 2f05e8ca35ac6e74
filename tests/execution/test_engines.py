"""Engines give the results of every batch, wherever it ran, and whatever became of the process that it ran in."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import odd_workers as work
import pytest

from promptreel import registry
from promptreel.errors import MissingExtra, RenderError, RunError, UserError
from promptreel.execution.local_engine import LocalEngine
from promptreel.execution.process_engine import ProcessEngine
from promptreel.execution.workers import llm_worker
from promptreel.jobs import Job
from promptreel.protocols import Engine
from promptreel.types import Component, SamplingParams


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessEngine]:
    """Two processes for all tests that leave them as they were: each takes a second to start."""
    engine = ProcessEngine(workers=2)
    yield engine
    engine.close()


@pytest.fixture(params=["local", "processes"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return LocalEngine() if request.param == "local" else request.getfixturevalue("pool")


def results(engine: Engine, *jobs: Job) -> list[list[Any]]:
    """Return the results of all batches, job by job and in order."""
    found = {(jobs.index(f.job), f.number): f.results for f in engine.finished(*jobs)}
    return [found[key] for key in sorted(found)]


# The contract


def test_every_batch_of_every_job_gives_its_results(engine: Engine) -> None:
    first = engine.submit(work.naming, {"name": "a"}, [[1, 2], [3]])
    second = engine.submit(work.naming, {"name": "b"}, [[4]])
    found = results(engine, second, first)
    assert [[item[:2] for item in batch] for batch in found] == [[("b", 4)], [("a", 1), ("a", 2)], [("a", 3)]]
    assert not first.open
    assert not second.open
    assert list(engine.finished(first)) == []


def test_a_worker_is_kept_for_later_jobs(engine: Engine) -> None:
    for _ in range(3):
        job = engine.submit(work.naming, {"name": "kept"}, [[1], [2], [3], [4]])
        assert {built for batch in results(engine, job) for _, _, built in batch} == {1}


def test_an_error_comes_back_with_its_batch_and_the_others_have_results(engine: Engine) -> None:
    job = engine.submit(work.failing, {}, [["memory"], ["fine"], ["extra"], ["value"], ["odd"]])
    found = {finished.number: finished for finished in engine.finished(job)}
    assert found[1].results == ["fine"]
    memory, extra, value, odd = (found[number].error for number in (0, 2, 3, 4))
    assert isinstance(memory, RenderError)
    assert (str(memory), memory.reason) == ("no room", "memory")
    assert isinstance(extra, MissingExtra)
    assert str(extra) == str(MissingExtra("the moon", "cheese"))
    assert isinstance(value, ValueError)
    assert "strange 7" in str(odd)


def test_a_cancelled_job_gives_the_batches_that_were_begun(engine: Engine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = {"log": str(log), "seconds": 0.2}
    job = engine.submit(work.sleeping, options, [[number] for number in range(8)])
    done = [next(engine.finished(job)).number]
    engine.cancel(job)
    done += [finished.number for finished in engine.finished(job)]
    begun = [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("begin")]
    assert sorted(done) == sorted(begun)
    assert len(done) < 8


def test_an_engine_that_released_its_workers_builds_others(engine: Engine) -> None:
    work.BUILT.clear()
    for _ in range(2):
        assert results(engine, engine.submit(work.naming, {"name": "released"}, [[1]]))
        engine.release()
    assert work.BUILT["released"] in (0, 2)  # in this process, or in others


# In one process


def test_the_local_engine_keeps_the_workers_used_last() -> None:
    built: list[str] = []

    def factory(name: str) -> Any:
        built.append(name)
        return lambda batch: [f"{name}{item}" for item in batch]

    engine = LocalEngine(resident=2)
    assert results(engine, engine.submit(factory, {"name": "a"}, [[1, 2], [3]])) == [["a1", "a2"], ["a3"]]
    for name in "abac":
        results(engine, engine.submit(factory, {"name": name}, [[1]]))
    assert built == ["a", "b", "c"]
    results(engine, engine.submit(factory, {"name": "b"}, [[1]]))
    assert built == ["a", "b", "c", "b"]


@pytest.mark.parametrize(("engine", "option"), [(LocalEngine, "resident"), (ProcessEngine, "workers")])
def test_an_engine_without_workers_is_refused(engine: type, option: str) -> None:
    with pytest.raises(UserError, match=f"{option} is 0"):
        engine(**{option: 0})


# In several processes


def test_batches_run_in_other_processes_at_the_same_time(pool: ProcessEngine, tmp_path: Path) -> None:
    options = {"log": str(tmp_path / "log"), "seconds": 0.3}
    results(pool, pool.submit(work.living_in, {}, [[1], [2]]))  # both processes are there
    results(pool, pool.submit(work.sleeping, options, [[1], [2]]))
    said = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert said == ["begin", "begin", "end", "end"]


def test_a_process_that_dies_is_replaced_and_its_batch_done_again(pool: ProcessEngine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = pool.submit(work.mortal, {"log": str(log), "deaths": 1}, [["a"], ["death"], ["b"]])
    assert results(pool, job) == [["a done"], ["death done"], ["b done"]]
    assert sorted(log.read_text().split()) == ["a", "b", "death", "death"]


def test_a_batch_at_which_two_processes_die_is_an_error_in_one_line(pool: ProcessEngine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = pool.submit(work.mortal, {"log": str(log), "deaths": 9}, [["death"], ["a"]])
    found = {finished.number: finished for finished in pool.finished(job)}
    assert found[1].results == ["a done"]
    assert isinstance(found[0].error, RunError)
    assert str(found[0].error).startswith("a worker process died 2 times at the same batch, perhaps for want of memory")
    assert "\n" not in str(found[0].error)
    assert log.read_text().split().count("death") == 2
    assert results(pool, pool.submit(work.naming, {"name": "after"}, [[1]]))


def test_a_process_that_is_killed_while_it_waits_costs_nothing(pool: ProcessEngine) -> None:
    ids = {i for batch in results(pool, pool.submit(work.living_in, {}, [[n] for n in range(6)])) for i in batch}
    for process in ids:
        os.kill(process, signal.SIGKILL)
    (again,) = results(pool, pool.submit(work.living_in, {}, [[1]]))
    assert not ids & set(again)


def test_signals_are_left_to_the_parent_process(pool: ProcessEngine, tmp_path: Path) -> None:
    """A terminal and a cluster's scheduler send them to all processes."""
    log = tmp_path / "log"
    ids = {i for batch in results(pool, pool.submit(work.living_in, {}, [[n] for n in range(6)])) for i in batch}
    job = pool.submit(work.sleeping, {"log": str(log), "seconds": 0.5}, [["a"], ["b"]])
    while not log.exists():
        time.sleep(0.01)
    for process in ids:
        os.kill(process, signal.SIGINT)
        os.kill(process, signal.SIGTERM)
    assert results(pool, job) == [["a"], ["b"]]
    assert log.read_text().count("begin") == 2


FAKE_TORCH = """
_threads = 64

def set_num_threads(number):
    global _threads
    _threads = number

def get_num_threads():
    return _threads
"""


def test_worker_processes_have_the_threads_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text(FAKE_TORCH)  # the real one takes seconds to import
    monkeypatch.syspath_prepend(str(tmp_path))
    engine = ProcessEngine(workers=1, threads=3)
    assert results(engine, engine.submit(work.threads, {}, [[1]])) == [[3]]
    engine.close()


def test_worker_processes_take_turns_at_the_devices_that_are_named(tmp_path: Path) -> None:
    engine = ProcessEngine(workers=2, devices=["7", 5])
    job = engine.submit(work.devices, {}, [[n] for n in range(2)])
    assert sorted(device for batch in results(engine, job) for device in batch) == ["5", "7"]
    engine.close()


SCRIPT = """
from promptreel.execution.process_engine import ProcessEngine
from odd_workers import naming

engine = ProcessEngine(workers=1)
list(engine.finished(engine.submit(naming, {"name": "a"}, [[1]])))
"""


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode
    assert 'in a script, call promptreel under  if __name__ == "__main__":' in done.stderr


def test_batches_that_are_open_when_processes_are_released_are_an_error(pool: ProcessEngine) -> None:
    job = pool.submit(work.naming, {"name": "a"}, [[n] for n in range(9)])
    pool.release()
    with pytest.raises(RunError, match="the engine was released while batches were open"):
        list(pool.finished(job))


def test_worker_processes_know_the_components_that_were_registered() -> None:
    """Those behind a server are asked from this process instead, where one rate limiter holds for all."""
    registry.register("llm", "here", "odd_workers:HereLLM")
    registry.register("llm", "remote", "odd_workers:RemoteLLM")
    engine = ProcessEngine(workers=1)
    asked = [([{"role": "user", "content": "hello"}], SamplingParams())]
    jobs = [engine.submit(llm_worker, {"llm": Component("llm", name)}, [asked] * 2) for name in ("here", "remote")]
    elsewhere, here = ({c.text for batch in results(engine, job) for c in batch} for job in jobs)
    assert here == {str(os.getpid())}
    assert elsewhere.isdisjoint(here)
    engine.close()


def test_a_component_with_a_remote_part_is_remote_too() -> None:
    registry.register("llm", "remote", "odd_workers:RemoteLLM")
    from promptreel.execution.process_engine import _is_remote

    judge = Component("judge", "llm", {"llm": {"name": "remote"}})
    assert _is_remote({"judge": judge})
    assert not _is_remote({"judge": Component("judge", "fake"), "clips": "somewhere"})
