"""The state of this machine and the needs of a recipe, before anything is fetched, loaded or paid for."""

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
from promptreel.errors import UserError
from promptreel.extras import EXTRAS
from promptreel.package_files import locate
from promptreel.preflight.check import check
from promptreel.preflight.cost import costs
from promptreel.preflight.inventory import GB, Model, absent, components, models
from promptreel.profiles import Profile
from promptreel.stages import Cost


@dataclass(frozen=True)
class Extra:
    """An extra of the package, as far as it is installed."""

    name: str
    installed: dict[str, str]
    """Module to version."""
    missing: list[str]
    """Modules."""


@dataclass(frozen=True)
class Machine:
    """The hardware. Sizes are in GB; ``None`` is unknown."""

    cores: int | None
    memory: float | None
    disk: float
    """Free space in the hub's cache."""
    gpus: list[tuple[str, float]] | None
    """Names and memories; ``None`` without torch, which knows them."""


@dataclass(frozen=True)
class Fit:
    """The video model in a device's memory, as its profile or the recipe loads it."""

    device: str
    available: float | None
    """GB."""
    weights: float | None
    """GB of weights in memory at one time. Activations need the rest; they grow with the clip."""

    @property
    def fits(self) -> bool | None:
        """False if not even the weights fit; ``None`` if one of the sizes is unknown."""
        return None if self.available is None or self.weights is None else self.weights < self.available


@dataclass(frozen=True)
class Outlook:
    """The needs of a recipe. Counts are upper bounds; hours and money are estimates."""

    recipe: str
    problems: list[str]
    models: list[Model]
    fit: Fit | None
    stages: list[Cost]
    renders: int | None
    seconds: float | None
    """Time for one clip."""
    seconds_from: str
    """Source of that time."""
    hours: float | None
    """GPU-hours for the renders alone."""
    money: float | None
    """Price of these hours."""


def extras() -> list[Extra]:
    """Return the optional dependencies by extra. Nothing is imported."""
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
    """Return the processors, memory, disk and GPUs of this machine."""
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
    """Return the needs of a recipe.

    ``price`` is the price of a GPU-hour. ``seconds``, the time for one clip, replaces the profile's. The hub is asked
    for sizes only if ``online``.
    """
    stages, problems = costs(recipe)
    generator = recipe.generator_component()
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
    """Return the fit of a profile's model into the first GPU, or into the machine's memory without one."""
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
    """Return the time for one clip: the profile's, in proportion to the steps and pixels of its variant or recipe."""
    if chosen.seconds is None or options.get("model"):
        return None
    share = (options.get("steps") or chosen.steps) / profile.steps
    for side in ("frames", "height", "width"):
        share *= (options.get(side) or getattr(profile, side)) / getattr(profile, side)
    return chosen.seconds * share
