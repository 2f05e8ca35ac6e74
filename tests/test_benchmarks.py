"""The scripts in benchmarks: recipes are compared by the same arithmetic as systems."""

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import fakes
import numpy as np
import pytest

from promptreel import registry
from promptreel.config import parse_recipe
from promptreel.evaluation import compare, stats
from promptreel.pipeline import run
from promptreel.store import Run, Summary
from promptreel.types import Candidate, Clip, Failure, Query, RenderRequest, ScoredClip

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recipes() -> ModuleType:
    return script("recipes")


class Flaky(fakes.FakeGenerator):
    """A generator that fails at a third of the clips, whichever the noise seed decides."""

    def render(self, requests: Sequence[RenderRequest], on_step: object = None) -> list[Clip | Failure]:
        rendered = super().render(requests)
        failed = [(len(request.prompt) + request.seed) % 3 == 0 for request in requests]
        return [Failure("render") if fails else clip for clip, fails in zip(rendered, failed, strict=True)]


def evaluated(place: Path, seed: int) -> Summary:
    """Run an evaluation of ``raw``, ``base`` and ``other``; with a benchmark of texts alone beside it."""
    queries = {"source": "q.txt"}
    benchmarks = {
        "mine": {"queries": queries, "clips_per_prompt": 3},
        "texts": {"queries": queries, "clips_per_prompt": 0},
    }
    evaluate = {**fakes.RECIPE["stage"][-1], "benchmarks": benchmarks}
    return run(parse_recipe({**fakes.RECIPE, "seed": seed, "stage": [fakes.RECIPE["stage"][0], evaluate]}), place)


@pytest.fixture
def runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Path], list[Summary]]:
    """Return two runs that differ in the training seed, and their summaries."""
    monkeypatch.setitem(registry.BUILT_IN["generator"], "fake", "test_benchmarks:Flaky")
    Path("q.txt").write_text("\n".join([*fakes.QUERIES, "white cube", "old hoop", "pink cone", "dark moon"]))
    directories = [place / str(seed) for seed in (1, 2)]
    return directories, [evaluated(directory, seed) for seed, directory in enumerate(directories, 1)]


def printed(module: ModuleType, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    """Return the cells of all rows that the script prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["recipes.py", *arguments, "--benchmark", "mine", "--metric", "length"])
        module.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_recipes_are_compared_as_the_systems_of_a_run_are(
    recipes: ModuleType, runs: tuple[list[Path], list[Summary]], capsys: pytest.CaptureFixture[str]
) -> None:
    """By the noise seeds that both have a clip of: the means over all clips would give other win rates."""
    directories, summaries = runs
    both = ",".join(map(str, directories))
    rows = printed(recipes, capsys, *(f"{name}:{name}={both}" for name in ("raw", "base", "other")))
    each = {(a, b): rates for a, b, _, rates in (row for row in rows if len(row) == 4)}
    expected: dict[tuple[str, str], list[float]] = {}
    for summary in summaries:
        for row in (row for row in summary.comparisons if row.metric == "length"):
            expected.setdefault((f"{row.a}:{row.a}", f"{row.b}:{row.b}"), []).append(row.win_rate)
    assert len(expected) == 3
    for pair, rates in expected.items():
        assert [float(rate) for rate in each[pair].split(", ")] == pytest.approx(rates, abs=1e-3)
    with Run(directories[0], writable=False) as opened:
        found = opened.records.evaluation("mine")
    by_means = {
        name: {query: c.scores["length"] for query, c in found[name].items() if c.scores.get("length") is not None}
        for name in found
    }
    common = by_means["base"].keys() & by_means["raw"].keys()
    naive = stats.win_rate(*([by_means[name][query] for query in common] for name in ("base", "raw")))
    assert naive.value != pytest.approx(expected["base:base", "raw:raw"][0])


def test_the_table_of_recipes_shows_costs_and_shares_of_texts(
    recipes: ModuleType, runs: tuple[list[Path], list[Summary]], capsys: pytest.CaptureFixture[str]
) -> None:
    directories, summaries = runs
    rows = printed(recipes, capsys, f"mine={directories[0]},{directories[1]}")
    (means,) = [row for row in rows if row[0] == "mine (other)"]  # the last system, for no student is trained
    assert means[1:3] == ["2", "/".join(str(summary.renders["evolve"]) for summary in summaries)]
    assert re.fullmatch(r"\d+\.\d{3} \[\d+\.\d{3}, \d+\.\d{3}\]", means[3])
    (texts,) = [row for row in rows if row[:2] == ["mine", "texts"]]
    assert texts[2].startswith(f"{1 / 9:.4f} [")
    assert texts[4] == "0 of 18"


def test_runs_without_a_common_query_cannot_be_compared(recipes: ModuleType) -> None:
    def student(text: str) -> Any:
        query = Query(text)
        clip = ScoredClip(0, "c", {"length": 1.0})
        return recipes.Student("x", {query: Candidate(query, text, clips=(clip,))}, {}, 0)

    assert recipes.won(student("a"), student("a"), "length") == [0.5]
    with pytest.raises(SystemExit, match="no query in common"):
        recipes.won(student("a"), student("b"), "length")


def test_the_mean_across_groups_resamples_groups_and_values() -> None:
    rng = np.random.default_rng(1)
    alike = [list(rng.normal(0.5, 0.1, 60)) for _ in range(3)]
    apart = [[value + shift for value in group] for group, shift in zip(alike, (-0.3, 0.0, 0.3), strict=True)]
    near, far = stats.across(alike), stats.across(apart)
    assert near.value == pytest.approx(far.value)
    assert near.value == pytest.approx(float(np.mean([np.mean(group) for group in alike])))
    assert near.low < near.value < near.high
    assert far.high - far.low > 3 * (near.high - near.low)  # of the groups
    assert stats.across([alike[0]]).high - stats.across([alike[0]]).low > 0.02  # of the values
    assert near.count == 180
    with pytest.raises(ValueError, match="a group without values"):
        stats.across([[1.0], []])


def test_no_benchmark_reads_raw_rows() -> None:
    for path in BENCHMARKS.glob("*.py"):
        assert "sqlite3" not in path.read_text(), path.name


def test_win_rates_of_systems_are_the_means_of_their_outcomes() -> None:
    a, b = [1.0, 2.0, 3.0, 0.0], [1.0, 1.0, 4.0, -1.0]
    assert list(stats.outcomes(a, b)) == [0.5, 1.0, 0.0, 1.0]
    assert stats.win_rate(a, b).value == float(stats.outcomes(a, b).mean())
    assert compare.win_rate({}, {}, "length") is None
