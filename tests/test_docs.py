"""What the documents say is so."""

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

import figures_table
import results_table
from promptreel.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"]


def test_the_readme_shows_the_figures_of_the_manifest() -> None:
    manifest = json.loads(figures_table.MANIFEST.read_text())
    assert figures_table.table(manifest) in (ROOT / "README.md").read_text(), "run: python tools/figures_table.py"


def test_the_readme_shows_what_the_full_run_found() -> None:
    summary = json.loads(figures_table.SUMMARY.read_text())
    assert figures_table.gains(summary) in (ROOT / "README.md").read_text(), "run: python tools/figures_table.py"


def test_the_results_are_those_of_the_summaries() -> None:
    assert results_table.PAGE.read_text() == results_table.page(results_table.summaries()), results_table.__doc__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_they_are_given(page: Path) -> None:
    """Every ``promptreel`` command in a block of code exists and knows its options."""
    lines = "\n".join(re.findall(r"```[a-z]*\n(.*?)```", page.read_text(), re.S)).replace("\\\n", " ").splitlines()
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


@pytest.mark.parametrize(
    "room", [p for p in (ROOT / "src" / "promptreel").iterdir() if p.name[0] not in "_."], ids=lambda room: room.name
)
def test_the_readme_has_every_room(room: Path) -> None:
    assert re.search(rf"\b{room.stem}\b", (ROOT / "README.md").read_text().split("src/promptreel/")[1])
