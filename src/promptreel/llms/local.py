"""A chat model in this process, through transformers, with LoRA adapters."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from promptreel.errors import UserError
from promptreel.faults import one_line
from promptreel.fingerprint import fingerprint
from promptreel.llms.row_sampler import RowSampler
from promptreel.types import Completion, Failure, Message, SamplingParams


class LocalLLM:
    """Any causal language model with a chat template, by path or hub id.

    - ``adapter`` is a LoRA adapter, by path or hub id.
    - ``revision`` is the revision of the model on the hub.
    - ``dtype`` is a torch dtype by name, or ``auto``.
    - ``device`` defaults to the first GPU, or the CPU.
    - ``quantization`` goes to ``transformers.BitsAndBytesConfig``.

    Greedy and sampled completions are deterministic on one machine for the same batch and seeds. Calls from several
    threads wait for each other. For a template without system messages, such as Gemma's, the system message is put
    before the first turn. Raises ``UserError`` for a model or adapter that cannot be loaded.
    """

    def __init__(
        self,
        model: str,
        adapter: str | None = None,
        revision: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        quantization: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.adapter, self.revision = str(model), adapter, revision
        self.dtype, self.quantization = dtype, quantization
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.fingerprint = fingerprint(
            "local", self.model, adapter, revision=revision, dtype=dtype, quantization=quantization
        )
        self._lock = threading.Lock()  # a tokenizer pads for one caller at a time

    @cached_property
    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        options: dict[str, Any] = {"revision": self.revision} if self.revision else {}
        with _loading(f"the language model {self.model!r}"):
            tokenizer = AutoTokenizer.from_pretrained(self.model, padding_side="left", **options)
        if not tokenizer.chat_template:
            raise UserError(
                f"the language model {self.model!r} has no chat template, so nothing can be asked of it: take one that "
                "was tuned for conversations, whose name often ends in -Instruct, -it or -Chat"
            )
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if self.quantization:
            from transformers import BitsAndBytesConfig

            options["quantization_config"] = BitsAndBytesConfig(**self.quantization)
        # Half precision is emulated, and slow, on most processors.
        dtype = torch.float32 if self.dtype == "auto" and self.device == "cpu" else self.dtype
        with _loading(f"the language model {self.model!r}"):
            model = AutoModelForCausalLM.from_pretrained(
                self.model, dtype=dtype, use_safetensors=True, device_map=self.device, **options
            )
        if self.adapter:
            from peft import PeftModel

            with _loading(f"the adapter {self.adapter!r} of {self.model!r}"):
                model = PeftModel.from_pretrained(model, self.adapter).merge_and_unload()
        return model.eval(), tokenizer

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        with self._lock:
            return self._generate(conversations, sampling)

    @torch.inference_mode()
    def _generate(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        model, tokenizer = self._loaded
        prompts = [_templated(tokenizer, conversation) for conversation in conversations]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        start = inputs["input_ids"].shape[1]
        out = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max(params.max_tokens for params in sampling),
            pad_token_id=tokenizer.pad_token_id,
            do_sample=False,
            logits_processor=LogitsProcessorList([RowSampler(sampling, start, model.device)]),
        )
        answers = [row[: params.max_tokens] for row, params in zip(out[:, start:], sampling, strict=True)]
        prompt_tokens = inputs["attention_mask"].sum(1).tolist()
        completion_tokens = [int((answer != tokenizer.pad_token_id).sum()) for answer in answers]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [Completion(*row) for row in zip(texts, prompt_tokens, completion_tokens, strict=True)]


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Raise ``UserError``, on one line, for weights that are missing, damaged, unreachable or of another model."""
    try:
        yield
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "size mismatch" not in str(error):
            raise
        raise UserError(
            f"cannot load {name}: {one_line(error)[:300]}; give the path of its directory, or its id on a hub that "
            "can be reached from here"
        ) from error


def _templated(tokenizer: PreTrainedTokenizerBase, conversation: list[Message]) -> str:
    """Return a conversation as one text, by the model's chat template."""
    try:
        text: str = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    except TemplateError:
        if len(conversation) < 2 or conversation[0]["role"] != "system":
            raise
        system, first, *rest = conversation
        folded = Message(role=first["role"], content=f"{system['content']}\n\n{first['content']}")
        return _templated(tokenizer, [folded, *rest])
    return text
