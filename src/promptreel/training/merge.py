"""Loading a student to train it, and publishing it as a plain transformers directory."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from promptreel.errors import UserError
from promptreel.execution.writer import CARD, Writer


def load_student(
    path: str, adapter: str | None = None, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and tokenizer to train: in bf16 on a GPU, in float32 on a CPU; an adapter is merged first."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    options = {"revision": revision} if revision else {}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, **options)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    tokenizer = AutoTokenizer.from_pretrained(path, **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def convert(student: Path, to: Path, dtype: str) -> None:
    """Write a published student into ``to`` with weights of another dtype, without its adapter."""
    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"dtype is float32, bfloat16 or float16, not {dtype!r}")
    model = AutoModelForCausalLM.from_pretrained(student, dtype=getattr(torch, dtype), use_safetensors=True)
    model.save_pretrained(to)
    AutoTokenizer.from_pretrained(student).save_pretrained(to)
    shutil.copy(student / CARD, to / CARD)


def publish(trained: Any, tokenizer: PreTrainedTokenizerBase, writer: Writer, out: Path) -> None:
    """Write the adapter under ``out/adapter`` and the merged model into ``out``.

    The merged directory is read by ``from_pretrained``, the next DPO round and vLLM. Its card holds the student's
    format and sampling. The same training writes the same files, since a student is identified by them: no path of
    this run, and no order that changes from process to process.
    """
    settings = trained.peft_config["default"]
    settings.target_modules = sorted(settings.target_modules)
    base = settings.base_model_name_or_path or ""
    settings.base_model_name_or_path = Path(base).name if Path(base).exists() else base
    # Nothing of the embeddings is trained; PEFT would ask the hub whether it was.
    trained.save_pretrained(out / "adapter", save_embedding_layers=False)
    (out / "adapter" / "README.md").unlink(missing_ok=True)
    trained.merge_and_unload().save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / CARD).write_text(json.dumps({"format": writer.format, "sampling": asdict(writer.sampling)}, indent=1))
