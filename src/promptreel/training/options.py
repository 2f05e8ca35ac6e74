"""Options that a recipe passes through to TRL and PEFT, checked before anything loads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig
from transformers import Trainer, TrainingArguments
from trl import DPOConfig, SFTConfig

from promptreel.errors import RecipeError, did_you_mean

OURS = ("output_dir", "seed", "data_seed", "save_strategy", "report_to", "use_cpu", "disable_tqdm")
"""Options that a recipe may not set: the run directory and the run's seed decide."""


def check(target: type, options: Mapping[str, Any], where: str) -> None:
    """Raise ``RecipeError`` for an option that the dataclass ``target`` does not have."""
    known = {field.name for field in dataclasses.fields(target) if field.init} - set(OURS)
    for name in options:
        if name not in known:
            raise RecipeError(f"{where}: {target.__name__} takes no {name!r}{did_you_mean(name, known)}")


def check_stage(kind: str, name: str, trainer: Mapping[str, Any], lora: Mapping[str, Any]) -> None:
    """Raise ``RecipeError`` for a wrong option of a training stage, or an optimizer that is not installed."""
    check(SFTConfig if kind == "sft" else DPOConfig, trainer, f"{name}.trainer")
    check(LoraConfig, lora, f"{name}.lora")
    if "optim" in trainer:
        try:
            arguments = TrainingArguments(use_cpu=True, optim=trainer["optim"], optim_args=trainer.get("optim_args"))
            Trainer.get_optimizer_cls_and_kwargs(arguments, torch.nn.Linear(1, 1))
        except (ImportError, ValueError) as error:
            # An optimizer of some modules looks for them in the model, which is not loaded here.
            if isinstance(error, ImportError) or "optim_target_modules" not in trainer:
                raise RecipeError(f"{name}.trainer: no optim {trainer['optim']!r} here: {error}") from error


def trainer_arguments(target: type, options: Mapping[str, Any], out: str, seed: int) -> Any:
    """Return an ``SFTConfig`` or ``DPOConfig`` with the run's own settings and the recipe's options."""
    gpu = torch.cuda.is_available()
    defaults: dict[str, Any] = {"bf16": gpu, "gradient_checkpointing": gpu}
    return target(
        output_dir=out,
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        report_to="none",
        use_cpu=not gpu,
        disable_tqdm=True,
        **{**defaults, **options},
    )


def lora_config(options: Mapping[str, Any]) -> LoraConfig:
    """Return the LoRA settings: all linear layers, unless the recipe chooses others."""
    return LoraConfig(task_type="CAUSAL_LM", **{"target_modules": "all-linear", **options})
