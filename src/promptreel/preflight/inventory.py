"""The models that a recipe names, with their places and sizes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from promptreel import profiles, registry
from promptreel.config import EvaluateStage, Recipe
from promptreel.errors import MissingExtra
from promptreel.package_files import locate
from promptreel.profiles import Profile
from promptreel.types import Component

GB = 1e9


@dataclass(frozen=True)
class Model:
    """Weights that a recipe names, or a model that others serve."""

    role: str
    name: str
    place: str
    """``here``, ``hub`` (to be fetched), ``endpoint``, or ``nowhere`` (a path at which there is nothing)."""
    size: float | None = None
    """GB on the disk, or to be fetched; ``None`` if unknown."""
    source: str = ""
    """Source of the size: ``disk``, ``hub``, or an estimate by ``profile`` or by the model's ``name``."""
    licence: str = ""


def absent(recipe: Recipe) -> list[str]:
    """Return the models that a recipe names by paths at which there is nothing, one line each."""
    generator = recipe.generator_component()
    profile = profiles.load(recipe.profile).variant(generator.options.get("variant"))
    nowhere = [model for model in models(recipe, profile) if model.place == "nowhere"]
    return [f"{m.role}: no model at {m.name}; give a path at which there is one, or a hub id" for m in nowhere]


def components(model: str) -> dict[str, float]:
    """Return the billions of parameters in each folder of a model on this disk or in the hub's cache.

    A model that is in neither place has no folders.
    """
    found: dict[str, float] = {}
    for folder in [Path(model)] if Path(model).is_dir() else _snapshots(model):
        for path in sorted(folder.rglob("*.safetensors")):
            name = path.parent.name if path.parent != folder else ""
            found[name] = found.get(name, 0.0) + _parameters(path) / 1e9
    return found


def _parameters(path: Path) -> int:
    """Return the number of parameters in a safetensors file, from its header."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def _snapshots(model: str) -> list[Path]:
    """Return the newest snapshot with weights of a model in the hub's cache, if there is one."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{model.replace('/', '--')}" / "snapshots"
    found = [path for path in folder.glob("*") if next(path.rglob("*.safetensors"), None)]
    return sorted(found, key=lambda path: path.stat().st_mtime)[-1:]


def models(recipe: Recipe, profile: Profile | None, online: bool = False) -> Iterator[Model]:
    """Yield every model that a recipe names, by role.

    ``profile`` is that of its video model, in its variant. The hub is asked for sizes only if ``online``.
    """
    generator = recipe.generator_component()
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
    for role, llm, _ in recipe.models():
        yield from _of(role, llm.component("llm"), online)
    yield from _of("judge", recipe.judge.component("judge"), online)
    for name, table in recipe.rewards.items():
        yield from _of(f"reward {name}", table.component("reward"), online)
    for stage in recipe.stages(EvaluateStage):
        yield from _of(f"reward of {stage.name}", stage.reward.component("reward"), online)
        if stage.judge:
            yield from _of(f"judge of {stage.name}", stage.judge.component("judge"), online)


def _of(role: str, component: Component, online: bool) -> Iterator[Model]:
    """Yield the models that a component and its parts name.

    The option ``model`` of a plug-in is its own affair: a path of it is not known to be missing.
    """
    for part in _whole(component):
        model = part.options.get("model")
        if not isinstance(model, str):
            continue
        if part.name in ("endpoint", "moderation"):
            yield Model(role, f"{model} at {part.options.get('url') or 'OpenAI'}", "endpoint")
            continue
        ours = part.name in registry.BUILT_IN[part.kind]
        yield _weights(role, model, online, ours=ours)
        if adapter := part.options.get("adapter"):
            yield _weights(f"adapter of the {role}", adapter, online, ours=ours)


def _whole(component: Component) -> Iterator[Component]:
    """Yield a component and its parts. A component whose extra is not installed has no known parts."""
    yield component
    with suppress(MissingExtra):
        for part in registry.parts(component):
            yield from _whole(part)


def _weights(
    role: str,
    name: str,
    online: bool,
    billions: float = 0.0,
    source: str = "profile",
    licence: str = "",
    ours: bool = True,
) -> Model:
    """Return weights by path or hub id, with their size as far as it can be known."""
    folder = Path(str(locate(name)))
    for place in [folder] if folder.exists() else _snapshots(name):
        files = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
        return Model(role, name, "here", sum(path.stat().st_size for path in files) / GB, "disk", licence)
    if ours and _is_path(name):
        return Model(role, name, "nowhere")
    if online and (size := _hub_size(name)) is not None:
        return Model(role, name, "hub", size, "hub", licence)
    if not billions and (said := re.search(r"(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z])", name.rpartition("/")[2].lower())):
        billions, source = float(said[1]), "name"
    return Model(role, name, "hub", billions * 2 or None, source if billions else "", licence)


def _is_path(model: str) -> bool:
    """Return True for an absent model that is meant as a path: no hub id, or in a folder that exists."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not re-exported

    try:
        validate_repo_id(model)
    except HFValidationError:
        return True
    return Path(model).parent.is_dir() and "/" in model


def _hub_size(model: str) -> float | None:
    """Return the GB of a model's weights on the hub; ``None`` without an answer."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        files = HfApi().model_info(model, files_metadata=True).siblings or []
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, httpx2.HTTPError):
        return None
    return sum(file.size or 0 for file in files if file.rfilename.endswith(".safetensors")) / GB
