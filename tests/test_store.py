"""What is stored comes back as it was, and nothing is stored twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from promptreel import media
from promptreel.errors import RunError
from promptreel.fingerprint import fingerprint
from promptreel.queries import parse_query
from promptreel.store import ClipCache, Database, Run
from promptreel.types import Clip, Completion, Failure, Pair, Query, RenderRequest


@given(
    frames=npst.arrays(
        np.uint8, st.tuples(st.integers(1, 5), st.integers(8, 24).map(lambda n: 2 * n), st.just(32), st.just(3))
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_clip_cache_is_lossless(tmp_path: Path, frames: np.ndarray) -> None:
    cache = ClipCache(tmp_path)
    cache.write(Clip("ab" * 32, frames, 8))
    assert "ab" * 32 in cache
    assert (cache.read("ab" * 32).frames == frames).all()


def test_a_damaged_clip_is_one_clear_error(tmp_path: Path) -> None:
    cache = ClipCache(tmp_path)
    cache.write(Clip("cd" * 32, np.zeros((9, 64, 64, 3), np.uint8), 8))
    path = cache.path("cd" * 32)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RunError, match="delete it"):
        cache.read("cd" * 32)


def test_frames_for_people_play_anywhere(tmp_path: Path) -> None:
    media.write_video(tmp_path / "a.mp4", np.zeros((9, 64, 64, 3), np.uint8), 8, scale=2)
    assert media.read(tmp_path / "a.mp4").shape == (9, 128, 128, 3)


def test_frames_are_sampled_from_first_to_last() -> None:
    frames = np.arange(9)[:, None, None, None]
    assert media.sample(frames, 4).ravel().tolist() == [0, 3, 5, 8]
    assert media.sample(frames[:1], 3).ravel().tolist() == [0, 0, 0]


def test_batches_of_replies_are_kept_whole(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        assert run.database.reply_batch("x") is None
        answers = [
            Completion("a", 5, 2, 0.25),
            Failure("malformed", "no JSON", 3, 1, 0.125),
            Completion("b", 1, 1, 0.5),
        ]
        run.database.add_reply_batch("x", "llm", answers, "evolve/1")
        assert run.database.reply_batch("x") == answers
        assert run.database.usage("evolve") == {"read": 9, "written": 4, "cost": 0.875}
        assert run.database.usage("sample") == {"read": 0, "written": 0, "cost": 0.0}


def test_the_first_result_for_an_id_stays(tmp_path: Path) -> None:
    request = RenderRequest("a ball", "", 1)
    with Run(tmp_path) as run:
        run.database.add_clips("g", [(request, 8.0)], "evolve/0")
        run.database.add_clips("g", [(request, Failure("render"))], "sample")
        origin, failure, fps = run.database.clips([request.clip_id("g")])[request.clip_id("g")]
        assert (origin, failure, fps) == ("evolve/0", None, 8.0)
        assert run.database.renders("evolve") == 1
        assert run.database.renders("sample") == 0


def test_pairs_and_rewrites_come_back_in_order(tmp_path: Path) -> None:
    queries = [Query("z"), Query("a")]
    pairs = [Pair(query, "good", bad, "margin_floors", 1.0) for query in queries for bad in ("y", "b")]
    with Run(tmp_path) as run:
        run.database.add_queries(queries)
        run.database.add_pairs("pairs", pairs)
        assert run.database.pairs("pairs") == pairs


FLAGS = [
    "--ar 16:9", "-ar 9:16", "-neg blurry, extra limbs", "-motion 3", "-motion 9", "-gs 20", "-fps 24", "seed123",
    "seed 7", "--hd", "--style raw", "with sound", "https://a.b/c.png",
]  # fmt: skip
flags = st.lists(st.sampled_from(FLAGS), max_size=3).map(" ".join)
typed = st.builds("{} {} {}".format, st.sampled_from(["a red ball", "a box"]), flags, st.just("") | st.text(max_size=8))
parsed = typed.map(parse_query)
built = st.builds(Query, st.text(), st.text(), st.lists(st.tuples(st.text(), st.text())).map(tuple))


@given(st.lists(parsed | built, min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_every_query_comes_back_as_it_was_typed(asked: list[Query]) -> None:
    """Flags and all, from whatever was stored of it, also where another stage asks for the same with other flags."""
    row = {"rewrite": "better", "round": 1, "total": 1.0, "dropped": None, "dimensions": {}}
    pairs = [Pair(query, "good", "bad", "margin_floors", 1.0) for query in asked]
    with closing(Database("sqlite://")) as database:
        for stage, query in enumerate(asked):
            database.add_queries([query])
            database.add_rewrites(f"{stage}", [{"query": query, **row}])
            database.add_pairs(f"{stage}", [pairs[stage]])
            database.add_evaluation(f"{stage}", "base", {query: {"text": "better"}})
        stages = [f"{stage}" for stage in range(len(asked))]
        assert [query for stage in stages for query, _ in database.rewrites(stage)] == asked
        assert [pair for stage in stages for pair in database.pairs(stage)] == pairs
        assert [query for stage in stages for query in database.evaluation(stage)["base"]] == asked


def test_losses_of_a_step_are_replaced_not_added(tmp_path: Path) -> None:
    with Run(tmp_path) as run:
        run.database.set_losses("evolve", {"reply": 2})
        run.database.set_losses("evolve", {"reply": 3})
        run.database.set_losses("sample", {"reply": 1})
        assert run.database.losses() == {"reply": 4}


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    Run(tmp_path).close()
    with sqlite3.connect(tmp_path / "run.db") as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
    with pytest.raises(RunError, match="version 99"):
        Run(tmp_path)


def test_a_second_process_is_told_to_wait(tmp_path: Path) -> None:
    with Run(tmp_path), pytest.raises(RunError, match="another process"):
        Run(tmp_path)
    Run(tmp_path).close()


def test_a_model_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with Run(tmp_path) as run:

        def die_halfway() -> None:
            with run.publishing("sft") as out:
                (out / "half").write_text("x")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            die_halfway()
        assert not run.model("sft").exists()
        with run.publishing("sft") as out:
            assert not (out / "half").exists()
            (out / "config.json").write_text("{}")
            (out / "training_args.bin").write_bytes(b"pickle")
        assert sorted(path.name for path in run.model("sft").iterdir()) == ["config.json", "manifest.json"]


def test_models_on_disk_are_known_by_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for name in ("a", "b"):
        (tmp_path / name / "w.safetensors").write_bytes(b"weights")
    same = fingerprint("local", str(tmp_path / "a"))
    assert fingerprint("local", str(tmp_path / "b")) == same
    (tmp_path / "b" / "w.safetensors").write_bytes(b"weighty")
    assert fingerprint("local", str(tmp_path / "b")) != same
    assert fingerprint("local", "org/model") != fingerprint("local", "org/model", revision="v2")
