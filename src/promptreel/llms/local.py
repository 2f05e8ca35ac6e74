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

from promptreel.errors import UserError, one_line
from promptreel.llms.rows import OwnDraws
from promptreel.store.files import fingerprint
from promptreel.types import Failure, Message, Reply, Sampling


class LocalLLM:
    """Any causal language model with a chat template, by path or hub id.

    ``adapter`` is a LoRA adapter, by path or hub id. ``dtype`` is a torch dtype by name or ``auto``;
    ``device`` defaults to the first GPU, or the CPU. ``quantization`` goes to
    ``transformers.BitsAndBytesConfig``. Greedy and sampled replies are deterministic on one machine for the
    same batch and seeds. Calls from several threads wait for each other. Where the template knows no system
    message, as Gemma's, what it says begins the first turn. Raises ``UserError`` for what cannot be loaded.
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

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        with self._lock:
            return self._generate(conversations, samplings)

    @torch.inference_mode()
    def _generate(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        model, tokenizer = self._loaded
        texts = [_asked(tokenizer, conversation) for conversation in conversations]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        start = inputs["input_ids"].shape[1]
        out = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max(sampling.max_tokens for sampling in samplings),
            pad_token_id=tokenizer.pad_token_id,
            do_sample=False,
            logits_processor=LogitsProcessorList([OwnDraws(samplings, start, model.device)]),
        )
        answers = [row[: s.max_tokens] for row, s in zip(out[:, start:], samplings, strict=True)]
        read = inputs["attention_mask"].sum(1).tolist()
        written = [int((answer != tokenizer.pad_token_id).sum()) for answer in answers]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [Reply(*counted) for counted in zip(texts, read, written, strict=True)]


@contextmanager
def _loading(what: str) -> Iterator[None]:
    """Makes what libraries raise of weights that are absent, out of reach or of another model one line."""
    try:
        yield
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "size mismatch" not in str(error):
            raise
        raise UserError(
            f"cannot load {what}: {one_line(error)[:300]}; give the path of its directory, or its id on a hub that "
            "can be reached from here"
        ) from error


def _asked(tokenizer: PreTrainedTokenizerBase, conversation: list[Message]) -> str:
    """A conversation as the model's template writes it."""
    try:
        text: str = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    except TemplateError:
        if len(conversation) < 2 or conversation[0]["role"] != "system":
            raise
        system, first, *rest = conversation
        folded = Message(role=first["role"], content=f"{system['content']}\n\n{first['content']}")
        return _asked(tokenizer, [folded, *rest])
    return text
