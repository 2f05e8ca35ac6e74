"""The same recipe gives the same run, whatever process, hash seed or installation it runs in."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import fakes
import pytest

ROOT = Path(__file__).parents[1]
STUDENT = ROOT / "src" / "promptreel" / "tiny" / "weights" / "student"
RUN = """
import sys
from pathlib import Path
import fakes
from promptreel import registry
from promptreel.pipeline import run
for kind, name in fakes.NAMES.items():
    registry.BUILT_IN[kind]["fake"] = f"fakes:{name}"
run(fakes.recipe(), "x", Path(sys.argv[1]))
"""


def stored(place: Path) -> dict[str, Any]:
    """The summary of a run without its times, and every row that it stored of what it made."""
    import sqlite3

    summary = json.loads((place / "summary.json").read_text())
    summary.pop("seconds")
    tables = ("queries", "clips", "scores", "replies", "verdicts", "rewrites", "pairs", "evaluations", "losses")
    with sqlite3.connect(place / "run.db") as connection:
        rows = {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in tables}
    return {"summary": summary, **rows}


@pytest.mark.slow
def test_two_processes_make_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("\n".join([*fakes.QUERIES, "broken hoop", "slow box"]))
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", RUN, seed], cwd=tmp_path, env=environment, check=True)
    first, second = stored(tmp_path / "1"), stored(tmp_path / "2")
    assert first["clips"]
    assert first == second


@pytest.fixture(scope="module")
def promptreel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of the wheel of this repository, in an environment that has its dependencies and nothing else."""
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
    environment = {"PATH": os.environ["PATH"], "HOME": str(promptreel.parents[2]), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [promptreel, *arguments], cwd=promptreel.parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, 4), done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_brings_a_command(promptreel: Path) -> None:
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
