"""The documents hold: figures, links, commands, paths and names of the package."""

import json
import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import figures_table
import results_table
from promptreel.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "promptreel"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
HISTORY = ("CHANGELOG.md", "LOG.md")
"""Pages that may name things of the past."""
PRESENT = [page for page in PAGES if page.name not in HISTORY]
FOLLOWED = "CONTRIBUTING.md"
"""Page whose code adds things to the package; ``test_contributing`` runs it."""
CODE_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    """Return the code blocks of a page."""
    return [code for _, code in CODE_BLOCK.findall(page.read_text())]


def spans(page: Path) -> list[str]:
    """Return everything between backquotes in the prose of a page."""
    return CODE_SPAN.findall(CODE_BLOCK.sub("", page.read_text()))


# Figures


def test_the_readme_shows_the_figures_of_the_manifest() -> None:
    manifest = json.loads(figures_table.MANIFEST.read_text())
    assert figures_table.table(manifest) in (ROOT / "README.md").read_text(), "run: python tools/figures_table.py"


def test_the_readme_shows_the_results_of_the_full_run() -> None:
    summary = json.loads(figures_table.SUMMARY.read_text())
    assert figures_table.gains(summary) in (ROOT / "README.md").read_text(), "run: python tools/figures_table.py"


def test_the_page_of_results_is_that_of_the_summaries() -> None:
    assert results_table.PAGE.read_text() == results_table.page(results_table.summaries()), results_table.__doc__


# Links, commands and paths


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_pages_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PRESENT, ids=name_of)
def test_commands_exist_and_take_the_options_that_they_are_given(page: Path) -> None:
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    for line in lines:
        found = re.match(r"\s*\$?\s*(?:\.venv/bin/)?promptreel (.+)", line)
        if not found:
            continue
        name, *words = shlex.split(found[1], comments=True)
        shown = CliRunner().invoke(app, [name, "--help"])
        assert shown.exit_code == 0, line
        for word in words:
            if word.startswith("-"):
                assert re.search(rf"(^|[\s,]){re.escape(word.split('=')[0])}\b", shown.output), line


@pytest.mark.parametrize("page", PRESENT, ids=name_of)
def test_python_files_that_are_named_exist(page: Path) -> None:
    """By their path from the repository, or from the package."""
    paths = [word for span in spans(page) for word in span.split() if word.endswith(".py")]
    missing = [p for p in paths if p.islower() and not ((ROOT / p).exists() or (PACKAGE / p).exists())]
    assert not missing


def test_the_readme_shows_every_room_and_no_other() -> None:
    tree = (ROOT / "README.md").read_text().split("src/promptreel/\n")[1].split("```")[0]
    rooms = [line for line in tree.splitlines() if line.startswith("  ")]
    shown = {room.strip("/") for line in rooms for room in re.split(r"\s{2,}", line.strip())[0].split()}
    there = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.name[0] not in "_."}
    assert shown == there


# Names


@cache
def known_words() -> set[str]:
    """Return all words of the package's code, templates and recipes, and of the project's configuration."""
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".toml", ".j2")]
    files += [ROOT / "pyproject.toml", ROOT / "Makefile"]
    words = {word for path in files for word in re.findall(r"\w+", path.read_text())}
    return words | {path.stem for folder in ("tests", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")}


def identifiers(span: str) -> list[str]:
    """Return the words of a code span that look like identifiers: ``snake_case``, ``CamelCase``, ``call()``."""
    if "/" in span and not span.endswith(".py"):  # an id of a hub, or a path of a run
        return []
    words = re.findall(r"(?<![\w-])[A-Za-z_]\w*(?![\w-])", re.sub(r'"[^"]*"', "", span))
    called = re.fullmatch(r"([a-z]\w*)\(\)", span)
    return [w for w in words if "_" in w.strip("_") or re.search(r"[a-z][A-Z]", w)] + ([called[1]] if called else [])


@pytest.mark.parametrize("page", PRESENT, ids=name_of)
def test_identifiers_that_are_named_exist_in_the_code(page: Path) -> None:
    examples = set(re.findall(r"\w+", "\n".join(blocks(page))))  # names that the page itself defines
    unknown = {word for span in spans(page) for word in identifiers(span)} - known_words() - examples
    assert not unknown


@pytest.mark.parametrize("span", ["complete_each", "EachLLM", "complete_each()", "an `LLM.complete_each(rows)`"])
def test_a_name_that_is_gone_would_be_found(span: str) -> None:
    assert set(identifiers(span)) - known_words()


@pytest.mark.parametrize("page", PRESENT, ids=name_of)
def test_dotted_names_of_the_package_lead_somewhere(page: Path) -> None:
    text = "\n".join([*spans(page), *([] if page.name == FOLLOWED else blocks(page))])
    for dotted in re.findall(r"(?<![\w/.])promptreel(?:\.[a-zA-Z_]\w*)+", text):
        if not dotted.endswith((".py", ".toml", ".json", ".git")) and not is_entry_point(dotted):
            assert resolve(dotted) is not None, dotted


def is_entry_point(dotted: str) -> bool:
    """Return True for a group of entry points, such as ``promptreel.rewards``, whose names are plural kinds."""
    from promptreel.registry import BUILT_IN, _plural

    return dotted in {"promptreel.profiles", *(f"promptreel.{_plural(kind)}" for kind in BUILT_IN)}


def resolve(dotted: str) -> Any:
    """Return the module or attribute of a dotted name, or ``None``."""
    module, _, name = dotted.rpartition(".")
    try:
        return import_module(dotted)
    except ModuleNotFoundError:
        pass
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        found = resolve(module) if "." in module else None
        return getattr(found, name, None)


@pytest.mark.parametrize("page", [page for page in PRESENT if page.name != FOLLOWED], ids=name_of)
def test_imports_of_the_package_in_examples_work(page: Path) -> None:
    for module, names in re.findall(r"^\s*from (promptreel[\w.]*) import ([\w, ]+)$", "\n".join(blocks(page)), re.M):
        for name in names.split(","):
            assert resolve(f"{module}.{name.strip()}") is not None, f"{module}.{name.strip()}"
