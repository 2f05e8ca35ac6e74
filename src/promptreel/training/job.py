"""A training: the student it starts from, its settings, and the run of a TRL trainer that all methods share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from promptreel.execution.writer import Writer
from promptreel.training.merge import load_student, publish
from promptreel.training.options import lora_config, trainer_arguments


@dataclass(frozen=True)
class TrainingJob:
    """Everything about a training but its data."""

    student: str
    """Path or hub id of the model to start from."""
    writer: Writer
    """The student's format and sampling, which are published with it."""
    out: Path
    """Directory to publish the trained student into."""
    seed: int
    adapter: str | None = None
    """LoRA adapter to merge first."""
    revision: str | None = None
    trainer: Mapping[str, Any] = field(default_factory=dict)
    """Options of the recipe for TRL's configuration."""
    lora: Mapping[str, Any] = field(default_factory=dict)
    """Options of the recipe for ``peft.LoraConfig``."""
    callbacks: Sequence[TrainerCallback] = ()


def train(job: TrainingJob, trainer: type[Any], config: type[Any], data: Dataset) -> tuple[dict[str, float], Any]:
    """Train and publish the student; return loss and steps, and the trainer's log."""
    model, tokenizer = load_student(job.student, job.adapter, job.revision)
    training = trainer(
        model,
        args=trainer_arguments(config, job.trainer, str(job.out), job.seed),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora_config(job.lora),
        callbacks=list(job.callbacks),
    )
    training.remove_callback(PrinterCallback)  # stdout is for results
    result = training.train()
    history = list(training.state.log_history)
    publish(training.model, tokenizer, job.writer, job.out)
    return {"loss": result.training_loss, "steps": result.global_step}, history
