"""Direct preference optimisation of the student on pairs, through TRL and PEFT.

The reference is the student without its new adapter; the adapter is merged afterwards, so that the next
round starts from a plain model, as in Prompt-A-Video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from promptreel.desk import Writer
from promptreel.training.data import dpo_dataset
from promptreel.training.merge import load_student, publish
from promptreel.training.options import lora_config, trainer_arguments
from promptreel.types import Pair


def dpo(
    student: tuple[str, str | None, str | None],
    writer: Writer,
    pairs: Sequence[Pair],
    out: Path,
    seed: int,
    trainer: Mapping[str, Any],
    lora: Mapping[str, Any],
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, float]:
    """Train ``student`` (path, adapter and revision) on pairs into ``out``; last loss, margin and accuracy."""
    model, tokenizer = load_student(*student)
    training = DPOTrainer(
        model,
        args=trainer_arguments(DPOConfig, trainer, str(out), seed),
        train_dataset=dpo_dataset(writer, pairs),
        processing_class=tokenizer,
        peft_config=lora_config(lora),
        callbacks=list(callbacks),
    )
    training.remove_callback(PrinterCallback)  # stdout is for results
    result = training.train()
    logged = [entry for entry in training.state.log_history if "rewards/margins" in entry]
    publish(training.model, tokenizer, writer, out)
    last = logged[-1] if logged else {}
    return {
        "loss": result.training_loss,
        "steps": result.global_step,
        "margin": last.get("rewards/margins", float("nan")),
        "accuracy": last.get("rewards/accuracies", float("nan")),
    }
