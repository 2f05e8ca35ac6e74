"""Supervised fine-tuning of the student on the best candidates, through TRL and PEFT."""

from __future__ import annotations

from collections.abc import Sequence

from trl import SFTConfig, SFTTrainer

from promptreel.training.data import sft_rows, to_dataset
from promptreel.training.job import TrainingJob, train
from promptreel.types import Example


def sft(job: TrainingJob, examples: Sequence[Example]) -> dict[str, float]:
    """Train a student on examples; return the mean loss and the number of steps."""
    metrics, _ = train(job, SFTTrainer, SFTConfig, to_dataset(sft_rows(job.writer, examples)))
    return metrics
