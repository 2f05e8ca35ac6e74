"""Training through TRL: what is learned, from where, and what is published."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from promptreel.config import load_recipe

from promptreel import registry
from promptreel.config import SFTStage
from promptreel.errors import RecipeError
from promptreel.execution.desk import Writer
from promptreel.package_files import locate
from promptreel.pipeline import Pipeline
from promptreel.rewriting.rewriter import writer_for
from promptreel.store import Run
from promptreel.training import merge
from promptreel.training.data import dpo_dataset, sft_dataset
from promptreel.training.dpo import dpo
from promptreel.training.merge import convert
from promptreel.training.options import check_stage
from promptreel.training.progress import StepReport
from promptreel.training.sft import sft
from promptreel.types import Component, Pair, Query, SamplingParams

BASE = locate("package:promptreel.tiny/weights/base")
WRITER = Writer(Component("llm", "local", {"model": BASE}), "brief", SamplingParams(0.0, max_tokens=40))
EXAMPLES = [
    (Query(f"a {word} ball"), f"A {word} circle. The sky is kind.") for word in ("red", "blue", "green", "white")
]
LORA = {"r": 8, "lora_alpha": 16}


@pytest.fixture(autouse=True)
def quiet_libraries() -> None:
    """TRL and PEFT warn about their own defaults."""
    import warnings

    warnings.simplefilter("ignore")


def test_the_loss_falls_on_the_answer_only_and_the_prompt_is_the_served_one() -> None:
    (row,) = sft_dataset(WRITER, EXAMPLES[:1]).to_list()
    assert row["prompt"] == WRITER.ask("rewrite", query="a red ball")
    assert row["completion"] == [{"role": "assistant", "content": EXAMPLES[0][1]}]


def test_sft_learns_and_publishes_a_plain_model(tmp_path: Path) -> None:
    steps: list[int] = []
    progress = StepReport(lambda what, done, of: steps.append(done), "sft")
    options = {"num_train_epochs": 12, "learning_rate": 1e-2, "per_device_train_batch_size": 4}
    result = sft((BASE, None, None), WRITER, EXAMPLES, tmp_path / "sft", 0, options, LORA, [progress])
    assert result["steps"] == 12 == steps[-1]
    files = {path.name for path in (tmp_path / "sft").rglob("*")}
    assert {"model.safetensors", "adapter_model.safetensors", "tokenizer.json", "promptreel.json"} <= files
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in (tmp_path / "sft").rglob("*.safetensors"))
    trained = registry.build(Component("llm", "local", {"model": str(tmp_path / "sft")}))
    (reply,) = trained.complete([WRITER.ask("rewrite", query="a red ball")], [SamplingParams(0.0, max_tokens=20)])
    assert "sky is kind" in reply.text
    assert writer_for(f"local:{tmp_path / 'sft'}", "tiny").format == "brief"
    convert(tmp_path / "sft", tmp_path / "half", "float16")
    assert (tmp_path / "half" / "model.safetensors").stat().st_size < (
        tmp_path / "sft" / "model.safetensors"
    ).stat().st_size


def test_the_first_dpo_loss_is_ln_2_and_preferences_are_learned(tmp_path: Path) -> None:
    pairs = [Pair(query, text, text.replace("kind", "dark and long gone"), "rule", 1.0) for query, text in EXAMPLES]
    assert dpo_dataset(WRITER, pairs).column_names == ["prompt", "chosen", "rejected"]
    once = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "logging_steps": 1, "learning_rate": 5e-4}
    first = dpo((BASE, None, None), WRITER, pairs, tmp_path / "one", 0, once, LORA)
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-3)
    more = dpo((BASE, None, None), WRITER, pairs, tmp_path / "more", 0, {**once, "num_train_epochs": 10}, LORA)
    assert more["accuracy"] == 1.0
    assert more["margin"] > 0.05


@pytest.mark.slow
def test_training_is_the_same_every_time(tmp_path: Path) -> None:
    """Every file of a student is, since they are what it is known by; also one trained from another place."""
    options = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "learning_rate": 1e-3}
    pairs = [Pair(query, text, "Nothing to see.", "rule", 1.0) for query, text in EXAMPLES]
    found = []
    for name in ("a", "b"):
        sft((BASE, None, None), WRITER, EXAMPLES, tmp_path / name / "sft", 3, options, LORA)
        dpo((str(tmp_path / name / "sft"), None, None), WRITER, pairs, tmp_path / name / "dpo", 3, options, LORA)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file() and path.suffix != ".bin")
        found.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert found[0] == found[1]
    settings = json.loads(found[0]["dpo/adapter/adapter_config.json"])
    assert settings["base_model_name_or_path"] == "sft"
    # An order that comes from a set is the same twice in one process, and another in the next.
    assert settings["target_modules"] == sorted(settings["target_modules"])


def test_the_revision_of_a_student_is_the_one_that_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(kind: type, path: str, **options: object) -> object:
        asked.append((kind.__name__, options.get("revision")))
        return SimpleNamespace(pad_token="x")

    for kind in (merge.AutoModelForCausalLM, merge.AutoTokenizer):
        monkeypatch.setattr(kind, "from_pretrained", classmethod(load))
    merge.load_student("owner/student", None, "v2")
    assert asked == [("AutoModelForCausalLM", "v2"), ("AutoTokenizer", "v2")]


def test_a_stage_trains_the_revision_that_the_recipe_names(tmp_path: Path) -> None:
    revised = ["student.llm={name='local', model='owner/student', revision='v2', adapter='owner/adapter'}"]
    recipe, _ = load_recipe("tiny", revised)
    given = []

    def train(student: object, *rest: object) -> dict[str, float]:
        given.append(student)
        return {}

    with Run(tmp_path) as run:
        Pipeline(recipe, run)._train(train, next(recipe.stages(SFTStage)), [])
    assert given == [("owner/student", "owner/adapter", "v2")]


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
