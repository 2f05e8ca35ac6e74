"""What this machine has and what a recipe needs of it, said before anything is fetched, loaded or paid for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from promptreel import profiles
from promptreel.config import Recipe
from promptreel.errors import EXTRAS, UserError
from promptreel.pipeline.check import check, generator_of
from promptreel.pipeline.models import GB, Model, absent, components, models
from promptreel.pipeline.plan import Planned, plan
from promptreel.profiles import Profile
from promptreel.resources import locate


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
        problems += absent(recipe)
    except UserError as error:
        problems.insert(0, str(error))
    named = list(dict.fromkeys(models(recipe, chosen, online)))
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
    return Outlook(recipe.name, problems, named, fit, stages, renders, seconds, source, hours, money)


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
