"""Supervised fine-tuning of the student on the best rewrites, through TRL and PEFT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from promptreel.desk import Writer
from promptreel.training.data import sft_dataset
from promptreel.training.merge import load_student, publish
from promptreel.training.options import lora_config, trainer_arguments
from promptreel.types import Query


def sft(
    student: tuple[str, str | None, str | None],
    writer: Writer,
    examples: Sequence[tuple[Query, str]],
    out: Path,
    seed: int,
    trainer: Mapping[str, Any],
    lora: Mapping[str, Any],
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Train ``student`` (path, adapter and revision) on (query, rewrite) examples into ``out``; the last loss."""
    model, tokenizer = load_student(*student)
    training = SFTTrainer(
        model,
        args=trainer_arguments(SFTConfig, trainer, str(out), seed),
        train_dataset=sft_dataset(writer, examples),
        processing_class=tokenizer,
        peft_config=lora_config(lora),
        callbacks=list(callbacks),
    )
    training.remove_callback(PrinterCallback)  # stdout is for results
    result = training.train()
    publish(training.model, tokenizer, writer, out)
    return {"loss": result.training_loss, "steps": result.global_step}
