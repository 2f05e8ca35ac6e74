"""The run of fakes keeps every value that it had when the golden file was made."""

from pathlib import Path

import pytest

import golden
from golden_fakes import run_fakes

FILE = Path(__file__).parent / "golden" / "fakes.json"
EXPECTED: list[str] = []
"""Differences from the golden file that are meant, as ``tools/golden.py --except`` takes them."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("golden")
    run_fakes(place)
    return place / "run"


def test_the_run_of_fakes_keeps_every_value(made: Path) -> None:
    old, new = golden.read(FILE), golden.read(made)
    found, _ = golden.split(golden.differences(old, new), EXPECTED)
    texts = {key: row["text"] for key, row in old["queries"].items()}
    assert not found, "\n".join(["", *golden.listing(found, texts, 10)])


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_worker_processes_give_the_same_run(made: Path, tmp_path: Path, workers: int) -> None:
    run_fakes(tmp_path, {"name": "processes", "workers": workers})
    found = golden.differences(golden.read(made), golden.read(tmp_path / "run"))
    assert not found, "\n".join(["", *golden.listing(found, {}, 10)])


def test_the_golden_file_covers_failures_and_rejections() -> None:
    form = golden.read(FILE)
    assert all(form[table] for table in golden.KEYS if table != "models")
    assert {row["failure"] for row in form["clips"].values()} == {None, "render"}
    failures = set(golden.rows(form, "failures"))
    assert failures >= {(stage, "timeout") for stage in ("critique", "evolve", "sample", "evaluate")}
    assert failures >= {("evolve", "render"), ("evaluate", "render"), ("critique", "verdict"), ("sample", "verdict")}
    rejected = {row["rejected"] for row in golden.rows(form, "candidates").values()}
    assert rejected == {None, "unsafe", "unsafe as typed", "too long", "no verdict", "fidelity"}
    assert {stage for stage, *_ in golden.rows(form, "pairs")} == {"critique", "pairs"}
    assert {row["withheld"] for row in golden.rows(form, "evaluations").values()} == {None, "unsafe", "no verdict"}
    assert any(row["removed"] for row in golden.rows(form, "evaluations").values())


def test_a_changed_value_is_found_and_may_be_excepted(made: Path) -> None:
    old, new = golden.read(FILE), golden.read(made)
    changed = next(iter(new["scores"].values()))["scores"]
    changed["length"] += 1e-9
    new["clips"].popitem()
    found = golden.differences(old, new)
    tables = {(difference.table, difference.field) for difference in found}
    assert tables >= {("scores", "scores.length"), ("clips", "")}
    left, meant = golden.split(found, ["scores:scores.length", "clips:*"])
    assert tables & {(difference.table, difference.field) for difference in left} == set()
    assert len(left) + len(meant) == len(found)
