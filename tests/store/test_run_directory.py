"""A run directory: one process works on it, models appear complete or not at all, and looking at it changes nothing."""

import json
import os
import signal
from pathlib import Path

import pytest

from promptreel.errors import RunError, UserError
from promptreel.store import Run
from promptreel.store.run import holds_other_things
from promptreel.types import StageRecord

DONE = StageRecord("evolve", "evolve", "done", 1.5, {"rounds": 2})


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file of a directory, but for the index that readers and writers of a database share in memory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.endswith("-shm")
    }


def test_a_second_process_is_told_to_wait_and_may_look(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.records.put_stage(DONE)
        with pytest.raises(RunError, match="another process works on"):
            Run(tmp_path)
        with Run(tmp_path, writable=False) as seen:
            assert seen.records.stage("evolve") == DONE
    Run(tmp_path).close()


def test_a_run_keeps_its_name_in_the_database(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        with Run(tmp_path / "a") as run:
            names.append(run.records.run)
    with Run(tmp_path / "b") as other:
        assert len({*names, other.records.run}) == 2


def test_a_model_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with Run(tmp_path) as run:

        def die_halfway() -> None:
            with run.publishing("sft") as out:
                (out / "half").write_text("x")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            die_halfway()
        assert not run.model("sft").exists()
        assert not run.has_model("sft")
        with run.publishing("sft") as out:
            assert not (out / "half").exists()
            (out / "config.json").write_text("{}")
            (out / "training_args.bin").write_bytes(b"pickle")
        assert sorted(path.name for path in run.model("sft").iterdir()) == ["config.json", "manifest.json"]
        assert run.has_model("sft")
        (run.model("sft") / "config.json").write_text("{} ")
        assert not run.has_model("sft")


def test_a_directory_without_a_run_is_not_made_one_by_looking(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run; begin one with  promptreel run RECIPE --out"):
        Run(tmp_path / "nothing", writable=False)
    assert not list(tmp_path.iterdir())


def test_looking_at_a_run_changes_no_file(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.records.put_stage(DONE)
        run.write_recipe("name = 'x'", {"name": "x"})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with Run(tmp_path, writable=False) as seen:
        assert seen.records.stages() == {"evolve": DONE}
        assert seen.recipe() == {"name": "x"}
        assert seen.recipe_text() == "name = 'x'"
        assert seen.summary() is None
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_in_a_folder_that_nobody_may_write_can_be_looked_at(tmp_path: Path) -> None:
    with Run(tmp_path / "run") as run:
        run.records.put_stage(DONE)
    (tmp_path / "run").chmod(0o500)
    try:
        with Run(tmp_path / "run", writable=False) as seen:
            assert seen.records.stages() == {"evolve": DONE}
    finally:
        (tmp_path / "run").chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_looking_at_a_killed_run_changes_no_file(tmp_path: Path) -> None:
    """What it stored last is in the log beside the database, and is seen."""
    process = os.fork()
    if process == 0:
        Run(tmp_path).records.put_stage(DONE)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(process, 0)
    before = contents(tmp_path)
    assert len(before["run.db-wal"]) > 0
    with Run(tmp_path, writable=False) as seen:
        assert seen.records.stages() == {"evolve": DONE}
    assert contents(tmp_path) == before


def test_a_run_that_is_looked_at_cannot_be_written(tmp_path: Path) -> None:
    Run(tmp_path).close()

    def write() -> None:
        with Run(tmp_path, writable=False) as seen:
            seen.records.put_stage(DONE)

    with pytest.raises(RunError, match="readonly"):
        write()


@pytest.mark.parametrize(
    ("names", "others"),
    [
        ([], False),
        (["run.lock"], False),
        (["run.lock", "run.id", "recipe.toml"], False),
        (["run.db", "notes.txt"], False),
        (["notes.txt"], True),
        (["clips", "models"], False),
        (["clips", "thesis.tex"], True),
    ],
)
def test_a_directory_of_other_things_is_told_from_one_of_a_run(tmp_path: Path, names: list[str], others: bool) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert holds_other_things(tmp_path) == others
    assert not holds_other_things(tmp_path / "new")


def test_a_run_in_a_shared_database_needs_none_of_its_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    with Run(tmp_path / "a", database=url) as run:
        run.records.put_stage(DONE)
        assert run.clips.url == str(tmp_path / "clips")
    with Run(tmp_path / "b", database=url) as other:
        assert other.records.stages() == {}
    assert not list(tmp_path.glob("*/run.db"))
    with pytest.raises(UserError, match="name a clip store for its runs, too"):
        Run(tmp_path / "c", database="sqlite://")


def test_a_summary_that_a_run_wrote_is_read_back(tmp_path: Path) -> None:
    from promptreel.store import BenchmarkSize, Comparison, Gap, Mean, Summary

    summary = Summary(
        recipe="x",
        finished=True,
        systems=("raw", "base"),
        ceiling="top",
        benchmarks={"b": BenchmarkSize(queries=3, clips_per_prompt=2, not_rendered={"raw": 1}, left_out={"again": 1})},
        comparisons=(
            Comparison(
                benchmark="b", a="base", b="raw", metric="m", judge="j", win_rate=0.5, ci95=(0.1, 0.9), queries=3
            ),
        ),
        means=(Mean(benchmark="b", system="raw", metric="m", mean=0.25, ci95=(0.0, 0.5), queries=3),),
        gaps=(Gap(benchmark="b", system="base", metric="m", closed=0.5, ci95=(0.25, 0.75)),),
        stages={"evolve": {"best_by_round": [0.1, 0.2]}},
        renders={"evolve": 3},
        seconds={"evolve": 1.5},
        failures={"render": 1},
    )
    with Run(tmp_path) as run:
        run.write_summary(summary)
        assert run.summary() == summary
    keys = "benchmarks comparisons means gaps recipe finished systems ceiling stages renders seconds failures"
    assert list(json.loads((tmp_path / "summary.json").read_text())) == keys.split()
