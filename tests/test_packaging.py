"""The project's configuration names only things that exist."""

import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from promptreel.extras import EXTRAS

ROOT = Path(__file__).parents[1]
CONFIGURATION: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOL, PROJECT = CONFIGURATION["tool"], CONFIGURATION["project"]


def named_paths() -> Iterator[str]:
    """Yield all files and folders that pyproject.toml names, patterns included."""
    yield PROJECT["readme"]
    yield from PROJECT["license-files"]
    yield TOOL["hatch"]["version"]["path"]
    for target in TOOL["hatch"]["build"]["targets"].values():
        yield from target.get("packages", [])
        yield from target.get("include", [])
    yield from TOOL["ruff"]["src"]
    yield from TOOL["ruff"]["lint"]["per-file-ignores"]
    yield TOOL["mypy"]["mypy_path"]
    yield from TOOL["pytest"]["ini_options"]["testpaths"]
    yield from TOOL["pytest"]["ini_options"]["pythonpath"]


@pytest.mark.parametrize("path", sorted(set(named_paths())))
def test_every_path_in_the_configuration_exists(path: str) -> None:
    assert list(ROOT.glob(path)), f"pyproject.toml names {path}"


def test_every_command_leads_to_a_function() -> None:
    for target in PROJECT["scripts"].values():
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name))


def test_every_extra_that_a_message_recommends_can_be_installed() -> None:
    assert set(EXTRAS.values()) <= set(PROJECT["optional-dependencies"])


def test_the_package_says_that_it_has_types() -> None:
    assert (ROOT / "src" / "promptreel" / "py.typed").exists()


def test_test_files_have_names_of_their_own() -> None:
    """Test folders are no packages, so pytest imports their files by name alone."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name not in ("conftest.py", "__init__.py")]
    assert not {name for name in names if names.count(name) > 1}
