"""Shared set-up: fakes by name, and no network but loopback."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import fakes
import pytest

from promptreel import registry

os.environ["HF_HUB_OFFLINE"] = "1"  # what asks the hub is told at once that it is not there


@pytest.fixture
def fake_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the fakes under the name ``fake`` and forgets what they counted."""
    for kind, name in fakes.NAMES.items():
        monkeypatch.setitem(registry.BUILT_IN[kind], "fake", f"fakes:{name}")
    for counter in (fakes.FakeGenerator.rendered, fakes.FakeReward.scored, fakes.FakeJudge.judged):
        counter.clear()
    fakes.FakeGenerator.batches.clear()
    fakes.FakeLLM.asked.clear()


@pytest.fixture
def place(tmp_path: Path, fake_components: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a run of the recipe of fakes goes, beside its queries."""
    monkeypatch.chdir(tmp_path)
    Path("q.txt").write_text("\n".join(fakes.QUERIES))
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test asked for is not remembered in the next, nor among what the person who tests asked for."""
    monkeypatch.setenv("PROMPTREEL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but this machine is contacted."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):  # type: ignore[index]
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
    return
