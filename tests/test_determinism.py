"""The same recipe gives the same run in every process, with every hash seed, and from an installed wheel."""

import json
import os
import sqlite3
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import fakes
import pytest

from promptreel.media import ClipStore

ROOT = Path(__file__).parents[1]
STUDENT = ROOT / "src" / "promptreel" / "tiny" / "weights" / "student"
RUN = """
import sys
import fakes
from promptreel.pipeline import run
from promptreel.testing import register_fakes
register_fakes()
run(fakes.recipe(), sys.argv[1])
"""
OWN = ("run", "seconds")
"""Columns that differ from run to run."""


def stored(place: Path) -> dict[str, Any]:
    """Return the summary of a run without its times, and every row of its database but its environments."""
    summary = json.loads((place / "summary.json").read_text())
    summary.pop("seconds")
    found = {"summary": summary}
    with sqlite3.connect(place / "run.db") as connection:
        connection.row_factory = sqlite3.Row
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in set(tables) - {"runs"}:
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
            found[table] = sorted(repr([(key, row[key]) for key in row if key not in OWN]) for row in rows)
    return found


def pixels(place: Path) -> dict[str, bytes]:
    """Return the pixels of a run's clips."""
    store = ClipStore(str(place / "clips"))
    return {path.stem: store.read(path.stem).frames.tobytes() for path in (place / "clips").rglob("*.mkv")}


@pytest.mark.slow
def test_two_processes_make_the_same_run(tmp_path: Path) -> None:
    """Also the same ledger of batches, and the same pixels."""
    (tmp_path / "q.txt").write_text("\n".join([*fakes.QUERIES, "broken hoop", "slow box"]))
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", RUN, seed], cwd=tmp_path, env=environment, check=True)
    first, second = stored(tmp_path / "1"), stored(tmp_path / "2")
    tables = {"clips", "scores", "completions", "verdicts", "candidates", "pairs", "evaluations", "batches"}
    assert all(first[table] for table in tables)
    assert first == second
    assert pixels(tmp_path / "1") == pixels(tmp_path / "2")


@pytest.fixture(scope="module")
def promptreel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel of this repository beside its dependencies and nothing else; return the path of its command."""
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling: pip install 'promptreel[dev]'")
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(place), str(ROOT)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = place.glob("promptreel-*.whl")
    venv.create(place / "venv", with_pip=False)
    python = place / "venv" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    # A path file's own paths are not searched for path files: an editable installation stays out of sight.
    dependencies = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "dependencies.pth").write_text("\n".join(dependencies))
    found = subprocess.run(
        [python, "-c", "import promptreel; print(promptreel.__file__)"],
        cwd=place, env={"PATH": os.environ["PATH"]}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert str(packages) in found.stdout
    return place / "venv" / "bin" / "promptreel"


def call(promptreel: Path, *arguments: str) -> str:
    """Run the installed command; return its output."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(promptreel.parents[2]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [promptreel, *arguments], cwd=promptreel.parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 4), done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_installs_a_command(promptreel: Path) -> None:
    assert "Usage" in call(promptreel, "--help")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not STUDENT.exists(), reason="the tiny student is not trained yet: make tiny")
def test_the_wheel_runs_the_demo(promptreel: Path) -> None:
    (row,) = json.loads(call(promptreel, "rewrite", "a crimson ball heading east", "--json"))
    assert row["rewrites"][0]["text"]
    summary = json.loads(call(promptreel, "demo", "--quick", "--json"))
    assert summary["finished"]
    place = promptreel.parents[2] / "runs" / "demo"
    assert (place / "report.html").stat().st_size > 100_000
    assert (place / "before-after.gif").exists()
