"""Shared set-up: fakes by name, components of one test alone, and no network but loopback."""

import copy
import os
import socket
from pathlib import Path

import fakes
import policy_fakes
import pytest

from promptreel import registry
from promptreel.testing import forget_counts

os.environ["HF_HUB_OFFLINE"] = "1"  # code that asks the hub is told at once that it is not there


@pytest.fixture(autouse=True)
def own_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the components that a test registers."""
    monkeypatch.setattr(registry, "ADDED", copy.deepcopy(registry.ADDED))


@pytest.fixture
def fake_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the fakes under the name ``fake``, and forget their counts."""
    for kind, name in fakes.NAMES.items():
        monkeypatch.setitem(registry.BUILT_IN[kind], "fake", f"fakes:{name}")
    forget_counts()


@pytest.fixture
def policy_components(fake_components: None) -> None:
    """Register the components of ``policy_fakes``, and forget their counts."""
    registry.register("llm", "mender", "policy_fakes:Mender")
    registry.register("llm", "fabulist", "policy_fakes:Fabulist")
    registry.register("judge", "dragon", "policy_fakes:DragonJudge")
    policy_fakes.Mender.heard.clear()


@pytest.fixture
def place(tmp_path: Path, fake_components: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a run of the recipe of fakes, beside its queries, which lie in the current one."""
    monkeypatch.chdir(tmp_path)
    Path("q.txt").write_text("\n".join(fakes.QUERIES))
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test a user cache of its own."""
    monkeypatch.setenv("PROMPTREEL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):  # type: ignore[index]
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)
