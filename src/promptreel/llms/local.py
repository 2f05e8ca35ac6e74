"""A chat model in this process, through transformers, with LoRA adapters."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from promptreel.llms.rows import OwnDraws
from promptreel.store.files import fingerprint
from promptreel.types import Failure, Message, Reply, Sampling


class LocalLLM:
    """Any causal language model with a chat template, by path or hub id.

    ``adapter`` is a LoRA adapter, by path or hub id. ``dtype`` is a torch dtype by name or ``auto``;
    ``device`` defaults to the first GPU, or the CPU. ``quantization`` goes to
    ``transformers.BitsAndBytesConfig``. Greedy and sampled replies are deterministic on one machine for the
    same batch and seeds. Calls from several threads wait for each other.
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
        tokenizer = AutoTokenizer.from_pretrained(self.model, padding_side="left", **options)
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        if self.quantization:
            from transformers import BitsAndBytesConfig

            options["quantization_config"] = BitsAndBytesConfig(**self.quantization)
        # Half precision is emulated, and slow, on most processors.
        dtype = torch.float32 if self.dtype == "auto" and self.device == "cpu" else self.dtype
        model = AutoModelForCausalLM.from_pretrained(
            self.model, dtype=dtype, use_safetensors=True, device_map=self.device, **options
        )
        if self.adapter:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, self.adapter).merge_and_unload()
        return model.eval(), tokenizer

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        with self._lock:
            return self._generate(conversations, samplings)

    @torch.inference_mode()
    def _generate(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        model, tokenizer = self._loaded
        texts = [
            tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
            for conversation in conversations
        ]
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
