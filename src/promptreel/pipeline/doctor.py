"""What this machine has and what a recipe needs of it, said before anything is fetched, loaded or paid for."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from promptreel import profiles, registry
from promptreel.config import EvaluateStage, Recipe
from promptreel.errors import EXTRAS, UserError
from promptreel.pipeline.check import check, generator_of
from promptreel.pipeline.plan import Planned, plan
from promptreel.profiles import Profile
from promptreel.resources import locate
from promptreel.types import Component

GB = 1e9


@dataclass(frozen=True)
class Extra:
    """An extra of the package: what of it is here, with versions, and what is not."""

    name: str
    installed: dict[str, str]
    missing: list[str]


@dataclass(frozen=True)
class Machine:
    """Sizes are in GB; ``None`` is unknown."""

    cores: int | None
    memory: float | None
    disk: float
    """Free, where models from the hub go."""
    gpus: list[tuple[str, float]] | None
    """Names and memories; ``None`` where torch, which is asked, is not installed."""


@dataclass(frozen=True)
class Model:
    """Weights that a recipe names, or a model that others serve."""

    role: str
    name: str
    place: str
    """``here``, ``hub`` (to be fetched) or ``endpoint``."""
    size: float | None = None
    """GB on the disk, or to be fetched; ``None`` where nobody said."""
    source: str = ""
    """Where the size is from: ``disk``, ``hub``, or an estimate by ``profile`` or by the model's ``name``."""
    licence: str = ""


@dataclass(frozen=True)
class Fit:
    """Whether the video model goes into a device's memory, as its profile or the recipe loads it."""

    device: str
    available: float | None
    """GB."""
    weights: float | None
    """GB of weights there at one time; the rest is for what is computed, which grows with the clip."""

    @property
    def fits(self) -> bool | None:
        """``False`` if not even the weights go in, ``None`` where one of the sizes is unknown."""
        return None if self.available is None or self.weights is None else self.weights < self.available


@dataclass(frozen=True)
class Outlook:
    """What a recipe needs: an upper bound, and where it is in hours or money an estimate."""

    recipe: str
    problems: list[str]
    models: list[Model]
    fit: Fit | None
    stages: list[Planned]
    renders: int | None
    seconds: float | None
    """For one clip."""
    seconds_from: str
    hours: float | None
    """Of a GPU, for the renders alone."""
    money: float | None


def extras() -> list[Extra]:
    """What of the optional dependencies is installed; nothing is imported."""
    found: dict[str, Extra] = {}
    distributions = packages_distributions()
    for module, name in EXTRAS.items():
        extra = found.setdefault(name, Extra(name, {}, []))
        if find_spec(module):
            extra.installed[module] = version(distributions[module][0]) if module in distributions else "?"
        else:
            extra.missing.append(module)
    return list(found.values())


def machine() -> Machine:
    """The processors, memory, disk and GPUs of this machine."""
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    gpus: list[tuple[str, float]] | None = None
    if find_spec("torch"):
        import torch

        known = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        gpus = [(device.name, device.total_memory / GB) for device in known]
    return Machine(os.cpu_count(), memory, shutil.disk_usage(place).free / GB, gpus)


def outlook(
    recipe: Recipe, here: Machine, price: float | None = None, seconds: float | None = None, online: bool = False
) -> Outlook:
    """What a recipe needs. ``price`` is of an hour of a GPU; ``seconds``, for a clip, replaces the profile's.

    The hub is asked for sizes only when ``online``.
    """
    stages, problems = plan(recipe)
    generator = generator_of(recipe)
    profile = chosen = None
    try:
        profile = profiles.load(recipe.profile)
        chosen = profile.variant(generator.options.get("variant"))
        check(recipe)
    except UserError as error:
        problems.insert(0, str(error))
    models = list(dict.fromkeys(_models(recipe, chosen, online)))
    counts = [stage.renders for stage in stages]
    renders = None if None in counts else sum(count or 0 for count in counts)
    source = "given" if seconds is not None else ""
    fit = None
    if profile and chosen and generator.name == "diffusers":
        fit = fit_of(chosen, here, generator.options)
        if seconds is None and (seconds := _seconds(profile, chosen, generator.options)) is not None:
            source = f"the profile, on one {profile.seconds_on}"
    hours = None if renders is None or seconds is None else renders * seconds / 3600
    money = None if hours is None or price is None else hours * price
    return Outlook(recipe.name, problems, models, fit, stages, renders, seconds, source, hours, money)


def fit_of(profile: Profile, here: Machine, options: Mapping[str, Any] = {}) -> Fit:
    """Whether a profile's model fits the first GPU, or the machine's memory where there is none."""
    gpu = next(iter(here.gpus or []), None)
    device, available = gpu or ("this machine's memory, without a GPU", here.memory)
    sizes = components(locate(options.get("model")) or locate(profile.model)) or (
        {} if options.get("model") else profile.parameters
    )
    dtype = options.get("dtype") or (profile.dtype if gpu else "float32")
    offload = (options.get("offload") or profile.offload) if gpu else "none"
    parts = [billions * _bytes(dtype, name) for name, billions in sizes.items()]
    if not parts or offload == "sequential":
        return Fit(device, available, None)
    return Fit(device, available, max(parts) if offload == "model" else sum(parts))


def _bytes(dtype: str | Mapping[str, str], component: str) -> int:
    name = dtype if isinstance(dtype, str) else dtype.get(component, dtype.get("default", "bfloat16"))
    return 4 if name == "float32" else 2


def _seconds(profile: Profile, chosen: Profile, options: Mapping[str, Any]) -> float | None:
    """For one clip: the profile's, in proportion to steps and pixels where its variant or the recipe has others."""
    if chosen.seconds is None or options.get("model"):
        return None
    share = (options.get("steps") or chosen.steps) / profile.steps
    for side in ("frames", "height", "width"):
        share *= (options.get(side) or getattr(profile, side)) / getattr(profile, side)
    return chosen.seconds * share


def components(model: str) -> dict[str, float]:
    """Billions of parameters in each folder of a model on this disk, also in the hub's cache; empty for no model."""
    found: dict[str, float] = {}
    for folder in [Path(model)] if Path(model).is_dir() else _snapshots(model):
        for path in sorted(folder.rglob("*.safetensors")):
            name = path.parent.name if path.parent != folder else ""
            found[name] = found.get(name, 0.0) + _parameters(path) / 1e9
    return found


def _parameters(path: Path) -> int:
    """How many numbers a safetensors file holds, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _snapshots(model: str) -> list[Path]:
    """The newest snapshot of a model in the hub's cache, if there is one with weights."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "snapshots"
    found = [path for path in folder.glob("*") if next(path.rglob("*.safetensors"), None)]
    return sorted(found, key=lambda path: path.stat().st_mtime)[-1:]


def _models(recipe: Recipe, profile: Profile | None, online: bool) -> Iterator[Model]:
    """Every model that a recipe names, by role."""
    generator = generator_of(recipe)
    if profile and generator.name == "diffusers":
        name = generator.options.get("model") or profile.model
        own = name == profile.model
        billions = sum(profile.parameters.values()) if own else 0.0
        yield _weights("video model", name, online, billions, "profile", profile.licence if own else "")
        given = [entry if isinstance(entry, str) else entry["model"] for entry in generator.options.get("adapters", ())]
        for adapter in [*(adapter.model for adapter in profile.adapters), *given]:
            yield _weights("adapter of the video model", adapter, online)
    else:
        yield from _of("video model", generator, online)
    roles = {"student": recipe.student, "teacher": recipe.teacher, **recipe.systems}
    for role, writer in roles.items():
        yield from _of(role, writer.llm.component("llm"), online)
    yield from _of("judge", recipe.judge.component("judge"), online)
    for name, table in recipe.rewards.items():
        yield from _of(f"reward {name}", table.component("reward"), online)
    for stage in recipe.stages(EvaluateStage):
        yield from _of(f"judge of {stage.name}", stage.judge.component("reward"), online)
        if stage.text_judge:
            yield from _of(f"text judge of {stage.name}", stage.text_judge.component("judge"), online)


def _of(role: str, component: Component, online: bool) -> Iterator[Model]:
    """The models among a component's options and those of its parts."""
    for part in registry.parts(component).values():
        yield from _of(role, part, online)
    model = component.options.get("model")
    if not isinstance(model, str):
        return
    if component.name in ("endpoint", "moderation"):
        yield Model(role, f"{model} at {component.options.get('url') or 'OpenAI'}", "endpoint")
        return
    yield _weights(role, model, online)
    if adapter := component.options.get("adapter"):
        yield _weights(f"adapter of the {role}", adapter, online)


def _weights(
    role: str, name: str, online: bool, billions: float = 0.0, source: str = "profile", licence: str = ""
) -> Model:
    """Weights by path or hub id, with their size as well as it can be known."""
    folder = Path(str(locate(name)))
    for place in [folder] if folder.exists() else _snapshots(name):
        files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
        return Model(role, name, "here", sum(path.stat().st_size for path in files) / GB, "disk", licence)
    if online and (size := _hub_size(name)) is not None:
        return Model(role, name, "hub", size, "hub", licence)
    if not billions and (said := re.search(r"(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z])", name.rpartition("/")[2].lower())):
        billions, source = float(said[1]), "name"
    return Model(role, name, "hub", billions * 2 or None, source if billions else "", licence)


def _hub_size(model: str) -> float | None:
    """GB of the weights that the hub has of a model; ``None`` where nobody answers."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        files = HfApi().model_info(model, files_metadata=True).siblings or []
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx2.HTTPError):
        return None
    return sum(file.size or 0 for file in files if file.rfilename.endswith(".safetensors")) / GB
