"""Students that others released: by name, in the very words that they were trained on."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from promptreel import prompts, registry
from promptreel.errors import UserError
from promptreel.rewriting.models import CARDS, NAMED, writer_for
from promptreel.types import SamplingParams

CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""Chat template of Llama 3, which all of them are."""
VPO = ("vpo", "b2c2cd19b4d9f20f", "User Query:a cat\n\nVideo Prompt:", SamplingParams(0.7, 1.0, 1024))
PROMPT_A_VIDEO = (
    "prompt_a_video",
    "b60b746253b0cd06",
    "Original prompt:\na cat\nNew prompt:",
    SamplingParams(1.0, 0.95, 256),
)
STUDENTS = [
    ("vpo-2b", "CCCCCC/VPO-2B", VPO),
    ("vpo-5b", "CCCCCC/VPO-5B", VPO),
    ("prompt-a-video-cv", "jiyatai/Prompt_A_Video_CV", PROMPT_A_VIDEO),
    ("prompt-a-video-os", "jiyatai/Prompt_A_Video_OS", PROMPT_A_VIDEO),
]
"""Name, hub id, and request: the format, the first 16 digits of the sha256 of the message for "a cat" (made by the
authors' own scripts), the end of the message, the sampling."""


@pytest.mark.parametrize(("name", "hub", "asked"), STUDENTS)
def test_a_released_student_is_asked_as_by_its_authors(
    name: str, hub: str, asked: tuple[str, str, str, SamplingParams]
) -> None:
    form, digest, end, sampling = asked
    for spec in (name, f"local:{hub}", f"endpoint:{hub}@http://127.0.0.1:1/v1"):
        writer = writer_for(spec, "cogvideox-2b")
        assert (writer.llm.options["model"], writer.format, writer.sampling) == (hub, form, sampling)
        (message,) = writer.ask("rewrite", query="a cat")
        assert message["role"] == "user"
        assert message["content"].endswith(end)
        assert hashlib.sha256(message["content"].encode()).hexdigest()[:16] == digest
    with pytest.raises(UserError, match="leave out the mode"):
        writer_for(name, "cogvideox-2b", "faithful")


def test_text_after_a_students_turn_is_no_part_of_its_prompt() -> None:
    reply = "\n\nA cat sleeps in the sun.assistant\n\nA dog barks at the moon."
    assert prompts.parse_rewrite(reply) == "A cat sleeps in the sun."
    assert prompts.parse_rewrite('Video Prompt: "A cat sleeps."') == "A cat sleeps."
    assert prompts.parse_rewrite("A robot and its assistant\n\nwalk home.") == "A robot and its assistant walk home."


def test_a_student_of_that_kind_loads_and_reads_the_words_of_its_authors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiny_encoders
    import transformers

    tokenizer = tiny_encoders.llama_tokenizer()
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(tmp_path)
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=4, **tiny_encoders.LLM)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    monkeypatch.setitem(NAMED, "vpo-2b", (str(tmp_path), None))
    monkeypatch.setitem(CARDS, str(tmp_path), CARDS["CCCCCC/VPO-2B"])  # type: ignore[index]
    writer = writer_for("vpo-2b", "cogvideox-2b")
    conversation = writer.ask("rewrite", query="a cat")
    (reply,) = registry.build(writer.llm).complete([conversation], [replace(writer.sampling, max_tokens=5)])
    head, tail = "<|start_header_id|>", "<|end_header_id|>\n\n"
    whole = f"<|begin_of_text|>{head}user{tail}{conversation[0]['content']}<|eot_id|>{head}assistant{tail}"
    assert reply.prompt_tokens == len(tokenizer(whole, add_special_tokens=False)["input_ids"])
    assert 0 < reply.completion_tokens <= 5
