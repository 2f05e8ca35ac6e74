"""Training through TRL: the data that is learned, the student that it starts from, and the files that it publishes."""

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import pytest

from promptreel import registry
from promptreel.config import load_recipe, parse_recipe
from promptreel.errors import RecipeError, RunError
from promptreel.execution.writer import CARD, Writer
from promptreel.package_files import locate
from promptreel.pipeline import Pipeline, run
from promptreel.rewriting.models import writer_for
from promptreel.store import Run
from promptreel.training import merge
from promptreel.training.data import dpo_rows, sft_rows, to_dataset
from promptreel.training.dpo import dpo
from promptreel.training.job import TrainingJob
from promptreel.training.merge import convert
from promptreel.training.options import check_stage
from promptreel.training.progress import StepReport
from promptreel.training.sft import sft
from promptreel.types import Component, Example, Pair, Query, SamplingParams

BASE = locate("package:promptreel.tiny/weights/base")
WRITER = Writer(Component("llm", "local", {"model": BASE}), "brief", SamplingParams(0.0, max_tokens=40))
EXAMPLES = [
    Example(Query(f"a {word} ball"), f"A {word} circle. The sky is kind.") for word in ("red", "blue", "green", "white")
]
LORA = {"r": 8, "lora_alpha": 16}


def job(out: Path, student: str = BASE, seed: int = 0, **trainer: Any) -> TrainingJob:
    options = {"per_device_train_batch_size": 4, **trainer}
    return TrainingJob(student, WRITER, out, seed, trainer=options, lora=LORA)


@pytest.fixture(autouse=True)
def quiet_libraries() -> None:
    """TRL and PEFT warn about their own defaults."""
    warnings.simplefilter("ignore")


def test_the_loss_falls_on_the_answer_only_and_the_prompt_is_the_served_one() -> None:
    (row,) = to_dataset(sft_rows(WRITER, EXAMPLES[:1])).to_list()
    assert row["prompt"] == WRITER.ask("rewrite", query="a red ball")
    assert row["completion"] == [{"role": "assistant", "content": EXAMPLES[0].text}]


def test_sft_learns_and_publishes_a_plain_model(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    report = StepReport(lambda *progress: steps.append(progress), "sft")
    made = job(tmp_path / "sft", num_train_epochs=12, learning_rate=1e-2)
    result = sft(replace(made, callbacks=[report]), EXAMPLES)
    assert result["steps"] == 12
    assert steps[-1] == ("sft", 12, 12)
    files = {path.name for path in (tmp_path / "sft").rglob("*")}
    assert {"model.safetensors", "adapter_model.safetensors", "tokenizer.json", CARD} <= files
    trained = registry.build(Component("llm", "local", {"model": str(tmp_path / "sft")}))
    (reply,) = trained.complete([WRITER.ask("rewrite", query="a red ball")], [SamplingParams(0.0, max_tokens=20)])
    assert "sky is kind" in reply.text
    published = writer_for(f"local:{tmp_path / 'sft'}", "tiny")
    assert (published.format, published.sampling) == (WRITER.format, WRITER.sampling)
    convert(tmp_path / "sft", tmp_path / "half", "float16")
    whole, half = (tmp_path / name / "model.safetensors" for name in ("sft", "half"))
    assert half.stat().st_size < whole.stat().st_size


def test_the_first_dpo_loss_is_ln_2_and_preferences_are_learned(tmp_path: Path) -> None:
    pairs = [Pair(e.query, e.text, e.text.replace("kind", "dark and long gone"), "rule", 1.0) for e in EXAMPLES]
    assert to_dataset(dpo_rows(WRITER, pairs)).column_names == ["prompt", "chosen", "rejected"]
    once = {"num_train_epochs": 1, "logging_steps": 1, "learning_rate": 5e-4}
    first = dpo(job(tmp_path / "one", **once), pairs)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)
    more = dpo(job(tmp_path / "more", **{**once, "num_train_epochs": 10}), pairs)
    assert more["accuracy"] == 1.0
    assert more["margin"] > 0.05


@pytest.mark.slow
def test_training_is_the_same_every_time(tmp_path: Path) -> None:
    """Also from another place: all files of a student are compared, since they are its identity."""
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    pairs = [Pair(example.query, example.text, "Nothing to see.", "rule", 1.0) for example in EXAMPLES]
    found = []
    for name in ("a", "b"):
        place = tmp_path / name
        sft(job(place / "sft", seed=3, **options), EXAMPLES)
        dpo(job(place / "dpo", str(place / "sft"), seed=3, **options), pairs)
        files = sorted(path for path in place.rglob("*") if path.is_file() and path.suffix != ".bin")
        found.append({str(path.relative_to(place)): path.read_bytes() for path in files})
    assert found[0] == found[1]
    settings = json.loads(found[0]["dpo/adapter/adapter_config.json"])
    assert settings["base_model_name_or_path"] == "sft"
    # An order that comes from a set is the same twice in one process, and another in the next.
    assert settings["target_modules"] == sorted(settings["target_modules"])


# The student that a training starts from


def test_the_revision_of_a_student_is_the_one_that_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(kind: type, path: str, **options: object) -> object:
        asked.append((kind.__name__, options.get("revision")))
        return SimpleNamespace(pad_token="x")

    for kind in (merge.AutoModelForCausalLM, merge.AutoTokenizer):
        monkeypatch.setattr(kind, "from_pretrained", classmethod(load))
    merge.load_student("owner/student", None, "v2")
    assert asked == [("AutoModelForCausalLM", "v2"), ("AutoTokenizer", "v2")]


class Trainer:
    """A training method that remembers its jobs and publishes almost nothing."""

    def __init__(self) -> None:
        self.jobs: list[TrainingJob] = []
        self.data: list[list[Any]] = []

    def __call__(self, given: TrainingJob, data: Sequence[Any]) -> dict[str, float]:
        self.jobs.append(given)
        self.data.append(list(data))
        (given.out / "model.safetensors").write_bytes(b"weights")
        return {"loss": 0.5}


def test_a_stage_trains_the_student_that_the_recipe_names(tmp_path: Path) -> None:
    revised = ["student.llm={name='local', model='owner/student', revision='v2', adapter='owner/adapter'}"]
    recipe, _ = load_recipe("tiny", revised)
    trainer = Trainer()
    with Run(tmp_path) as opened:
        stage = recipe.named("sft")
        context = Pipeline(recipe, opened, trainers={"sft": trainer}).context("sft")
        context.train("base", [], stage.trainer, stage.lora)  # type: ignore[union-attr]
    (given,) = trainer.jobs
    assert (given.student, given.adapter, given.revision) == ("owner/student", "owner/adapter", "v2")
    assert (given.seed, given.trainer, given.lora) == (recipe.seed, stage.trainer, stage.lora)  # type: ignore[union-attr]


LOCAL = {"llm": {"name": "local", "model": BASE, "adapter": "owner/adapter"}, "format": "brief"}
TRAINED: dict[str, Any] = {
    **fakes.RECIPE,
    "student": LOCAL,
    "stage": [
        fakes.RECIPE["stage"][0],
        {"kind": "sft", "data": "evolve", "margin": -1000.0},
        {**fakes.RECIPE["stage"][1], "student": "other"},
        {**fakes.RECIPE["stage"][2], "name": "pairs"},
        {"kind": "dpo", "student": "sft", "pairs": ["pairs"], "trainer": {"beta": 0.2}},
    ],
}


def test_each_method_gets_the_data_of_its_stage_and_the_student_before_it(place: Path) -> None:
    trainers = {"sft": Trainer(), "dpo": Trainer()}
    summary = run(parse_recipe(TRAINED), place, trainers=trainers)
    (first,), (second,) = trainers["sft"].jobs, trainers["dpo"].jobs
    assert (first.student, first.adapter) == (BASE, "owner/adapter")
    assert (second.student, second.adapter) == (str(place / "models" / "sft"), None)  # merged when it was published
    assert second.trainer == {"beta": 0.2}
    assert first.writer.format == second.writer.format == "brief"
    (examples,), (pairs,) = trainers["sft"].data, trainers["dpo"].data
    with Run(place, writable=False) as opened:
        assert pairs == opened.records.pairs("pairs")
        best = {c.query: c.text for c in opened.records.candidates("evolve") if c.round and c.rejected is None}
    assert {example.query for example in examples} == set(best)
    assert summary.stages["sft"] == {"examples": len(examples), "loss": 0.5}
    assert summary.stages["dpo"] == {"pairs": len(pairs), "loss": 0.5}
    assert {path.name for path in (place / "models" / "dpo").iterdir()} == {"model.safetensors", "manifest.json"}


def test_a_stage_without_data_says_so_and_trains_nothing(place: Path) -> None:
    trainer = Trainer()
    stages = [fakes.RECIPE["stage"][0], {"kind": "sft", "data": "evolve", "margin": 1e9}]
    with pytest.raises(RunError, match="no rewrite of 'evolve' beats its query: 'sft' has nothing to learn"):
        run(parse_recipe({**TRAINED, "stage": stages}), place, trainers={"sft": trainer})
    assert not trainer.jobs


# Options


def test_options_are_checked_before_anything_loads() -> None:
    check_stage("dpo", "dpo-1", {"beta": 0.1, "loss_type": ["sigmoid_norm"]}, LORA)
    with pytest.raises(RecipeError, match=r"dpo-1\.trainer: DPOConfig takes no 'betta'; did you mean 'beta'"):
        check_stage("dpo", "dpo-1", {"betta": 0.1}, LORA)
    with pytest.raises(RecipeError, match="takes no 'output_dir'"):
        check_stage("sft", "sft", {"output_dir": "/elsewhere"}, LORA)


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"optim": "adamw_8bit"}, r"dpo-1\.trainer: no optim 'adamw_8bit' here: .*pip install -U bitsandbytes"),
        ({"optim": "grokadamw"}, "pip install grokadamw"),
        ({"optim": "adamw"}, "'adamw' here: .*adamw_torch"),
    ],
)
def test_an_optimizer_that_is_not_installed_is_refused(trainer: dict[str, str], message: str) -> None:
    check_stage("dpo", "dpo-1", {"optim": "adamw_torch"}, LORA)
    with pytest.raises(RecipeError, match=message):
        check_stage("dpo", "dpo-1", trainer, LORA)
