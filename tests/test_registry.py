"""Components are found by name, checked by signature, and missing extras say what to type."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from promptreel import profiles, registry
from promptreel.errors import EXTRAS, MissingExtra, RecipeError, UnknownName, importing
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


def test_every_extra_that_is_advised_is_one_of_the_package_and_brings_what_it_says() -> None:
    metadata = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    brought = metadata["optional-dependencies"]
    by = {"cv2": "opencv-python-headless", "pyarrow": "datasets"}
    for module, extra in EXTRAS.items():
        names = {re.split(r"[<>=]", requirement)[0] for requirement in brought[extra]}
        assert by.get(module, module) in names


def test_a_missing_extra_says_the_line_to_type() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'promptreel\[serve\]'"), importing("the server"):
        raise ModuleNotFoundError("no fastapi", name="fastapi.responses")
    with pytest.raises(ModuleNotFoundError), importing("x"):
        raise ModuleNotFoundError("a bug of ours", name="promptreel.nonsense")


@pytest.mark.parametrize(
    "code", ["import promptreel", "import promptreel.cli", "from promptreel.recipes import load_recipe"]
)
def test_the_core_does_not_import_heavy_libraries(code: str) -> None:
    heavy = {"torch", "transformers", "diffusers", "cv2", "av"}
    check = f"import sys; {code}; bad = {heavy} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", check], check=True)
