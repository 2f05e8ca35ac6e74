"""What can be known of a recipe before anything is loaded or paid for."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from promptreel import profiles, prompts, registry
from promptreel.config import DPOStage, EvaluateStage, PairsStage, Recipe, SFTStage
from promptreel.errors import UnknownName, importing
from promptreel.pairs import check_rule
from promptreel.types import Component


def check(recipe: Recipe, until: str | None = None) -> None:
    """Resolve every name and option of a recipe, so that a mistake in its last stage costs nothing."""
    names = [stage.name for stage in recipe.stage]
    if until is not None and until not in names:
        raise UnknownName("stage", until, names)
    profiles.load(recipe.profile)
    registry.check(generator_of(recipe))
    registry.check(recipe.judge.component("judge"))
    registry.check(recipe.engine.component("engine"))
    for reward in [*recipe.rewards.values(), *(stage.judge for stage in recipe.stages(EvaluateStage))]:
        registry.check(reward.component("reward"))
    for role, writer in {"student": recipe.student, "teacher": recipe.teacher, **recipe.systems}.items():
        registry.check(writer.llm.component("llm"))
        prompts.check_format("propose" if role == "teacher" else "rewrite", writer.format)
    for stage in recipe.stage:
        if isinstance(stage, PairsStage):
            check_rule(stage.rule.name, stage.rule.model_extra or {})
        elif isinstance(stage, SFTStage | DPOStage):
            with importing("training"):
                from promptreel.training.options import check_stage
            check_stage(stage.kind, stage.name, stage.trainer, stage.lora)


def generator_of(recipe: Recipe) -> Component:
    """The recipe's generator, told which video model it runs."""
    named = recipe.generator.component("generator")
    return Component("generator", named.name, {"profile": recipe.profile, **named.options})


LIBRARIES = ("promptreel", "torch", "transformers", "diffusers", "trl", "peft", "numpy")


def environment(recipe: Recipe) -> dict[str, str]:
    """What results depend on beside the recipe: versions, threads and the processor's instructions."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    if "torch" in found:
        import torch

        found["threads"] = str(recipe.threads or torch.get_num_threads())
        found["instructions"] = torch.backends.cpu.get_cpu_capability()
        found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return found
