"""Checks of a recipe before anything is loaded or paid for."""

from __future__ import annotations

import inspect
import platform
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from promptreel import profiles, prompts, registry
from promptreel.config import (
    ComponentTable,
    CritiqueStage,
    EvaluateStage,
    EvolveStage,
    PairsStage,
    Recipe,
    SampleStage,
    TrainingStage,
)
from promptreel.errors import RecipeError, UnknownName, did_you_mean
from promptreel.extras import importing
from promptreel.package_files import locate
from promptreel.pairs import check_rule

SECRETS = ("authorization", "proxy-authorization", "api-key", "x-api-key", "api_key", "cookie", "token")
"""Headers and options whose values are secret."""
CURE = "leave it out, and give the key by the environment variable that the option key names"


def check(recipe: Recipe, until: str | None = None) -> None:
    """Resolve every name and option of a recipe, so that a mistake in its last stage costs nothing.

    Raises ``UserError`` for the first mistake.
    """
    names = [stage.name for stage in recipe.stage]
    if until is not None and until not in names:
        raise UnknownName("stage", until, names)
    _check_secrets(recipe.resolved(), "")
    profiles.load(recipe.profile)
    _check_components(recipe)
    _check_facts(recipe)
    _check_objectives(recipe)
    _check_evaluations(recipe)
    _check_quantization(recipe)
    _check_rules(recipe)
    _check_trainings(recipe)


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


def _check_components(recipe: Recipe) -> None:
    """Build components, which loads nothing, to check options: a wrong URL, an argument that a pipeline lacks."""
    for name in ("main", *recipe.generators):
        registry.build(recipe.generator_component(name))
    for _, judge in _judges(recipe):
        registry.build(judge.component("judge"))
    registry.check(recipe.engine_component())
    for reward in [*recipe.rewards.values(), *(stage.reward for stage in recipe.stages(EvaluateStage))]:
        registry.check(reward.component("reward"))
    for role, llm, format in recipe.models():
        registry.build(llm.component("llm"))
        for task in _teacher_tasks(recipe) if role == "teacher" else ["rewrite"]:
            prompts.check_format(task, format)
    for stage in recipe.stages(EvolveStage):
        _check_search(stage.search)


def _check_search(search: ComponentTable) -> None:
    """Refuse a search that does not exist, or an option that it does not take."""
    known = inspect.signature(registry.find("search", search.name)).parameters
    for option in search.options:
        if option not in known:
            raise RecipeError(f"search {search.name!r} has no option {option!r}{did_you_mean(option, known)}")


def _judges(recipe: Recipe) -> list[tuple[str, ComponentTable]]:
    """Return every judge with its role."""
    own = [(f"judge of {stage.name}", stage.judge) for stage in recipe.stages(EvaluateStage) if stage.judge]
    return [("judge", recipe.judge), *own]


def _teacher_tasks(recipe: Recipe) -> list[str]:
    """Return the tasks that the teacher is asked for."""
    tasks = ["propose"] if any(recipe.stages(EvolveStage)) else []
    if any(stage.rounds for stage in recipe.stages(CritiqueStage)):
        tasks.append("refine")
    return tasks


def _check_facts(recipe: Recipe) -> None:
    """Refuse a judge that reads no facts where they are asked for: everything would pass."""
    judge = recipe.judge.component("judge")
    facts = registry.part(judge, "facts") or judge
    if registry.declared("judge", facts.name, "explains", True):
        return
    critiques = [stage.name for stage in recipe.stages(CritiqueStage)]
    wants = f"stage {critiques[0]!r} mends what a judge explains" if critiques else "the policy asks for fidelity"
    if critiques or recipe.policy.fidelity > 0:
        raise RecipeError(
            f"judge {facts.name!r} sees harm but reads no facts, and {wants}: name a judge 'guarded' with "
            f"facts = {{ name = 'llm', … }} and guard = {{ name = {facts.name!r}, … }}"
        )


def dimensions(reward: ComponentTable) -> Sequence[str]:
    """Return the dimensions of a reward model, as its class declares them, without building it."""
    by_options = registry.declared("reward", reward.name, "dimensions_of")
    declared = by_options(reward.options) if by_options else registry.declared("reward", reward.name, "dimensions")
    if declared is None:
        raise RecipeError(f"reward {reward.name!r} declares no dimensions: its class needs the attribute dimensions")
    found: Sequence[str] = declared
    return found


def _check_objectives(recipe: Recipe) -> None:
    """Refuse an objective of dimensions that no reward model of the recipe measures: nothing would have a reward."""
    known = {dimension for table in recipe.rewards.values() for dimension in dimensions(table)}
    moving = {d for table in recipe.rewards.values() for d in registry.declared("reward", table.name, "moving", ())}
    for name, objective in recipe.objectives.items():
        for dimension in [*objective.weights, *objective.floors]:
            if dimension not in known:
                raise UnknownName(f"dimension in objective {name!r}:", dimension, known)
            if dimension in moving and not _moves(recipe):
                raise RecipeError(f"objective {name!r}: an image has no {dimension}; leave it out")


def _moves(recipe: Recipe) -> bool:
    """Return True for a generator of videos."""
    frames = recipe.generator_component().options.get("frames") or profiles.load(recipe.profile).frames
    return bool(frames > 1)


def _check_evaluations(recipe: Recipe) -> None:
    """Refuse an evaluation by a metric that its reward model lacks, or by a reward that students train on."""
    for stage in recipe.stages(EvaluateStage):
        if stage.reward in recipe.rewards.values():
            raise RecipeError(
                f"{stage.name}.reward is a reward of the recipe: what a student was trained for cannot judge it; name "
                "a reward that no stage trains on"
            )
        measured = dimensions(stage.reward)
        for metric in stage.metrics:
            if metric not in measured:
                raise UnknownName(f"metric in {stage.name}:", metric, measured)


def _check_quantization(recipe: Recipe) -> None:
    """Refuse a quantized local language model where the library for it is not installed."""
    asked = [(role, llm.component("llm")) for role, llm, _ in recipe.models()]
    asked += [(role, judge.component("judge")) for role, judge in _judges(recipe)]
    for role, component in asked:
        for part in registry.whole(component):
            quantized = (part.kind, part.name) == ("llm", "local") and part.options.get("quantization")
            if quantized and not find_spec("bitsandbytes"):
                raise RecipeError(f"the quantization of the {role} needs bitsandbytes: type  pip install bitsandbytes")


def _check_rules(recipe: Recipe) -> None:
    rendered = {stage.name for stage in recipe.stages(SampleStage)}
    for stage in recipe.stages(PairsStage):
        check_rule(stage.rule.name, stage.rule.options, stage.samples in rendered)


def _check_trainings(recipe: Recipe) -> None:
    for stage in recipe.stages(TrainingStage):
        if (name := recipe.student.llm.name) != "local":
            raise RecipeError(
                f"stage {stage.name!r} trains the student, and llm {name!r} cannot be trained here: name 'local', "
                "with a model by path or hub id"
            )
        with importing("training"):
            from promptreel.training.options import check_stage
        check_stage(stage.kind, stage.name, stage.trainer, stage.lora)


LIBRARIES = ("promptreel", "torch", "transformers", "diffusers", "trl", "peft", "numpy")


def environment(recipe: Recipe) -> dict[str, str]:
    """Return everything that results depend on beside the recipe.

    These are versions, threads, the processor's instructions, the device, and whether tokens are counted exactly.
    """
    found = {"python": platform.python_version()}
    model = locate(recipe.generator_component().options.get("model"))
    found["token counts"] = "exact" if profiles.token_counter(recipe.profile, model).exact else "estimated"
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
