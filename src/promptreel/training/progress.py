"""Progress of a TRL trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StepReport(TrainerCallback):  # type: ignore[misc]  # untyped base
    """Callback that calls ``report(stage, steps done, steps in all)`` after every optimiser step."""

    def __init__(self, report: Callable[[str, int, int], None], stage: str) -> None:
        self.report, self.stage = report, stage

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.report(self.stage, state.global_step, state.max_steps)
