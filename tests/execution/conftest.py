"""A run of fakes for each test, and names that are registered for one test alone."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptreel import registry
from promptreel.store import Run
from promptreel.testing import register_fakes


@pytest.fixture(autouse=True)
def own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the fakes, also for worker processes, and forget the components that a test registers."""
    monkeypatch.setattr(registry, "ADDED", copy.deepcopy(registry.ADDED))
    register_fakes()


@pytest.fixture
def run(tmp_path: Path, fake_components: None) -> Iterator[Run]:
    with Run(tmp_path / "run") as opened:
        yield opened
