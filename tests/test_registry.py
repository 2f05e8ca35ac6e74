"""The registry: components by name, their options, their parts, their declarations, and missing extras."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from promptreel import profiles, registry, testing
from promptreel.errors import MissingExtra, RecipeError, UnknownName
from promptreel.extras import EXTRAS, importing
from promptreel.types import Component


def test_every_built_in_component_exists() -> None:
    for kind, known in registry.BUILT_IN.items():
        for name in known:
            assert registry.find(kind, name)


def test_unknown_names_and_options_suggest_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'diffusers'"):
        registry.find("generator", "difusers")
    with pytest.raises(RecipeError, match="has no option 'stepz'; did you mean 'steps'"):
        registry.check(Component("generator", "diffusers", {"profile": "tiny", "stepz": 3}))
    with pytest.raises(RecipeError, match="needs the option 'model'"):
        registry.check(Component("reward", "xclip"))
    with pytest.raises(UnknownName, match="did you mean 'tiny'"):
        profiles.load("tinny")


SERVER = {"name": "endpoint", "model": "m", "url": "http://127.0.0.1:8000/v1"}


def test_parts_of_a_component_are_found_by_annotation() -> None:
    facts = {"name": "llm", "llm": SERVER}
    guarded = Component("judge", "guarded", {"facts": facts, "guard": {"name": "guard", "llm": SERVER}})
    found = [(part.kind, part.name) for part in registry.whole(guarded)]
    assert found == [
        ("judge", "guarded"),
        ("judge", "llm"),
        ("llm", "endpoint"),
        ("judge", "guard"),
        ("llm", "endpoint"),
    ]
    assert registry.build(guarded).facts.llm.model == "m"


def test_clients_of_a_server_declare_it() -> None:
    remote = {("llm", "endpoint"), ("judge", "moderation")}
    for kind, known in registry.BUILT_IN.items():
        if kind in ("generator", "reward", "judge", "llm"):
            own = {(kind, name) for name in known if not name.startswith("tiny-")}
            assert {found for found in own if registry.declared(*found, "remote", False)} == own & remote


@pytest.mark.parametrize("name", registry.BUILT_IN["reward"])
def test_a_reward_declares_what_is_known_without_building_it(name: str) -> None:
    dimensions = registry.declared("reward", name, "dimensions")
    assert dimensions
    assert registry.declared("reward", name, "modality", "video") in ("image", "video", "motion")
    assert set(registry.declared("reward", name, "moving", ())) <= set(dimensions)
    ranges = registry.declared("reward", name, "ranges", {})
    assert ranges.keys() <= set(dimensions)
    assert all(low < high for low, high in ranges.values())


def test_the_public_fakes_are_registered_by_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ADDED", {})
    with pytest.raises(UnknownName):
        registry.find("reward", "fake")
    testing.register_fakes()
    for kind, fake in testing.FAKES.items():
        assert registry.find(kind, "fake") is fake
        assert registry.build(Component(kind, "fake")).fingerprint
    reward = Component("reward", "fake", {"held_out": True})
    assert registry.build(reward).fingerprint != registry.build(Component("reward", "fake")).fingerprint


def test_every_extra_that_a_message_names_installs_its_modules() -> None:
    metadata = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    brought = metadata["optional-dependencies"]
    by = {"cv2": "opencv-python-headless", "pyarrow": "datasets"}
    for module, extra in EXTRAS.items():
        names = {re.split(r"[<>=]", requirement)[0] for requirement in brought[extra]}
        assert by.get(module, module) in names


def test_a_missing_extra_names_the_command_that_installs_it() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'promptreel\[serve\]'"), importing("the server"):
        raise ModuleNotFoundError("no fastapi", name="fastapi.responses")
    with pytest.raises(ModuleNotFoundError), importing("x"):
        raise ModuleNotFoundError("a bug of ours", name="promptreel.nonsense")


@pytest.mark.parametrize(
    "code", ["import promptreel", "import promptreel.cli", "from promptreel.config import load_recipe"]
)
def test_the_core_does_not_import_heavy_libraries(code: str) -> None:
    heavy = {"torch", "transformers", "diffusers", "cv2", "av"}
    check = f"import sys; {code}; bad = {heavy} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", check], check=True)
