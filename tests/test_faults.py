"""Faults of disk, database, components, processes and people, made to happen: each has one clear message and costs no
paid result.

``docs/faults.md`` is the table of these faults; ``check_message`` holds it to the messages.
"""

import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
from fakes import recipe
from recipe_files import write_recipe

from promptreel import cli, profiles, registry
from promptreel.config import Recipe, parse_recipe
from promptreel.errors import Interrupted, PromptreelError, RunError, UserError
from promptreel.execution.batches import Progress
from promptreel.media import ClipStore
from promptreel.pipeline import run
from promptreel.preflight.check import environment
from promptreel.report.tables import print_failures
from promptreel.store import Run, Summary, dialect, migrations
from promptreel.training.job import TrainingJob
from promptreel.types import Clip, Failure, Query, RenderRequest, Scores

DOCS = Path(__file__).parents[1] / "docs" / "faults.md"


def table() -> dict[str, str]:
    """Return the messages of the table, by fault."""
    lines = [line.strip("| \n") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    return dict(re.split(r"\s+\|\s+", line)[:2] for line in lines[1:])


def check_message(fault: str, found: str | PromptreelError, **names: object) -> None:
    """Compare a message with the table's, in which the names of this case are put."""
    line = found if isinstance(found, str) else f"error: {found}"
    assert "\n" not in line
    expected = table()[fault].strip("`")
    for name, value in names.items():
        expected = expected.replace(name, str(value))
    assert line == expected


def plain(summary: Summary | dict[str, Any]) -> dict[str, Any]:
    """Return a summary as data, without its times."""
    data = summary.to_json() if isinstance(summary, Summary) else summary
    return {key: value for key, value in data.items() if key != "seconds"}


def stopping(work: str, at: int | None = None) -> Progress:
    """Return a reporter that stops the run at a piece of work, when so many items, or all, are stored."""

    def report(name: str, done: int, total: int) -> None:
        if name == work and done == (total if at is None else at):
            raise Interrupted("stopped on purpose")

    return report


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the summary of an unbroken run."""
    place = tmp_path_factory.mktemp("whole")
    (place / "q.txt").write_text("\n".join(fakes.QUERIES))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for kind, name in fakes.NAMES.items():
            patch.setitem(registry.BUILT_IN[kind], "fake", f"fakes:{name}")
        return plain(run(recipe(), place / "run"))


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file of a run but its lock and the database's side files, and the database's rows."""
    with sqlite3.connect(directory / "run.db") as connection:
        dump = "\n".join(connection.iterdump()).encode()
    files = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("run.")]
    return {"database": dump, **{str(path): path.read_bytes() for path in files}}


def execute(place: Path, *statements: str) -> list[Any]:
    """Execute SQL on the database of a run; return the rows of the last statement."""
    with sqlite3.connect(place / "run.db") as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


# The disk


def test_a_disk_that_is_full_while_a_clip_is_written_stops_the_run(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = Path.write_bytes, [7]

    def full(self: Path, data: bytes) -> int:
        left[0] -= self.name.endswith(".part")
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(RunError) as stopped:
            run(recipe(), place)
    check_message("the disk fills up", stopped.value, RUN=place)
    assert not list(place.rglob("*.part"))
    assert plain(run(recipe(), place)) == whole


def test_a_disk_that_is_full_while_the_database_is_written_stops_the_run(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(), place, until="evolve")
    configure = dialect._configure

    def no_room(connection: sqlite3.Connection, record: object) -> None:
        configure(connection, record)
        connection.execute(f"PRAGMA max_page_count={connection.execute('PRAGMA page_count').fetchone()[0]}")

    with monkeypatch.context() as patch:
        patch.setattr(dialect, "_configure", no_room)
        with pytest.raises(RunError) as stopped:
            run(recipe(), place)
    check_message("the disk fills up", stopped.value, RUN=place)
    assert plain(run(recipe(), place)) == whole


def test_a_disk_that_is_full_while_the_summary_is_written_stops_the_run(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(), place, until="pairs")

    def full(self: Path, *rest: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(RunError) as stopped:
            run(recipe(), place)
    check_message("the disk fills up", stopped.value, RUN=place)
    assert json.loads((place / "summary.json").read_text())["finished"] is False  # as it was
    assert plain(run(recipe(), place)) == whole


@pytest.mark.slow
def test_a_small_disk_that_is_really_full_stops_the_run(place: Path, whole: dict[str, Any]) -> None:
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(RunError, match="is full"):
            run(recipe(), place)
        assert not list(place.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=50m", place], check=True)
        assert plain(run(recipe(), place)) == whole
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_directory_that_cannot_be_written_stops_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: ClipStore, clip: Clip) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self._path(clip.id)))

    monkeypatch.setattr(ClipStore, "write", forbidden)
    with pytest.raises(RunError) as stopped:
        run(recipe(), place)
    line = re.sub(r"\w\w/\w{64}", "CLIP", f"error: {stopped.value}")
    check_message("a file may not be written", line, RUN=place)


# The database


def test_a_database_that_another_program_holds_stops_the_run(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(), place, until="evolve")
    monkeypatch.setattr(dialect, "BUSY_SECONDS", 0)
    holding = sqlite3.connect(place / "run.db", isolation_level=None)
    holding.execute("BEGIN IMMEDIATE")
    with pytest.raises(RunError) as stopped:
        run(recipe(), place)
    check_message("the database is held by another program", stopped.value, RUN=place)
    holding.close()
    assert plain(run(recipe(), place)) == whole


@pytest.mark.parametrize(
    ("fault", "damage"),
    [
        ("the database is cut short", lambda data: data[: len(data) // 2]),
        ("the database is emptied", lambda data: b""),
        ("the database is another file", lambda data: b"# Notes\n" * 2000),
    ],
)
def test_a_damaged_database_is_found_before_anything_is_paid(
    fault: str, damage: Callable[[bytes], bytes], place: Path
) -> None:
    run(recipe(), place, until="evolve")
    path = place / "run.db"
    path.write_bytes(damage(path.read_bytes()))
    fakes.FakeGenerator.rendered.clear()
    with pytest.raises(RunError) as stopped:
        run(recipe(), place)
    check_message(fault, stopped.value, RUN=place)
    assert not fakes.FakeGenerator.rendered


def test_a_database_of_a_newer_version_is_refused(place: Path) -> None:
    run(recipe(), place, until="evolve")
    execute(place, "INSERT INTO migrations VALUES ('m099_later')")
    before = contents(place)
    with pytest.raises(RunError) as stopped:
        run(recipe(), place)
    check_message("the database is of a newer version", stopped.value, MIGRATION="m099_later")
    assert contents(place) == before


def test_a_database_from_before_migrations_had_names_is_refused(place: Path) -> None:
    run(recipe(), place, until="evolve")
    execute(place, "DROP TABLE migrations", "CREATE TABLE meta (key TEXT, value TEXT)")
    before = contents(place)
    with pytest.raises(RunError) as stopped:
        run(recipe(), place)
    check_message("the database is from before 0.1", stopped.value)
    assert contents(place) == before


def test_a_database_of_an_older_version_is_brought_up_to_date(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(), place, until="evolve")

    def m002_notes(connection: Any) -> None:
        connection.exec_driver_sql("CREATE TABLE notes (text TEXT)")

    monkeypatch.setattr(migrations, "MIGRATIONS", (*migrations.MIGRATIONS, m002_notes))
    monkeypatch.setattr(migrations, "NAMES", (*migrations.NAMES, "m002_notes"))
    with pytest.raises(RunError, match="lacks the migration m002_notes: go on with the run"):
        Run(place, writable=False)
    assert plain(run(recipe(), place)) == whole
    assert execute(place, "SELECT name FROM migrations") == [("m001_tables",), ("m002_notes",)]
    assert execute(place, "SELECT * FROM notes") == []


# Clips and models


def test_clips_that_are_cut_short_or_missing_are_rendered_again(place: Path, whole: dict[str, Any]) -> None:
    """Also clips that are cut between two frames, and still play."""
    run(recipe(), place, until="pairs")
    scored = set((place / "clips").rglob("*.mkv"))
    with pytest.raises(Interrupted):
        run(recipe(), place, progress=stopping("evaluate/mine: render"))
    clips = sorted(set((place / "clips").rglob("*.mkv")) - scored)
    assert len(clips) > 4
    with Run(place, writable=False) as opened:
        frames = {path: opened.clips.read(path.stem).frames for path in clips}
    for path in clips:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    clips[0].unlink()
    assert plain(run(recipe(), place)) == whole
    with Run(place, writable=False) as opened:
        assert all((opened.clips.read(path.stem).frames == frames[path]).all() for path in clips)


def with_training() -> Recipe:
    """Return a recipe of fakes that trains a student."""
    student = {"llm": {"name": "local", "model": "package:promptreel.tiny/weights/base"}, "format": "brief"}
    sft = {"kind": "sft", "data": "evolve"}
    return parse_recipe({**fakes.RECIPE, "student": student, "stage": [fakes.RECIPE["stage"][0], sft]})


def test_a_model_that_is_half_written_is_trained_again(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainings = []

    def train(job: TrainingJob, examples: Sequence[Any]) -> dict[str, float]:
        trainings.append(job)
        (job.out / "model.safetensors").write_bytes(b"weights" * 100)
        return {"loss": 0.5}

    remains = place / "models" / ".sft.part"
    remains.mkdir(parents=True)
    (remains / "model.safetensors").write_bytes(b"wei")  # of a process that was killed while it wrote
    first = run(with_training(), place, trainers={"sft": train})
    assert len(trainings) == 1
    assert not remains.exists()
    model = place / "models" / "sft" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:50])
    assert plain(run(with_training(), place, trainers={"sft": train})) == plain(first)
    assert len(trainings) == 2
    assert len(model.read_bytes()) == 700
    check_message("a model directory is half written", f"warning: {caplog.messages[-1]}", STAGE="sft")
    shutil.rmtree(model.parent)
    assert plain(run(with_training(), place, trainers={"sft": train})) == plain(first)
    assert len(trainings) == 3


# Components


class Faulty(fakes.FakeGenerator):
    """A generator whose renders fail in the way that the prompt names, or for want of memory."""

    largest = 99

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        if len(requests) > self.largest:
            raise MemoryError(f"no room for {len(requests)} clips")
        if any("raise" in request.prompt for request in requests):
            raise ZeroDivisionError("division by zero")
        changed: list[Clip | Failure] = []
        for request, clip in zip(requests, super().render(requests), strict=True):
            assert isinstance(clip, Clip)
            if "nan" in request.prompt:
                clip = Clip(clip.id, clip.frames.astype(np.float32) * np.nan, clip.fps)
            elif "black" in request.prompt:
                clip = Clip(clip.id, np.zeros_like(clip.frames), clip.fps)
            elif "flat" in request.prompt:
                clip = Clip(clip.id, clip.frames[0], clip.fps)
            changed.append(clip)
        return changed


class FaultyReward(fakes.FakeReward):
    """A reward model that raises at a curse, and whose value of an odd query is not a number."""

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        if any("curse" in query.text for query, _ in items):
            raise KeyError("curse")
        nan = float("nan")
        return [
            {**scores, "length": nan} if "odd" in query.text else scores
            for (query, _), scores in zip(items, super().score(items), strict=True)
        ]


@pytest.fixture
def faulty(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the fake generator and reward faulty ones."""
    monkeypatch.setitem(registry.BUILT_IN["generator"], "fake", "test_faults:Faulty")
    monkeypatch.setitem(registry.BUILT_IN["reward"], "fake", "test_faults:FaultyReward")
    return place


@pytest.mark.parametrize(
    ("fault", "word", "reason"),
    [
        ("a render raises", "raise", "render"),
        ("a render gives values that are not numbers", "nan", "not a number"),
        ("a render is black", "black", "black clip"),
        ("a render is no clip", "flat", "render"),
        ("a reward raises", "curse", "reward"),
        ("a reward gives a value that is not a number", "odd", "reward"),
    ],
)
def test_a_result_that_cannot_be_had_is_counted_and_the_rest_goes_on(
    fault: str, word: str, reason: str, faulty: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("q.txt").write_text(f"red ball\nblue box\n{word} star\ntiny ring\ngreen cross")
    summary = run(recipe(), faulty, until="evolve")
    count = summary.failures[reason]
    assert summary.failures == {reason: count}
    with Run(faulty, writable=False) as opened:
        accepted = [c for c in opened.records.candidates("evolve") if c.rejected is None]
        print_failures({reason: count}, opened.records.failure_details())
    assert all((c.reward is None) == (word in c.query.text) for c in accepted)
    assert len({c.query for c in accepted if c.reward is not None}) == 2
    check_message(fault, capsys.readouterr().out.strip(), N=count)
    assert "NaN" not in (faulty / "summary.json").read_text()
    fakes.FakeGenerator.rendered.clear()
    run(recipe(), faulty, until="evolve")
    assert not fakes.FakeGenerator.rendered


def test_a_batch_that_memory_is_too_small_for_is_halved(
    faulty: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "largest", 3)
    assert plain(run(recipe(), faulty)) == whole
    assert {len(batch) for batch in fakes.FakeGenerator.batches} <= {1, 2, 3}
    assert set(execute(faulty, "SELECT halved FROM batches WHERE halved IS NOT NULL")) == {("memory",)}


def test_a_run_that_goes_on_renders_the_halves_that_it_had_planned(
    faulty: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the whole batch again, though there is more memory now: a clip can depend on its batch."""
    with monkeypatch.context() as patch:
        patch.setattr(Faulty, "largest", 3)
        with pytest.raises(Interrupted):
            run(recipe(), faulty, progress=stopping("evolve/1: render", at=2))
    fakes.FakeGenerator.batches.clear()
    assert plain(run(recipe(), faulty)) == whole
    assert [len(batch) for batch in fakes.FakeGenerator.batches][:2] == [2, 4]


def test_a_lack_of_memory_for_even_one_clip_is_not_stored_as_a_failure_of_clips(
    faulty: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is stored, so a run with more room ends as an unbroken one."""
    with monkeypatch.context() as patch:
        patch.setattr(Faulty, "largest", 0)
        with pytest.raises(RunError) as stopped:
            run(recipe(), faulty)
    check_message("memory is too small for one clip", stopped.value)
    assert execute(faulty, "SELECT count(*) FROM clips") == [(0,)]
    assert execute(faulty, "SELECT count(*) FROM batches WHERE halved IS NOT NULL") == [(0,)]
    assert plain(run(recipe(), faulty)) == whole


class Dying(fakes.FakeGenerator):
    """A generator under which the GPU fails."""

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\n")


def test_a_device_that_fails_costs_no_clip(place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(registry.BUILT_IN["generator"], "fake", "test_faults:Dying")
        with pytest.raises(RunError) as stopped:
            run(recipe(), place)
    check_message("the GPU fails", stopped.value, NAME="fake")
    assert plain(run(recipe(), place)) == whole


class Absent(fakes.FakeReward):
    """A reward model whose weights are missing."""

    error: Exception = OSError("nobody/typo is not\na local folder")

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        raise self.error


def test_a_reward_that_cannot_be_loaded_costs_no_score(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(registry.BUILT_IN["reward"], "fake", "test_faults:Absent")
        with pytest.raises(RunError) as stopped:
            run(recipe(), place)
        check_message("a reward cannot be loaded", stopped.value, NAME="fake")
        patch.setattr(Absent, "error", ModuleNotFoundError("no torchvision"))
        with pytest.raises(RunError, match="reward 'fake' cannot be used: ModuleNotFoundError: no torchvision"):
            run(recipe(), place)
        patch.setattr(Absent, "error", UserError("no model at typo"))
        with pytest.raises(UserError, match="no model at typo"):
            run(recipe(), place)
    assert plain(run(recipe(), place)) == whole


def test_a_worker_process_that_dies_twice_at_a_batch_stops_the_run(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = parse_recipe({**fakes.RECIPE, "engine": {"name": "processes", "workers": 1}})
    for kind, name in fakes.NAMES.items():  # worker processes know what was registered
        registry.register(kind, "fake", f"promptreel.testing:{name}")
    registry.register("generator", "fake", "odd_workers:DoomedGenerator")
    with pytest.raises(RunError) as stopped:
        run(processes, place)
    check_message("a worker process dies again and again", stopped.value)
    registry.register("generator", "fake", "promptreel.testing:FakeGenerator")
    assert plain(run(processes, place)) == whole


# People


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run a command in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["promptreel", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return int(exit.value.code or 0)


HOLD = "import sys, pathlib; from promptreel.store import Run; r = Run(pathlib.Path(sys.argv[1])); print(); input()"


def test_a_second_process_on_a_run_is_refused_and_may_look_at_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(recipe(), place, until="evolve")
    before = contents(place)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.Popen([sys.executable, "-c", HOLD, place], stdin=-1, stdout=-1, env=environment)
    assert other.stdout
    other.stdout.readline()
    try:
        with pytest.raises(RunError) as stopped:
            run(recipe(), place)
        check_message("a second process starts on the run", stopped.value, RUN=place)
        assert contents(place) == before
        assert call(monkeypatch, "status", "--run", str(place), "--json") == 0
        assert json.loads(capsys.readouterr().out)["stages"][0]["state"] == "done"
        assert contents(place) == before
    finally:
        other.communicate(b"\n")


def test_another_recipe_on_a_run_is_refused(place: Path) -> None:
    run(recipe(), place, until="evolve")
    before = contents(place)
    changed = [{"evolve": {"rounds": 1}}, {"seed": 5}, {"threads": 1}]
    for change in changed:
        data = {**recipe().resolved(), **change}
        other = recipe(evolve={"rounds": 1}) if "evolve" in change else parse_recipe(data)
        with pytest.raises(RunError) as stopped:
            run(other, place)
        check_message("the run is of another recipe", stopped.value, RUN=place)
    assert contents(place) == before


def test_a_run_goes_on_as_it_was_begun_without_its_recipe(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe as given lacks everything that was set for this run."""
    given = write_recipe(Path("mine.toml"), name="other")
    run("mine.toml", place, "name=fake", until="evolve")
    out = ("--out", str(place))
    assert call(monkeypatch, "run") == 2
    assert "name a recipe, or with --out the run to go on with" in capsys.readouterr().err
    assert call(monkeypatch, "run", *out, "--set", "evolve.rounds=1") == 2
    assert "goes on as it was begun" in capsys.readouterr().err
    assert call(monkeypatch, "run", "--out", "nowhere") == 2
    missing = "error: nowhere holds no run; begin one with  promptreel run RECIPE --out nowhere\n"
    assert capsys.readouterr().err == missing
    assert call(monkeypatch, "run", *out, "--json") == (cli.run.FINISHED_WITH_FAILURES if whole["failures"] else 0)
    assert plain(json.loads(capsys.readouterr().out)) == whole
    assert plain(json.loads((place / "summary.json").read_text())) == whole
    assert (place / "recipe.toml").read_text() == given


def test_a_run_that_goes_on_with_other_versions_or_threads_is_warned_about(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(recipe(), place, until="evolve")
    before = contents(place)
    was = environment(recipe())
    now = {**was, "torch": "9.9", "threads": "64"}
    monkeypatch.setattr(sys.modules["promptreel.pipeline.run"], "environment", lambda recipe: now)
    assert plain(run(recipe(), place)) == whole
    threads, torch = caplog.messages
    check_message("the run goes on with other library versions", f"warning: {torch}", OLD=was["torch"], NEW="9.9")
    check_message("the run goes on with other threads", f"warning: {threads}", OLD=was["threads"], NEW="64")
    after = contents(place)
    assert all(after[name] == data for name, data in before.items() if "summary" not in name and name != "database")


def test_token_counts_that_are_estimates_are_called_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(recipe(), place, until="evolve")
    assert not caplog.messages
    monkeypatch.setattr(profiles, "token_counter", lambda name, model: profiles.TokenCounter(profiles.load(name), None))
    run(recipe(), place)
    goes_on, estimated = caplog.messages  # once, not for every stage
    check_message("the run goes on without the tokenizer", f"warning: {goes_on}")
    check_message("the tokenizer of the video model cannot be had", f"warning: {estimated}", PROFILE="tiny")
    with Run(place, writable=False) as opened:
        assert [found["token counts"] for found in opened.records.environments()] == ["exact", "estimated"]


def test_every_row_of_the_table_has_a_test() -> None:
    source = Path(__file__).read_text()
    tested = set(re.findall(r'^ +(?:check_message\(|\()"([^"]+)", ', source, re.MULTILINE))
    assert set(table()) == tested - {"fault"}  # the name of a parameter
