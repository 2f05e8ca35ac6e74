"""A run of fakes for each test, whose components worker processes know, too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from promptreel.store import Run
from promptreel.testing import register_fakes


@pytest.fixture(autouse=True)
def registered() -> None:
    register_fakes()


@pytest.fixture
def run(tmp_path: Path, fake_components: None) -> Iterator[Run]:
    with Run(tmp_path / "run") as opened:
        yield opened
