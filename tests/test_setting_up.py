"""Before the first run: profiles, a recipe to begin with, its cost, and its needs of this machine."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import huggingface_hub
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_rewrite import WITHOUT_EXTRAS

from promptreel import cli, pipeline, profiles
from promptreel.config import load_recipe, parse_recipe
from promptreel.preflight.cost import costs
from promptreel.preflight.doctor import Machine, fit_of, outlook
from promptreel.preflight.inventory import components
from promptreel.store import Run

BOX = Machine(16, 64.0, 500.0, [("a GPU of 24 GB", 24.0)])


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Runs a command in this process, in an empty directory: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["promptreel", *arguments])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        return int(exit.value.code or 0), *capsys.readouterr()

    return run


def test_profiles_are_listed_and_shown_with_their_licences(call: Any) -> None:
    code, out, _ = call("profiles", "--json")
    assert code == 0
    listed = json.loads(out)
    assert [profile["name"] for profile in listed] == profiles.names()
    assert all(profile["licence"] for profile in listed)
    assert "wan2.2-a14b" in call("profiles")[1]
    shown = call("profiles", "wan2.2-5b")[1]
    assert "Apache-2.0" in shown
    assert "512" in shown
    assert json.loads(call("profiles", "wan2.2-5b", "--json")[1])["token_limit"] == 512
    code, _, err = call("profiles", "wan22-5b")
    assert (code, "did you mean 'wan2.2-5b'" in err) == (2, True)


def test_a_recipe_to_begin_with_is_accepted_as_it_is(call: Any) -> None:
    assert call("init", "--for", "wan2.2-5b", "--out", "mine.toml")[0] == 0
    text = Path("mine.toml").read_text()
    assert text.count("\n#") > 10
    assert "Apache-2.0" in text
    code, out, err = call("run", "mine.toml", "--dry-run", "--json")
    assert (code, err) == (2, "error: no file of queries at queries.txt\n")
    planned = json.loads(out)
    assert planned["problems"] == ["no file of queries at queries.txt"]
    assert {stage["name"]: stage["renders"] for stage in planned["stages"]} == {
        "evolve": 1300, "sft": 0, "sample": 400, "pairs": 0, "dpo": 0, "evaluate": 400,
    }  # fmt: skip
    Path("queries.txt").write_text("\n".join(f"a cat number {n}" for n in range(250)))
    code, out, err = call("run", "mine.toml", "--dry-run", "--json")
    assert (code, json.loads(out)["problems"]) == (0, []), err
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["mine.toml", "queries.txt"]
    code, _, err = call("init", "--for", "sdxl", "--out", "mine.toml")
    assert (code, "is there already" in err) == (2, True)
    assert Path("mine.toml").read_text() == text


def test_every_profile_gets_a_recipe(call: Any) -> None:
    Path("own.toml").write_text(
        'name = "own"\ntitle = "\\"Own\\" model"\npipeline = "WanPipeline"\nmodel = "own/model"\nlicence = "mine"\n'
        "height = 8\nwidth = 8\nframes = 5\nfps = 8\nsteps = 2\nguidance = 1.0\ntoken_limit = 32\n"
    )
    for name in [*profiles.names(), "own.toml"]:
        out = f"recipe-{name.replace('.', '-')}.toml"
        assert call("init", "--for", name, "--out", out, "--queries", 'quo"ted.txt')[0] == 0
        recipe, text = load_recipe(out)
        assert recipe.profile == name
        assert tomllib.loads(text)["stage"][0]["queries"]["source"] == 'quo"ted.txt'
        image = profiles.load(name).frames == 1
        assert ("persistence" in recipe.objectives["total"].weights) is not image  # no image has a motion to measure


def test_a_dry_run_finds_mistakes_and_leaves_no_trace(call: Any) -> None:
    code, _, err = call("run", "tiny", "--dry-run", "--set", "rewards.pixels.name=pixel")
    assert (code, "did you mean 'pixels'" in err) == (2, True)
    code, out, _ = call("run", "tiny", "--dry-run", "--until", "sample-1")
    assert code == 0
    assert "2,080" in out
    assert "evaluate" not in out
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("absent", ["./mine", "/nowhere/mine", "runs/old/models/dpo", "here/mine", "package:nope/mine"])
@pytest.mark.parametrize(
    ("role", "change"),
    [
        ("student", "student.llm.model={}"),
        ("adapter of the student", "student.llm.adapter={}"),
        ("teacher", "teacher.llm.model={}"),
        ("video model", "generator.model={}"),
        ("adapter of the video model", "generator.adapters=['{}']"),
        ("reward alignment", "rewards.alignment.model={}"),
    ],
)
def test_a_model_that_is_not_there_is_named_before_anything_is_paid(
    call: Any, role: str, change: str, absent: str
) -> None:
    Path("here").mkdir()
    change = change.format(absent)
    code, out, err = call("run", "tiny", "--dry-run", "--set", change)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{role}: no model at {absent}" in err
    assert "in all" in out  # the plan is shown all the same
    code, _, err = call("run", "tiny", "--set", change, "--out", "out")
    assert code == 2
    assert f"{role}: no model at {absent}" in err
    assert not Path("out/recipe.json").exists()


def test_a_model_on_the_hub_or_behind_an_endpoint_is_not_missing(call: Any) -> None:
    served = "teacher.llm={name='endpoint', model='./served', url='http://127.0.0.1:1/v1'}"
    code, _, err = call("run", "tiny", "--dry-run", "--set", "student.llm.model=owner/name", "--set", served)
    assert code == 0, err


def test_only_queries_up_to_the_last_stage_asked_for_must_be_there(call: Any) -> None:
    gone = "evaluate.benchmarks.tiny-ood.queries={source='gone.txt'}"
    assert call("run", "tiny", "--dry-run", "--set", gone, "--until", "dpo-2")[0] == 0
    code, _, err = call("run", "tiny", "--dry-run", "--set", gone)
    assert (code, err) == (2, "error: no file of queries at gone.txt\n")


def test_costs_are_upper_bounds_of_a_run(place: Path) -> None:
    recipe = parse_recipe(fakes.RECIPE)
    stages, problems = costs(recipe)
    pipeline.run(recipe, place)
    with Run(place, writable=False) as opened:
        done = {stage.name: opened.records.renders(stage.name) for stage in stages}
    assert problems == []
    assert sum(done.values()) > 0
    for stage in stages:
        assert stage.renders is not None
        assert done[stage.name] <= stage.renders
        assert (stage.renders > 0) == (done[stage.name] > 0)


def test_an_unknown_number_of_queries_stays_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, _ = load_recipe("tiny", ["evolve.queries={source='hub:owner/prompts'}"])
    stages, problems = costs(recipe)
    assert (stages[0].queries, stages[0].renders, problems) == (None, None, [])
    assert outlook(recipe, BOX).hours is None


@pytest.mark.parametrize(
    ("profile", "options", "weights"),
    [
        ("wan2.2-5b", {}, 11.4),  # offloaded as a rule: the largest component in half precision, its text encoder
        ("wan2.2-5b", {"offload": "none"}, 2 * (5.0 + 5.7) + 4 * 0.7),  # its autoencoder stays in float32
        ("wan2.2-5b", {"offload": "sequential"}, None),
        ("sdxl", {"dtype": "float32"}, 4 * 3.5),
        ("sdxl", {"model": "somebody/else"}, None),
    ],
)
def test_weights_on_a_gpu_are_counted_from_parameters(profile: str, options: Any, weights: float | None) -> None:
    fit = fit_of(profiles.load(profile), BOX, options)
    assert fit.weights == (weights and pytest.approx(weights))
    assert fit.fits is (None if weights is None else weights < 24)


def test_weights_on_the_disk_are_counted_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--owner--model" / "snapshots" / "abc"
    (snapshot / "transformer").mkdir(parents=True)
    save_file({"w": np.zeros((30, 100)), "b": np.zeros(50)}, snapshot / "transformer" / "model.safetensors")
    assert components(str(snapshot)) == {"transformer": pytest.approx(3050 / 1e9)}
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    recipe, _ = load_recipe("tiny", ["generator.model=owner/model", "student.llm.model=owner/absent-7B-chat"])
    models = {model.role: model for model in outlook(recipe, BOX).models}
    assert (models["video model"].place, models["video model"].source) == ("here", "disk")
    assert models["video model"].size == pytest.approx(3050 * 8 / 1e9, rel=0.1)
    assert (models["student"].place, models["student"].size, models["student"].source) == ("hub", 14.0, "name")


def test_the_doctor_asks_the_hub_only_if_told_to(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def model_info(self: Any, model: str, files_metadata: bool) -> Any:
        asked.append(model)
        sizes = {"a.safetensors": 3e9, "b.safetensors": 1e9, "pytorch_model.bin": 4e9}
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in sizes.items()])

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    call("init", "--for", "cogvideox-5b")
    code, out, err = call("doctor", "recipe.toml", "--price", "2", "--json")
    assert code == 2, err  # for want of queries
    found = json.loads(out)
    assert asked == []
    recipe = found["recipe"]
    assert recipe["problems"] == ["no file of queries at queries.txt"]
    assert (recipe["renders"], recipe["seconds"]) == (2100, 200)  # of the model card, on one A100
    assert recipe["hours"] == pytest.approx(2100 * 200 / 3600)
    assert recipe["money"] == pytest.approx(2 * recipe["hours"])
    models = {model["role"]: model for model in recipe["models"]}
    assert models["video model"]["size"] == pytest.approx(2 * 10.6)
    assert models["teacher"]["place"] == "endpoint"
    assert {extra["name"]: extra["missing"] for extra in found["extras"]}["local"] == []
    timed = json.loads(call("doctor", "recipe.toml", "--seconds", "10", "--online", "--json")[1])["recipe"]
    assert timed["hours"] == pytest.approx(2100 * 10 / 3600)
    assert (timed["models"][0]["size"], timed["models"][0]["source"]) == (pytest.approx(4.0), "hub")
    assert "zai-org/CogVideoX-5b" in asked


def test_fewer_steps_are_estimated_to_take_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = [
        outlook(load_recipe("tiny", ["profile=wan2.1-1.3b", *changes])[0], BOX).seconds
        for changes in ([], ["generator.steps=25"], ["generator.height=240"], ["generator.model=mine/tuned"])
    ]
    assert found == [240, 120, 120, None]


def test_the_doctor_reads_well_with_and_without_a_recipe(call: Any) -> None:
    code, out, _ = call("doctor", "tiny")
    assert code == 0
    assert "GPU-hours: unknown, no time for a clip is known" in out
    assert "10,816" in out
    out = call("doctor")[1]
    assert "wan2.2-a14b" in out
    assert "torch" in out


def test_the_doctor_needs_only_the_core(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS, "doctor", "tiny", "--json"],
        capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ), check=False,
    )  # fmt: skip
    assert found.returncode == 2, found.stderr  # the recipe cannot run here
    document = json.loads(found.stdout)
    assert "pip install 'promptreel[local]'" in document["recipe"]["problems"][0]
    assert document["recipe"]["renders"] == 10816
    assert document["machine"]["gpus"] is None
