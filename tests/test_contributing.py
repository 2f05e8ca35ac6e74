"""CONTRIBUTING.md is followed literally: its code goes into a copy of the package, and a recipe runs with it."""

import copy
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fakes
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
ADDING = re.compile(r"^## (Adding [^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w+)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
SECTIONS = dict(ADDING.findall(PAGE))
COMPONENTS = ["a reward", "a judge", "a generator", "a language model", "a search"]
ROUNDS = 8
"""Rounds of evolution: more than the added search needs."""
RUN = """
import json, sys
import promptreel
from promptreel import profiles
from promptreel.config import parse_recipe
from promptreel.pipeline import run
from promptreel.preflight.cost import costs
from promptreel.testing import register_fakes

register_fakes()
recipe = parse_recipe(json.load(sys.stdin))
found, problems = costs(recipe)
run(recipe, "run")
print(json.dumps({
    "package": promptreel.__file__,
    "problems": problems,
    "verdicts": {cost.kind: cost.verdicts for cost in found},
    "profile": profiles.load("mine").title,
}))
"""


@dataclass
class Followed:
    """Everything that came of following the page."""

    touched: dict[str, set[str]] = field(default_factory=dict)
    """Files of the package that each section adds or changes."""
    recipe: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(fakes.RECIPE))
    said: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    database: Path = Path()

    def values(self, query: str) -> set[str]:
        with sqlite3.connect(self.database) as connection:
            return {row[0] for row in connection.execute(query)}


def follow(section: str, package: Path, followed: Followed) -> None:
    """Do every step of a section that has code."""
    touched = followed.touched.setdefault(section, set())
    for found in BLOCK.finditer(SECTIONS[section]):
        text = textwrap.dedent(found["text"])
        head, _, rest = text.partition("\n")
        if found["language"] == "diff":
            name = head.removeprefix("+++ src/promptreel/")
            change(package / name, rest)
            touched.add(name)
        elif head.startswith("# src/promptreel/"):
            name = head.removeprefix("# src/promptreel/")
            assert not (package / name).exists(), f"{name} exists already"
            (package / name).write_text(rest)
            touched.add(name)
        else:
            assert found["language"] == "toml", text
            extend(followed.recipe, tomllib.loads(text))


def change(file: Path, diff: str) -> None:
    """Apply a diff whose hunks are parted by ``@@`` and found by their lines, not by numbers."""
    text = file.read_text()
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, f"{file.name} has these lines {text.count(old)} times:\n{old}"
        text = text.replace(old, new)
    file.write_text(text)


def extend(recipe: dict[str, Any], changes: dict[str, Any]) -> None:
    """Set keys of a recipe, and keys of its stages by their kind; a new kind becomes its last stage."""
    for stage in changes.pop("stage", []):
        same = [known for known in recipe["stage"] if known["kind"] == stage["kind"]]
        if same:
            recipe["stage"][recipe["stage"].index(same[0])] = {**same[0], **stage}
        else:
            recipe["stage"].append(stage)
    recipe.update(changes)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """Follows the whole page in one copy of the package, and runs one recipe with everything that it adds."""
    place = tmp_path_factory.mktemp("contributing")
    package, weights = place / "src" / "promptreel", ROOT / "src" / "promptreel" / "tiny" / "weights"
    shutil.copytree(ROOT / "src" / "promptreel", package, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    (package / "tiny" / "weights").symlink_to(weights)
    found = Followed(database=place / "run" / "run.db")
    for section in SECTIONS:
        follow(section, package, found)
    (place / "q.txt").write_text("\n".join(fakes.QUERIES))
    found.recipe["stage"][0]["rounds"] = ROUNDS
    environment = {**os.environ, "PYTHONPATH": str(place / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(found.recipe),
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found.said = json.loads(done.stdout)
    found.summary = json.loads((place / "run" / "summary.json").read_text())
    assert Path(found.said["package"]).parent == package
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_is_a_list_of_numbered_steps(section: str) -> None:
    steps = re.findall(r"^(\d)\. ", SECTIONS[section], re.MULTILINE)
    assert steps == ["1", "2", "3", "4", "5"]


def test_a_component_is_one_new_file_and_one_row(followed: Followed) -> None:
    for component in COMPONENTS:
        touched = followed.touched[f"Adding {component}"]
        assert "registry.py" in touched
        assert len(touched) == 2, component


def test_a_stage_kind_is_a_table_a_file_and_a_row(followed: Followed) -> None:
    assert followed.touched["Adding a stage kind"] == {"config/stages.py", "stages/screen.py", "stages/__init__.py"}


def test_a_pair_rule_and_a_profile_are_one_file(followed: Followed) -> None:
    assert followed.touched["Adding a pair rule"] == {"pairs.py"}
    assert followed.touched["Adding a profile"] == {"profiles/mine.toml"}


def test_the_recipe_runs_with_everything_that_was_added(followed: Followed) -> None:
    assert followed.summary["finished"]
    assert not followed.said["problems"]


def test_the_added_components_do_the_work(followed: Followed) -> None:
    assert followed.values("SELECT generator FROM clips") == {"noise:1:tiny"}
    assert followed.values("SELECT judge FROM verdicts") == {"words:1:['gory']"}
    assert "echo:1" in followed.values("SELECT llm FROM completions")
    assert "brightness:1" in followed.values("SELECT reward FROM scores")
    rewards = followed.values("SELECT reward FROM candidates WHERE reward IS NOT NULL")
    assert len(rewards) > 1


def test_the_added_search_ends_when_nothing_gets_better(followed: Followed) -> None:
    assert followed.recipe["stage"][0]["search"] == {"name": "patient", "patience": 1}
    best = followed.summary["stages"]["evolve"]["best_by_round"]
    assert len(best) < 1 + ROUNDS
    assert best[-1] == best[-2]


def test_the_added_stage_kind_counts_and_costs(followed: Followed) -> None:
    assert followed.summary["stages"]["screen"] == {"withheld": {"none": 4, "unsafe": 1}}
    assert followed.said["verdicts"]["screen"] == len(fakes.QUERIES)


def test_the_added_pair_rule_pairs(followed: Followed) -> None:
    assert followed.values("SELECT rule FROM pairs") == {"extremes"}


def test_the_added_profile_is_found(followed: Followed) -> None:
    assert followed.said["profile"] == "My video model"
