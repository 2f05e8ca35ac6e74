"""Local language models: errors of loading are one line that says what to do, and templates without system turns."""

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest

pytest.importorskip("torch")

from promptreel.errors import UserError
from promptreel.llms.local import LocalLLM
from promptreel.types import Completion, Message, SamplingParams

WEIGHTS = Path(str(resources.files("promptreel.tiny"))) / "weights"
ASK: list[list[Message]] = [[{"role": "user", "content": "Rewrite for video: a red ball"}]]
GEMMA = """{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a copy of the tiny language model, to be damaged."""
    return Path(shutil.copytree(WEIGHTS / "base", tmp_path / "model"))


def refusal(model: Path | str, adapter: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        LocalLLM(str(model), adapter and str(adapter), device="cpu").complete(ASK, [SamplingParams()])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_model_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for absent in (tmp_path / "absent", "someone/no-such-model", tmp_path):
        assert refusal(absent).startswith(f"cannot load the language model {str(absent)!r}: ")


def test_weights_that_are_cut_short_are_the_users_error(model: Path) -> None:
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    assert refusal(model).startswith("cannot load the language model")


def test_a_model_without_a_chat_template_is_the_users_error(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert "has no chat template" in refusal(model)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft asks transformers so
def test_an_adapter_that_is_missing_or_of_another_model_is_the_users_error(model: Path, tmp_path: Path) -> None:
    begin = "cannot load the adapter "
    assert refusal(model, tmp_path / "absent").startswith(begin)
    assert refusal(model, model).startswith(begin)
    adapter = Path(shutil.copytree(WEIGHTS / "student", tmp_path / "adapter"))
    config = adapter / "adapter_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "r": settings["r"] + 1}))
    assert "size mismatch" in refusal(model, adapter)
    config.write_text(json.dumps({**settings, "target_modules": ["no_such_layer"]}))
    assert refusal(model, adapter).startswith(begin)


def test_a_system_message_begins_the_first_turn_if_the_template_takes_none(model: Path) -> None:
    system: list[Message] = [
        {"role": "system", "content": "Rewrite for"},
        {"role": "user", "content": "video: a red ball"},
    ]
    folded: list[Message] = [{"role": "user", "content": "Rewrite for\n\nvideo: a red ball"}]
    template = model / "chat_template.jinja"
    template.write_text(GEMMA + template.read_text())
    llm = LocalLLM(str(model), device="cpu")
    sampling = SamplingParams(0.0, max_tokens=8)
    (reply,) = llm.complete([system], [sampling])
    assert isinstance(reply, Completion)
    assert [reply] == llm.complete([folded], [sampling])
