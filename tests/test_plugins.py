"""Contracts that every component keeps, built in or plugged in, and components of another author's package."""

import json
import pickle
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptreel import profiles, registry
from promptreel.config import ComponentTable, parse_recipe
from promptreel.errors import RecipeError
from promptreel.pipeline import run
from promptreel.preflight.check import check, dimensions
from promptreel.protocols import LLM, Generator, Reward
from promptreel.store import Run
from promptreel.store.content import read_render_batches
from promptreel.types import Clip, Completion, Component, Failure, Query, RenderRequest, SamplingParams, Scores

PLUGIN = Path(__file__).parent / "plugin"
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("generator", "diffusers"): {"profile": "tiny", "steps": 2},
    ("generator", "stripes"): {"profile": "stripes"},
    ("llm", "local"): {"model": "package:promptreel.tiny/weights/base"},
    ("reward", "xclip"): {"model": "package:promptreel.tiny/weights/alignment"},
}
"""Options with which components are built offline. A component that needs more has tests of its own."""
ELSEWHERE = {("llm", "endpoint"): "needs a server: tests/test_endpoint.py"}


def write_installed(to: Path) -> None:
    """Lay the plug-in out as an installer does: its package, and the metadata that importlib reads."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    shutil.copytree(PLUGIN / "promptreel_stripes", to / "promptreel_stripes")
    about = to / f"promptreel_stripes-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    site = tmp_path / "site"
    site.mkdir()
    write_installed(site)
    monkeypatch.syspath_prepend(str(site))
    forget()
    yield site
    forget()


def forget() -> None:
    """Empty the caches of components and profiles, so that packages are looked up again."""
    sys.modules.pop("promptreel_stripes", None)
    for cached in (registry._plugged, profiles.load, profiles.token_counter):
        cached.cache_clear()


def registered(kind: str) -> list[str]:
    """Return the names of all components of a kind, also those of the plug-in, which is not installed yet."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    return sorted({*registry.names(kind), *project["entry-points"][f"promptreel.{kind}s"]})


def built(kind: str, name: str) -> Any:
    """Return a component, with a fingerprint that is the same each time; skip one that has tests of its own."""
    if (kind, name) in ELSEWHERE:
        pytest.skip(ELSEWHERE[kind, name])
    component = Component(kind, name, OPTIONS.get((kind, name), {}))
    assert pickle.loads(pickle.dumps(component)) == component
    try:
        made = registry.build(component)
    except RecipeError as error:
        if "needs the option" not in str(error):
            raise
        pytest.skip(f"{error}, which has tests of its own")
    again = registry.build(component)
    assert isinstance(made.fingerprint, str)
    assert made.fingerprint == again.fingerprint
    return made


@pytest.mark.parametrize("name", registered("generator"))
def test_a_generator_keeps_its_contract(name: str, plugin: Path) -> None:
    model: Generator = built("generator", name)
    assert isinstance(model, Generator)
    assert model.batch_size > 0
    asked = [RenderRequest(text, "", seed) for text in ("a red circle", "a blue star") for seed in (1, 2)]
    first, again = model.render(asked), model.render(asked)
    for request, clip, same in zip(asked, first, again, strict=True):
        assert isinstance(clip, Clip)
        assert isinstance(same, Clip)
        assert clip.id == request.clip_id(model.fingerprint)
        assert clip.frames.dtype == np.uint8
        assert clip.frames.ndim == 4
        assert clip.frames.shape[-1] == 3
        assert clip.fps > 0
        assert (clip.frames == same.frames).all()
    clips = [clip.frames.astype(int) for clip in first if isinstance(clip, Clip)]
    assert (clips[0] != clips[1]).any(), "the seed changes nothing"
    assert (clips[0] != clips[2]).any(), "the prompt changes nothing"
    (alone,) = model.render(asked[2:3])
    assert isinstance(alone, Clip)
    assert np.abs(clips[2] - alone.frames).max() <= 2, "a clip depends on the others in its batch"
    assert model.render([]) == []
    steps: list[tuple[int, int]] = []
    model.render(asked[:1], on_step=lambda done, total: steps.append((done, total)))
    assert all(0 < done <= total for done, total in steps)


@pytest.mark.parametrize("name", registered("llm"))
def test_a_language_model_keeps_its_contract(name: str, plugin: Path) -> None:
    model: LLM = built("llm", name)
    assert isinstance(model, LLM)
    asked = [[{"role": "user", "content": f"Rewrite for video: a {colour} ball"}] for colour in ("red", "blue")]
    samplings = SamplingParams(max_tokens=12, seed=3).each(asked)
    first = model.complete(asked, samplings)
    assert len(first) == len(asked)
    assert all(isinstance(reply, Completion | Failure) for reply in first)
    assert first == model.complete(asked, samplings)


@pytest.mark.parametrize("name", registered("reward"))
def test_a_reward_keeps_its_contract(name: str, plugin: Path) -> None:
    model: Reward = built("reward", name)
    assert isinstance(model, Reward)
    table = ComponentTable(name=name, **OPTIONS.get(("reward", name), {}))
    assert tuple(dimensions(table)) == tuple(model.dimensions), "its class declares other dimensions"
    rng = np.random.default_rng(0)
    clips = [Clip(str(n), rng.integers(0, 256, (frames, 64, 64, 3), np.uint8), 8) for n, frames in enumerate((9, 9, 1))]
    items = [(Query(text), clip) for clip in clips for text in ("a red ball", "a blue star")]
    whole = model.score(items)
    assert len(whole) == len(items)
    for item, scores in zip(items, whole, strict=True):
        assert set(scores) == set(model.dimensions)
        assert all(value is None or np.isfinite(value) for value in scores.values())
        (alone,) = model.score([item])
        assert close(scores, alone), "a score depends on the others in its batch"


def close(a: Scores, b: Scores) -> bool:
    return all(a[k] == b[k] if a[k] is None or b[k] is None else a[k] == pytest.approx(b[k], abs=1e-3) for k in a)


def test_a_package_of_another_author_adds_components_and_a_profile(plugin: Path) -> None:
    assert registry.find("generator", "stripes").__module__ == "promptreel_stripes"
    assert "stripes" in profiles.names()
    profile = profiles.load("stripes")
    assert (profile.token_limit, profile.pipeline) == (40, None)
    assert profiles.token_counter("stripes").fits("three red stripes")
    with pytest.raises(RecipeError, match="diffusers has no pipeline for stripes"):
        registry.build(Component("generator", "diffusers", {"profile": "stripes"}))


def test_a_package_cannot_take_a_name_that_is_built_in(plugin: Path) -> None:
    (plugin / "promptreel_stripes" / "tiny.toml").write_text("not even TOML")
    entries = plugin / "promptreel_stripes-0.1.dist-info" / "entry_points.txt"
    entries.write_text(
        "[promptreel.profiles]\ntiny = promptreel_stripes\n[promptreel.generators]\ndiffusers = nowhere:At"
    )
    forget()
    assert profiles.load("tiny").title.startswith("The tiny video model")
    assert registry.find("generator", "diffusers").__name__ == "DiffusersGenerator"


def test_a_run_goes_through_the_plugged_in_components(plugin: Path, fake_components: None, tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("red stripes\nblue stripes --ar 2:3\n")
    writer = {"llm": {"name": "chain"}, "format": "brief"}
    recipe = parse_recipe(
        {
            "name": "stripes",
            "profile": "stripes",
            "generator": {"name": "stripes", "stripes": 5},
            "student": writer,
            "teacher": writer,
            "judge": {"name": "fake"},
            "rewards": {"contrast": {"name": "contrast"}},
            "objectives": {"total": {"weights": {"contrast": 1.0}}},
            "stage": [{"kind": "evolve", "queries": {"source": str(queries)}, "rounds": 1, "objective": "total"}],
        }
    )
    check(recipe)
    summary = run(recipe, tmp_path / "run")
    assert summary.finished
    assert summary.renders["evolve"] >= 4
    with Run(tmp_path / "run", writable=False) as opened:
        candidates = opened.records.candidates("evolve")
        ids = [clip.clip for candidate in candidates for clip in candidate.clips if clip.clip]
        shapes = {opened.clips.read(key).frames.shape[1:3] for key in ids}
        with opened.database.reading() as connection:
            batches = read_render_batches(connection, ids)
    assert shapes == {(16, 24), (24, 16)}
    aspects = {request.aspect for batch in batches for request in batch}
    assert aspects == {"", "2:3"}, "a damaged clip would be rendered again in another shape"


@pytest.mark.slow
def test_the_plugin_installs_with_pip(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    shutil.copytree(PLUGIN, tmp_path / "source")
    subprocess.run([*pip, "--target", str(site), str(tmp_path / "source")], check=True)
    said = subprocess.run(
        [sys.executable, "-c", SAY],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{site}:{Path(__file__).parents[1] / 'src'}"},
    )
    assert json.loads(said.stdout) == ["Stripes", "Chain", "Contrast", 40]


SAY = """
import json
from promptreel import profiles, registry
found = [registry.find(*name).__name__ for name in (("generator", "stripes"), ("llm", "chain"), ("reward", "contrast"))]
print(json.dumps([*found, profiles.load("stripes").token_limit]))
"""
