"""A database: its layout grows by migrations, and content that all runs share is stored once."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table

from promptreel.errors import RunError, UserError
from promptreel.fingerprint import content_id
from promptreel.store import Database, Run, user_cache
from promptreel.store import migrations as steps
from promptreel.store.content import Clips, ClipScores, Completions, Verdicts, read_render_batches
from promptreel.store.database import among
from promptreel.store.tables import clips, render_batches, verdicts
from promptreel.types import (
    Candidate,
    ClipToScore,
    Completion,
    Fact,
    Failure,
    Query,
    RenderRequest,
    ScoreResult,
    Verdict,
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'some.db'}"


def old_layout(path: Path) -> None:
    """Make a database as versions before 0.1 made it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
        connection.execute("CREATE TABLE rewrites (id TEXT PRIMARY KEY, rewrite TEXT)")
        connection.execute("INSERT INTO meta VALUES ('version', '3')")
        connection.commit()


# Layout


@pytest.mark.parametrize("writable", [True, False])
def test_a_run_of_the_old_layout_is_refused_in_one_line_and_left_alone(tmp_path: Path, writable: bool) -> None:
    old_layout(tmp_path / "run.db")
    before = (tmp_path / "run.db").read_bytes()
    with pytest.raises(RunError, match=r"before 0\.1 .*begin a new run with another --out") as refused:
        Run(tmp_path, writable)
    assert "\n" not in str(refused.value)
    with closing(sqlite3.connect(tmp_path / "run.db")) as connection:
        assert connection.execute("SELECT * FROM meta").fetchall() == [("version", "3")]
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone() == (2,)
    if not writable:
        assert (tmp_path / "run.db").read_bytes() == before


def test_a_cache_of_the_old_layout_is_not_used_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PROMPTREEL_CACHE", str(tmp_path))
    old_layout(tmp_path / "rewrites.db")
    assert user_cache() is None
    (message,) = caplog.messages
    assert "earlier answers are not remembered" in message
    assert "delete it if it is a cache" in message
    assert "\n" not in message
    (tmp_path / "rewrites.db").unlink()
    cache = user_cache()
    assert cache
    cache.close()


def test_a_database_remembers_its_migrations_and_is_new_once(url: str, tmp_path: Path) -> None:
    for new in (True, False):
        with closing(Database(url)) as database:
            assert database.new == new
            assert database.flaw() is None
    with closing(sqlite3.connect(tmp_path / "some.db")) as connection:
        assert connection.execute("SELECT name FROM migrations").fetchall() == [("m001_tables",)]


def test_a_migration_of_a_newer_version_is_refused(url: str, tmp_path: Path) -> None:
    Database(url).close()
    with closing(sqlite3.connect(tmp_path / "some.db")) as connection:
        connection.execute("INSERT INTO migrations VALUES ('m999_colours')")
        connection.commit()
    for writable in (True, False):
        with pytest.raises(RunError, match="m999_colours, made by a newer promptreel"):
            Database(url, writable)


def test_a_migration_that_is_missing_is_applied_once_and_not_by_looking(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Database(url).close()
    added = Table("added", MetaData(), Column("n", Integer))
    applied: list[str] = []

    def m002_added(connection: Connection) -> None:
        added.create(connection)
        applied.append("m002_added")

    monkeypatch.setattr(steps, "MIGRATIONS", (*steps.MIGRATIONS, m002_added))
    monkeypatch.setattr(steps, "NAMES", (*steps.NAMES, "m002_added"))
    with pytest.raises(RunError, match="lacks the migration m002_added: go on with the run to have it applied"):
        Database(url, writable=False)
    for _ in range(2):
        Database(url).close()
    Database(url, writable=False).close()
    assert applied == ["m002_added"]


def test_released_migrations_keep_their_names_and_order() -> None:
    """A database knows them by these; a new one is appended here, too."""
    assert steps.NAMES == ("m001_tables",)


def test_a_migration_that_fails_leaves_the_database_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def m001_half(connection: Connection) -> None:
        steps.m001_tables(connection)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "MIGRATIONS", (m001_half,))
        with pytest.raises(KeyboardInterrupt):
            Database(url)
    with closing(Database(url)) as database:
        assert database.new


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_two_processes_may_open_a_new_database_at_once(url: str) -> None:
    Database(url).close()  # what is imported late is imported
    Path(url.removeprefix("sqlite:///")).unlink()
    go, told = os.pipe()
    processes = []
    for _ in range(2):
        process = os.fork()
        if process == 0:
            os.read(go, 1)
            code = 1
            try:
                Database(url).close()
                code = 0
            finally:
                os._exit(code)
        processes.append(process)
    os.write(told, b"go")
    assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes] == [0, 0]


def test_another_kind_of_database_is_refused() -> None:
    with pytest.raises(UserError, match="'postgresql' is not supported"):
        Database("postgresql://localhost/runs")


# Content


def test_the_first_result_for_an_id_stays(url: str) -> None:
    request = RenderRequest("a ball", "", 1)
    with closing(Database(url)) as database:
        for result in (8.0, Failure("render")):
            database.add(clips, Clips.rows("g", [request.clip_id("g")], [request], [result]))
        with database.reading() as connection:
            assert Clips.read(connection, [request.clip_id("g")]) == {request.clip_id("g"): 8.0}


VERDICT = Verdict((Fact("red", "kept"), Fact("gory", "lost", "it is harmful", True)), ("blood",), ("a dog",))
CONTENT = {
    "clips": (
        Clips,
        [RenderRequest("a", "blur", 2**32 - 1, "16:9"), RenderRequest("b", "", 0)],
        [8.5, Failure("memory", "no room")],
    ),
    "scores": (
        ClipScores,
        [ClipToScore(Query("a", options=(("motion", "3"),)), "clip", 8.0), ClipToScore(Query("b"), "clip", 8.0)],
        [ScoreResult({"x": 0.1 + 0.2, "never": None}, explanation="a red ball"), ScoreResult(None, "KeyError: 'x'")],
    ),
    "completions": (
        Completions,
        ["first", "second"],
        [Completion("good 🐱", 5, 2, 0.25), Failure("malformed", "no JSON", 3, 1, 0.125)],
    ),
    "verdicts": (Verdicts, [Candidate(Query("a"), "b"), Candidate(Query("a"), "c")], [VERDICT, None]),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_results_come_back_as_they_were(url: str, kind: str) -> None:
    content, items, results = CONTENT[kind]
    ids = [content_id(kind, number) for number in range(len(items))]
    with closing(Database(url)) as database:
        database.add(content.table, content.rows("maker", ids, items, results))
        with database.reading() as connection:
            assert content.read(connection, [*ids, "unknown"]) == dict(zip(ids, results, strict=True))


def test_clips_know_the_batch_that_they_were_rendered_in(url: str) -> None:
    requests = [RenderRequest(f"{n}", "", n, "1:1") for n in range(5)]
    ids = [request.clip_id("g") for request in requests]
    with closing(Database(url)) as database:
        for part in (slice(0, 3), slice(3, 5)):
            database.add(clips, Clips.rows("g", ids[part], requests[part], [8.0] * len(ids[part])))

            database.add(render_batches, Clips.batch_rows(ids[part]))
        with database.reading() as connection:
            found = read_render_batches(connection, [ids[2], ids[4], ids[0]])
    assert sorted(found, key=len) == [requests[3:], requests[:3]]


def test_thousands_of_ids_are_looked_up_at_once(url: str) -> None:
    ids = [f"{n}" for n in range(2500)]
    rows = Verdicts.rows("j", ids, [Candidate(Query("a"), "b")] * 2500, [None] * 2500)
    with closing(Database(url)) as database:
        database.add(verdicts, rows)
        with database.reading() as connection:
            assert len(among(connection, verdicts, verdicts.c.id, [*ids, *ids, "unknown"])) == 2500


def test_a_transaction_that_fails_stores_nothing(url: str) -> None:
    with closing(Database(url)) as database:

        def fail() -> None:
            with database.writing() as connection:
                connection.execute(verdicts.insert().values(id="x", judge="j", query="q", text="t"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with database.reading() as connection:
            assert Verdicts.read(connection, ["x"]) == {}
