"""Direct preference optimisation of the student on pairs, through TRL and PEFT.

The reference is the student without its new adapter. The adapter is merged afterwards, so that the next round starts
from a plain model, as in Prompt-A-Video.
"""

from __future__ import annotations

from collections.abc import Sequence

from trl import DPOConfig, DPOTrainer

from promptreel.training.data import dpo_rows, to_dataset
from promptreel.training.job import TrainingJob, train
from promptreel.types import Pair


def dpo(job: TrainingJob, pairs: Sequence[Pair]) -> dict[str, float]:
    """Train a student on pairs; return loss, steps, and the last reward margin and accuracy that TRL logged."""
    metrics, history = train(job, DPOTrainer, DPOConfig, to_dataset(dpo_rows(job.writer, pairs)))
    logged = [entry for entry in history if "rewards/margins" in entry]
    last = logged[-1] if logged else {}
    return {
        **metrics,
        "margin": last.get("rewards/margins", float("nan")),
        "accuracy": last.get("rewards/accuracies", float("nan")),
    }
