"""Everything that can go wrong with a run, made to go wrong: one clear line, nothing lost that was paid for.

``docs/faults.md`` is the table of these faults; ``said`` keeps it in step.
"""

import errno
import json
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

from promptreel import cli, media, profiles, registry
from promptreel.errors import PromptreelError, RunError, UserError
from promptreel.pipeline import run
from promptreel.report.tables import print_losses
from promptreel.store import Run, database, tables
from promptreel.types import Clip, Failure, Query, RenderRequest, Scores

DOCS = Path(__file__).parents[1] / "docs" / "faults.md"


def rows() -> dict[str, str]:
    """What the table says that a person sees, by fault."""
    lines = [line.strip("| \n") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    return dict(re.split(r"\s+\|\s+", line)[:2] for line in lines[1:] if not line.startswith("-"))


def said(fault: str, seen: str | PromptreelError, **names: object) -> None:
    """What a person sees is one line, and the line that the table has, with the names of this case put in."""
    line = seen if isinstance(seen, str) else f"error: {seen}"
    assert "\n" not in line
    shown = rows()[fault].strip("`")
    for name, value in names.items():
        shown = shown.replace(name, str(value))
    assert line == shown


def plain(summary: dict[str, Any] | None) -> dict[str, Any]:
    """A summary without its times."""
    assert summary is not None
    return {key: value for key, value in summary.items() if key != "seconds"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run that nothing happened to."""
    place = tmp_path_factory.mktemp("whole")
    (place / "q.txt").write_text("\n".join(fakes.QUERIES))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for kind, name in fakes.NAMES.items():
            patch.setitem(registry.BUILT_IN[kind], "fake", f"fakes:{name}")
        return plain(run(recipe(), "x", place / "run"))


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of a run but its lock and the database's side files, the database as its rows."""
    with sqlite3.connect(directory / "run.db") as connection:
        dump = "\n".join(connection.iterdump()).encode()
    kept = [path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("run.")]
    return {"database": dump, **{str(path): path.read_bytes() for path in kept}}


# The disk


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once while a clip is written, once while the database is, once while the summary is."""
    write, left = media.write_lossless, [7]

    def full(path: Path, *rest: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(media, "write_lossless", full)
        with pytest.raises(RunError) as stopped:
            run(recipe(), "x", place)
    said("the disk fills up", stopped.value, RUN=place)

    def no_room(connection: sqlite3.Connection, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={connection.execute('PRAGMA page_count').fetchone()[0]}")

    with monkeypatch.context() as patch:
        set_up = database._set_up
        patch.setattr(database, "_set_up", lambda *given: (set_up(*given), no_room(*given)))
        with pytest.raises(RunError) as stopped:
            run(recipe(), "x", place)
    said("the disk fills up", stopped.value, RUN=place)

    def no_text(self: Path, *rest: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", no_text)
        with pytest.raises(RunError) as stopped:
            run(recipe(), "x", place)
    said("the disk fills up", stopped.value, RUN=place)
    assert plain(run(recipe(), "x", place)) == whole


@pytest.mark.slow
def test_a_disk_that_is_really_full(place: Path, whole: dict[str, Any]) -> None:
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        with pytest.raises(RunError, match="is full"):
            run(recipe(), "x", place)
        assert not list(place.rglob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=50m", place], check=True)
        assert plain(run(recipe(), "x", place)) == whole
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_directory_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, *rest: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(media, "write_lossless", forbidden)
    with pytest.raises(RunError) as stopped:
        run(recipe(), "x", place)
    line = re.sub(r"\w\w/\w{64}", "CLIP", f"error: {stopped.value}")
    said("a file may not be written", line, RUN=place)


# The database


def test_a_database_that_another_program_holds(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(), "x", place, until="evolve")
    monkeypatch.setattr(database, "BUSY_SECONDS", 0)
    holding = sqlite3.connect(place / "run.db", isolation_level=None)
    holding.execute("BEGIN IMMEDIATE")
    with pytest.raises(RunError) as stopped:
        run(recipe(), "x", place)
    said("the database is held by another program", stopped.value, RUN=place)
    holding.close()
    assert plain(run(recipe(), "x", place)) == whole


@pytest.mark.parametrize(
    ("fault", "damage"),
    [
        ("the database is cut short", lambda data: data[: len(data) // 2]),
        ("the database is emptied", lambda data: b""),
        ("the database is something else", lambda data: b"# Notes\n" * 2000),
    ],
)
def test_a_damaged_database_is_seen_before_anything_is_paid(
    fault: str, damage: Callable[[bytes], bytes], place: Path
) -> None:
    run(recipe(), "x", place, until="evolve")
    path = place / "run.db"
    path.write_bytes(damage(path.read_bytes()))
    fakes.FakeGenerator.rendered.clear()
    with pytest.raises(RunError) as stopped:
        run(recipe(), "x", place)
    said(fault, stopped.value, RUN=place)
    assert not fakes.FakeGenerator.rendered


def test_a_database_of_another_version(place: Path, whole: dict[str, Any]) -> None:
    run(recipe(), "x", place, until="evolve")

    def change(*statements: str) -> None:
        with sqlite3.connect(place / "run.db") as connection:
            for statement in statements:
                connection.execute(statement)

    change("UPDATE meta SET value = '99' WHERE key = 'version'")
    with pytest.raises(RunError) as stopped:
        run(recipe(), "x", place)
    said("the database is of a newer version", stopped.value, OURS=tables.VERSION)
    change(
        "UPDATE meta SET value = '1' WHERE key = 'version'",
        "ALTER TABLE scores DROP COLUMN detail",
        "ALTER TABLE queries DROP COLUMN options",
        "ALTER TABLE clips DROP COLUMN aspect",
    )
    assert plain(run(recipe(), "x", place)) == whole


# Clips and models


def test_a_clip_cut_short_is_rendered_again(place: Path, whole: dict[str, Any]) -> None:
    """Also one that is cut between two frames, and still plays."""
    run(recipe(), "x", place, until="evolve")
    clips = sorted((place / "clips").rglob("*.mkv"))
    frames = {path: media.read(path) for path in clips}
    for path in clips:
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    clips[0].unlink()
    with sqlite3.connect(place / "run.db") as connection:  # as if killed before anything was scored
        connection.execute("DELETE FROM scores")
        connection.execute("UPDATE stages SET state = 'running' WHERE name = 'evolve'")
    assert plain(run(recipe(), "x", place)) == whole
    assert all((media.read(path) == frames[path]).all() for path in clips)


def test_a_model_half_written_is_trained_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trainings = []

    def train(pipeline: Any, method: object, stage: Any, data: Any) -> dict[str, Any]:
        trainings.append(stage.name)
        with pipeline.run.publishing(stage.name) as out:
            (out / "model.safetensors").write_bytes(b"weights" * 100)
        return {"loss": 0.5}

    data = recipe().resolved()
    data["stage"].insert(1, {"kind": "sft", "data": "evolve"})
    with_training = fakes.parse_recipe(data)
    monkeypatch.setattr("promptreel.preflight.check", lambda recipe, until: None)
    monkeypatch.setattr("promptreel.pipeline.Pipeline._train", train)
    monkeypatch.setitem(sys.modules, "promptreel.training.sft", type("stub", (), {"sft": None}))
    leftover = place / "models" / ".sft.part"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"wei")  # of a process that was killed while it wrote
    first = run(with_training, "x", place)
    assert len(trainings) == 1
    assert not leftover.exists()
    model = place / "models" / "sft" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:50])
    assert plain(run(with_training, "x", place)) == plain(first)
    assert len(trainings) == 2
    assert len(model.read_bytes()) == 700
    said("a model directory is half written", f"warning: {caplog.messages[-1]}", STAGE="sft")
    shutil.rmtree(model.parent)
    assert plain(run(with_training, "x", place)) == plain(first)
    assert len(trainings) == 3


# Components


class Faulty(fakes.FakeGenerator):
    """Some renders of it go wrong, each in the way that its prompt names."""

    largest = 99

    def render(self, requests: Sequence[RenderRequest]) -> list[Clip | Failure]:
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
    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        if any("curse" in query.text for query, _ in items):
            raise KeyError("curse")
        nan = float("nan")
        return [
            {**s, "length": nan} if "odd" in q.text else s
            for (q, _), s in zip(items, super().score(items), strict=True)
        ]


@pytest.mark.parametrize(
    ("fault", "word", "counted"),
    [
        ("a render raises", "raise", "render"),
        ("a render gives what is not a number", "nan", "not a number"),
        ("a render is black", "black", "black clip"),
        ("a render is no clip", "flat", "render"),
        ("a reward raises", "curse", "reward"),
        ("a reward gives what is not a number", "odd", "reward"),
    ],
)
def test_what_cannot_be_had_is_counted_and_the_rest_goes_on(
    fault: str, word: str, counted: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["generator"], "fake", "test_faults:Faulty")
    monkeypatch.setitem(registry.BUILT_IN["reward"], "fake", "test_faults:FaultyReward")
    Path("q.txt").write_text(f"red ball\nblue box\n{word} star\ntiny ring\ngreen cross")
    summary = run(recipe(), "x", place, until="evolve")
    lost = summary["losses"].pop(counted)
    assert not summary["losses"]
    with Run(place) as opened:
        kept = [(query.text, row) for query, row in opened.database.rewrites("evolve") if row.dropped is None]
        print_losses({counted: lost}, opened.database.details())
    assert all((row.total is None) == (word in text) for text, row in kept)
    assert len({text for text, row in kept if row.total is not None}) == 2
    said(fault, capsys.readouterr().out.strip(), N=lost)
    assert "NaN" not in (place / "summary.json").read_text()
    fakes.FakeGenerator.rendered.clear()
    run(recipe(), "x", place, until="evolve")
    assert not fakes.FakeGenerator.rendered


def test_a_batch_that_memory_is_too_small_for_is_halved(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The halves are planned: a run that goes on tries the same ones, and not the whole batch again."""
    monkeypatch.setitem(registry.BUILT_IN["generator"], "fake", "test_faults:Faulty")
    monkeypatch.setattr(Faulty, "largest", 3)
    assert plain(run(recipe(), "x", place)) == whole
    with sqlite3.connect(place / "run.db") as connection:
        reasons = [reason for (reason,) in connection.execute("SELECT reason FROM halved")]
        connection.execute("DELETE FROM clips")
        connection.execute("UPDATE stages SET state = 'running'")
    assert set(reasons) == {"memory"}
    before = [[r.prompt for r in batch] for batch in fakes.FakeGenerator.batches]
    fakes.FakeGenerator.batches.clear()
    monkeypatch.setattr(Faulty, "largest", 99)
    assert plain(run(recipe(), "x", place)) == whole
    assert [[r.prompt for r in batch] for batch in fakes.FakeGenerator.batches] == before


def test_a_model_that_no_memory_is_enough_for_is_no_fault_of_its_clips(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is stored of it, so that a run with more room ends as an unbroken one."""
    monkeypatch.setitem(registry.BUILT_IN["generator"], "fake", "test_faults:Faulty")
    monkeypatch.setattr(Faulty, "largest", 0)
    with pytest.raises(RunError) as stopped:
        run(recipe(), "x", place)
    said("memory is too small for one clip", stopped.value)
    with sqlite3.connect(place / "run.db") as connection:
        assert [connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("clips", "halved")] == [0, 0]
    monkeypatch.setattr(Faulty, "largest", 99)
    assert plain(run(recipe(), "x", place)) == whole


class Dying(fakes.FakeGenerator):
    def render(self, requests: Sequence[RenderRequest]) -> list[Clip | Failure]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\n")


def test_a_device_that_fails_costs_no_clip(place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(registry.BUILT_IN["generator"], "fake", "test_faults:Dying")
        with pytest.raises(RunError) as stopped:
            run(recipe(), "x", place)
    said("the GPU fails", stopped.value, NAME="fake")
    assert plain(run(recipe(), "x", place)) == whole


class Absent(fakes.FakeReward):
    """A reward whose model is not to be had."""

    error: Exception = OSError("nobody/typo is not\na local folder")

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        raise self.error


def test_a_reward_that_cannot_be_loaded_costs_no_score(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(registry.BUILT_IN["reward"], "fake", "test_faults:Absent")
        with pytest.raises(RunError) as stopped:
            run(recipe(), "x", place)
        said("a reward cannot be loaded", stopped.value, NAME="fake")
        patch.setattr(Absent, "error", ModuleNotFoundError("no torchvision"))
        with pytest.raises(RunError, match="reward 'fake' cannot be used: ModuleNotFoundError: no torchvision"):
            run(recipe(), "x", place)
        patch.setattr(Absent, "error", UserError("no model at typo"))
        with pytest.raises(UserError, match="no model at typo"):
            run(recipe(), "x", place)
    assert plain(run(recipe(), "x", place)) == whole


# People


def test_two_processes_on_one_run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A real second process, of another program, holds the run; to look at it stays possible."""
    run(recipe(), "x", place, until="evolve")
    before = contents(place)
    code = "import sys, pathlib; from promptreel.store import Run; r = Run(pathlib.Path(sys.argv[1])); print(); input()"
    other = subprocess.Popen([sys.executable, "-c", code, place], stdin=-1, stdout=-1)
    assert other.stdout
    other.stdout.readline()
    try:
        with pytest.raises(RunError) as stopped:
            run(recipe(), "x", place)
        said("a second process starts on the run", stopped.value, RUN=place)
        assert contents(place) == before
        monkeypatch.setattr(sys, "argv", ["promptreel", "status", "--run", str(place), "--json"])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        assert not exit.value.code
        assert json.loads(capsys.readouterr().out)["stages"][0]["state"] == "done"
    finally:
        other.communicate(b"\n")


def test_another_recipe_on_the_run(place: Path) -> None:
    run(recipe(), "x", place, until="evolve")
    before = contents(place)
    changed: list[dict[str, Any]] = [{"evolve": {"rounds": 1}}, {"seed": 5}, {"threads": 1}]
    for change in changed:
        data = {**recipe().resolved(), **change}
        other = recipe(evolve={"rounds": 1}) if "evolve" in change else fakes.parse_recipe(data)
        with pytest.raises(RunError) as stopped:
            run(other, "y", place)
        said("the run is of another recipe", stopped.value, RUN=place)
    assert contents(place) == before


def test_a_run_goes_on_as_it_was_begun_without_its_recipe(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Which its recipe.toml alone does not say once anything was set."""

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["promptreel", "run", *arguments])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        return int(exit.value.code or 0), capsys.readouterr().err

    run(recipe(), "as given, before --set", place, until="evolve")
    out = ("--out", str(place))
    assert call() == (2, "error: say which recipe, or with --out which run to go on with\n")
    code, err = call(*out, "--set", "evolve.rounds=1")
    assert (code, "goes on as it was begun" in err) == (2, True)
    code, err = call("--out", "nowhere")
    assert (code, err) == (2, "error: nowhere holds no run; begin one with  promptreel run RECIPE --out nowhere\n")
    code, err = call(*out, "--json")
    assert code == cli.runs.FINISHED_WITH_LOSSES if whole["losses"] else not code, err
    assert plain(json.loads((place / "summary.json").read_text())) == whole
    assert (place / "recipe.toml").read_text() == "as given, before --set"


def test_other_versions_or_threads(
    place: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from promptreel.preflight.check import environment

    run(recipe(), "x", place, until="evolve")
    before = contents(place)
    now = {**environment(recipe()), "torch": "9.9", "threads": "64"}
    monkeypatch.setattr("promptreel.pipeline.environment", lambda recipe: now)
    assert plain(run(recipe(), "x", place)) == whole
    threads, torch = (message for message in caplog.messages if "went" not in message)
    was = environment(recipe())
    said("the run goes on with other library versions", f"warning: {torch}", OLD=was["torch"], NEW="9.9")
    said("the run goes on with other threads", f"warning: {threads}", OLD=was["threads"], NEW="64")
    after = contents(place)
    assert all(after[name] == data for name, data in before.items() if "summary" not in name and name != "database")


def test_token_counts_that_are_estimates_are_called_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run(recipe(), "x", place, until="evolve")
    assert not caplog.messages
    monkeypatch.setattr(profiles, "token_counter", lambda name, model: profiles.TokenCounter(profiles.load(name), None))
    run(recipe(), "x", place)
    goes_on, estimated = caplog.messages
    said("the run goes on without the tokenizer", f"warning: {goes_on}")
    said("the tokenizer of the video model cannot be had", f"warning: {estimated}", PROFILE="tiny")
    with Run(place) as opened:
        assert [found["token counts"] for found in opened.database.environments()] == ["exact", "estimated"]


def test_the_table_has_no_row_that_nothing_tests() -> None:
    source = Path(__file__).read_text()
    tested = set(re.findall(r'^ +(?:said\(|\()"([^"]+)", ', source, re.MULTILINE))
    assert set(rows()) == tested - {"fault"}
