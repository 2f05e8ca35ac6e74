"""What can be known of a recipe before anything is loaded or paid for."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from promptreel import profiles, prompts, registry
from promptreel.config import (
    CritiqueStage,
    DPOStage,
    EvaluateStage,
    EvolveStage,
    PairsStage,
    Recipe,
    SampleStage,
    SFTStage,
)
from promptreel.errors import RecipeError, UnknownName, importing
from promptreel.pairs import check_rule
from promptreel.resources import locate
from promptreel.types import Component

SECRETS = ("authorization", "proxy-authorization", "api-key", "x-api-key", "api_key", "cookie", "token")
"""Headers and options whose values nobody may read."""
CURE = "leave it out, and give the key by the environment variable that the option key names"


def check(recipe: Recipe, until: str | None = None) -> None:
    """Resolve every name and option of a recipe, so that a mistake in its last stage costs nothing."""
    names = [stage.name for stage in recipe.stage]
    if until is not None and until not in names:
        raise UnknownName("stage", until, names)
    _check_secrets(recipe.resolved(), "")
    profiles.load(recipe.profile)
    # What is built loads nothing yet, but reads its options: a wrong URL, or what a pipeline does not take.
    registry.build(generator_of(recipe))
    for judge in [recipe.judge, *(stage.text_judge for stage in recipe.stages(EvaluateStage))]:
        if judge:
            registry.build(judge.component("judge"))
    registry.check(recipe.engine.component("engine"))
    for reward in [*recipe.rewards.values(), *(stage.judge for stage in recipe.stages(EvaluateStage))]:
        registry.check(reward.component("reward"))
    for role, llm, form in recipe.models():
        registry.build(llm.component("llm"))
        for task in _tasks(recipe) if role == "teacher" else ("rewrite",):
            prompts.check_format(task, form)
    _check_reasons(recipe)
    _check_blends(recipe)
    _check_judges(recipe)
    _check_quantization(recipe)
    for stage in recipe.stage:
        if isinstance(stage, PairsStage):
            rendered = any(stage.samples == sampled.name for sampled in recipe.stages(SampleStage))
            check_rule(stage.rule.name, stage.rule.model_extra or {}, rendered)
        elif isinstance(stage, SFTStage | DPOStage):
            if (name := recipe.student.llm.name) != "local":
                raise RecipeError(
                    f"stage {stage.name!r} trains the student, and nobody can train llm {name!r} here: name 'local', "
                    "with a model by path or hub id"
                )
            with importing("training"):
                from promptreel.training.options import check_stage
            check_stage(stage.kind, stage.name, stage.trainer, stage.lora)


def _check_secrets(value: object, place: str) -> None:
    """Refuse passwords and keys in a recipe: it is stored with its run, and its report shows it."""
    if isinstance(value, dict):
        for key, part in value.items():
            if key.lower() in SECRETS:
                raise RecipeError(f"{place}{key} would be stored and shown with the run: {CURE}")
            _check_secrets(part, f"{place}{key}.")
    elif isinstance(value, list):
        for part in value:
            _check_secrets(part, place)
    elif isinstance(value, str) and re.search(r"://[^/\s]+@", value):
        raise RecipeError(f"the password in {place[:-1]} would be stored and shown with the run: {CURE}")


def _tasks(recipe: Recipe) -> list[str]:
    """What the teacher is asked to do."""
    mends = any(stage.rounds for stage in recipe.stages(CritiqueStage))
    return ["propose"] * any(recipe.stages(EvolveStage)) + ["refine"] * mends


def _check_reasons(recipe: Recipe) -> None:
    """Refuse a judge that says nothing of facts where they are asked for: everything would pass."""
    judge = recipe.judge.component("judge")
    facts = registry.parts(judge).get("facts", judge)
    if getattr(registry.find("judge", facts.name), "explains", True):
        return
    critiques = [stage.name for stage in recipe.stages(CritiqueStage)]
    wants = f"stage {critiques[0]!r} mends what a judge explains" if critiques else "the gate asks for fidelity"
    if critiques or recipe.gate.fidelity > 0:
        raise RecipeError(
            f"judge {facts.name!r} sees harm but reads no facts, and {wants}: name a judge 'guarded' with "
            f"facts = {{ name = 'llm', … }} and guard = {{ name = {facts.name!r}, … }}"
        )


def _check_judges(recipe: Recipe) -> None:
    """Refuse an evaluation by what the judge does not measure, or by a reward that the students were trained for."""
    for stage in recipe.stages(EvaluateStage):
        if stage.judge in recipe.rewards.values():
            raise RecipeError(
                f"{stage.name}.judge is a reward of the recipe: what a student was trained for cannot judge it; name "
                "a reward that no stage trains on"
            )
        measured = _dimensions(stage.judge.name)
        for metric in stage.metrics:
            if measured is not None and metric not in measured:
                raise UnknownName(f"metric in {stage.name}:", metric, measured)


def _check_quantization(recipe: Recipe) -> None:
    """Refuse a local language model that is to be quantized where what does it is not installed."""
    asked = [(role, llm.component("llm")) for role, llm, _ in recipe.models()]
    asked.append(("judge", recipe.judge.component("judge")))
    for stage in recipe.stages(EvaluateStage):
        if stage.text_judge:
            asked.append((f"text judge of {stage.name}", stage.text_judge.component("judge")))
    for role, component in asked:
        for part in _parts(component):
            if (
                (part.kind, part.name) == ("llm", "local")
                and part.options.get("quantization")
                and not find_spec("bitsandbytes")
            ):
                raise RecipeError(f"the quantization of the {role} needs bitsandbytes: type  pip install bitsandbytes")


def _parts(component: Component) -> Iterator[Component]:
    """A component and all that it is made of."""
    yield component
    for part in registry.parts(component).values():
        yield from _parts(part)


def _dimensions(reward: str) -> Sequence[str] | None:
    """What a reward measures; ``None`` where it says so only once it is built."""
    found = getattr(registry.find("reward", reward), "dimensions", None)
    return found if isinstance(found, Sequence) else None


def _check_blends(recipe: Recipe) -> None:
    """Refuse a blend of dimensions that no reward of the recipe has, or no image: nothing would ever have a total."""
    _check_images(recipe)
    measured = [_dimensions(table.name) for table in recipe.rewards.values()]
    if None in measured:
        return
    known = {dimension for dimensions in measured for dimension in dimensions or ()}
    for name, blend in recipe.blends.items():
        for dimension in [*blend.weights, *blend.floors]:
            if dimension not in known:
                raise UnknownName(f"dimension in blend {name!r}:", dimension, known)


def _check_images(recipe: Recipe) -> None:
    if (generator_of(recipe).options.get("frames") or profiles.load(recipe.profile).frames) > 1:
        return
    moving = {name for table in recipe.rewards.values() for name in _moving(table.name)}
    for name, blend in recipe.blends.items():
        for dimension in [*blend.weights, *blend.floors]:
            if dimension in moving:
                raise RecipeError(f"blend {name!r}: an image has no {dimension}; leave it out")


def _moving(reward: str) -> tuple[str, ...]:
    return getattr(registry.find("reward", reward), "moving", ())


def generator_of(recipe: Recipe) -> Component:
    """The recipe's generator, told which video model it runs."""
    named = recipe.generator.component("generator")
    return Component("generator", named.name, {"profile": recipe.profile, **named.options})


LIBRARIES = ("promptreel", "torch", "transformers", "diffusers", "trl", "peft", "numpy")


def token_counter(recipe: Recipe) -> profiles.TokenCounter:
    """What counts the tokens of a recipe's prompts."""
    return profiles.token_counter(recipe.profile, locate(generator_of(recipe).options.get("model")))


def environment(recipe: Recipe) -> dict[str, str]:
    """What results depend on beside the recipe: versions, threads, the processor's instructions, and whether the video
    model's tokenizer is at hand.
    """
    found = {"python": platform.python_version()}
    found["token counts"] = "exact" if token_counter(recipe).exact else "estimated"
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
