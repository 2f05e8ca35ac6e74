"""Profiles of video and image models: one TOML file each, with the facts known about the model.

A package adds its own under the entry-point group ``promptreel.profiles``: the entry's name is the profile's name, its
value the package in which ``NAME.toml`` lies.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib import resources
from importlib.metadata import entry_points
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptreel.errors import RecipeError, UnknownName
from promptreel.package_files import locate


class Table(BaseModel):
    """A closed table: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Adapter(Table):
    """LoRA weights that are fused into the pipeline when it loads."""

    model: str
    """Path, ``package:`` path or hub id."""
    scale: float = 1.0
    """Weight of the adapter; 0 changes nothing."""
    load: dict[str, Any] = {}
    """Further arguments of ``load_lora_weights``: ``weight_name``, ``subfolder``, ``load_into_transformer_2`` …"""


class Variant(Table):
    """Another way to run a model, mostly in fewer steps. Keys that are not given stay as in the profile."""

    model: str | None = None
    adapters: tuple[Adapter, ...] = ()
    steps: int | None = None
    guidance: float | None = None
    scheduler: dict[str, Any] = {}
    call: dict[str, Any] = {}
    licence: str | None = None


class Profile(Table):
    """A video or image model: its weights, its settings, and the limits of its text encoder."""

    name: str
    title: str
    """Name to show, as its authors write it."""
    pipeline: str | None = None
    """Class of diffusers; ``None`` for a model that diffusers does not have."""
    model: str
    """Path, ``package:`` path or hub id."""
    revision: str | None = None
    """Branch, tag or commit on the hub; ``None`` for the default branch."""
    adapters: tuple[Adapter, ...] = ()
    variants: dict[str, Variant] = {}
    """Variant by name."""
    licence: str
    """Licence of the weights."""

    height: int
    """In pixels, as ``width``: the size of a clip without a requested aspect ratio."""
    width: int
    sizes: dict[str, tuple[int, int]] = {}
    """Aspect ratio, as ``9:16``, to width and height in pixels."""
    frames: int
    """1 for a text-to-image model."""
    fps: float
    """Frames per second of a clip."""
    steps: int
    """Denoising steps."""
    guidance: float
    """Scale of classifier-free guidance, or its distilled counterpart."""
    guidance_argument: Literal["guidance_scale", "true_cfg_scale", "guider"] = "guidance_scale"
    """Way to pass the guidance to the pipeline: an argument of its call, or its component ``guider``."""
    negative_prompt: str | None = None
    """Default negative prompt; ``None`` for a model that takes none."""
    scheduler: dict[str, Any] = {}
    """Changes to the pipeline's scheduler: ``name`` is a class of diffusers, the other keys are its configuration."""
    call: dict[str, Any] = {}
    """Further arguments of the pipeline's call."""
    deterministic: bool = True
    """True if equal seeds give equal clips on one machine, in every batch."""

    token_limit: int
    """Tokens that the text encoder reads, special tokens included. The rest of a prompt is cut without a warning.

    With several text encoders, the smallest limit of the token-level ones. Limits of pooled encoders, which give one
    vector per prompt, are noted in comments of the file.
    """
    tokenizer: str = "tokenizer"
    """Subfolder of the model with the tokenizer that tokens are counted with."""
    tokenizer_hub: str | None = None
    """Hub id of the same tokenizer as ``tokenizer.json``, for a model whose own is in an older format."""
    special_tokens: int | None = None
    """Special tokens around the prompt; ``None`` for as many as the tokenizer adds."""

    dtype: str | dict[str, str] = "bfloat16"
    """Type of torch on a GPU: one for all components, or one per component, with ``default`` for the others."""
    offload: Literal["none", "model", "sequential"] = "none"
    """Parts that wait in the machine's memory until they are used: none, whole components, or single layers."""
    tiling: bool = False
    """True if the autoencoder works on tiles. Takes less memory, and changes pixels at the seams of tiles."""
    slicing: bool = False
    """True if the autoencoder works on one clip at a time. Takes less memory."""
    compile: bool = False
    """True if the denoiser goes through ``torch.compile``."""
    batch_size: int = Field(1, gt=0)
    """Number of clips rendered at once."""

    judge: str | None = None
    """Name of a judge that reads rewrites for this model at no cost; ``None`` without one."""
    house_style: str = ""
    """Advice on prompts for this model, for templates."""

    parameters: dict[str, float] = {}
    """Billions of parameters by component of the pipeline, as published and rounded, for size estimates before a
    download."""
    seconds: float | None = None
    """Approximate time for one clip at the profile's size and steps on the GPU ``seconds_on``, by its authors."""
    seconds_on: str = ""
    """Name of a GPU."""

    def variant(self, name: str | None) -> Profile:
        """Return the profile with a variant's changes; itself for ``None``. Raises ``UnknownName``."""
        if name is None:
            return self
        if name not in self.variants:
            raise UnknownName(f"variant of {self.name}", name, self.variants)
        chosen = self.variants[name]
        changes: dict[str, Any] = {
            key: value
            for key in ("model", "steps", "guidance", "licence")
            if (value := getattr(chosen, key)) is not None
        }
        if chosen.model:
            changes |= {"revision": None, "parameters": {}, "seconds": None}
        merged = {"scheduler": self.scheduler | chosen.scheduler, "call": self.call | chosen.call}
        return self.model_copy(update={**changes, **merged, "adapters": (*self.adapters, *chosen.adapters)})

    def size(self, aspect: str = "") -> tuple[int, int]:
        """Return the size (width, height in pixels) of the listed shape nearest to an aspect ratio such as ``16:9``.

        An empty or malformed ratio gives the model's default size.
        """
        own = self.width, self.height
        asked = _ratio(aspect)
        if asked is None:
            return own
        listed = {_ratio(name) or 1: size for name, size in self.sizes.items()}
        shapes = {self.width / self.height: own} | listed
        return shapes[min(shapes, key=lambda shape: abs(math.log(shape / asked)))]


def _ratio(aspect: str) -> float | None:
    """Return width divided by height of a ratio such as ``16:9``, or ``None`` for a malformed one."""
    width, _, height = aspect.partition(":")
    try:
        ratio = float(width) / float(height)
    except (ValueError, ZeroDivisionError):
        return None
    return ratio if 0 < ratio < math.inf else None


def names() -> list[str]:
    """Return the names of all profiles, those of other packages included."""
    return sorted(_files())


def _files() -> dict[str, Traversable]:
    """Return the files of all profiles by name. The names of this package take precedence."""
    ours = resources.files("promptreel.profiles")
    found = {file.name.removesuffix(".toml"): file for file in ours.iterdir() if file.name.endswith(".toml")}
    for entry in entry_points(group="promptreel.profiles"):
        if entry.name not in found:
            found[entry.name] = resources.files(entry.value) / f"{entry.name}.toml"
    return found


@cache
def load(name: str) -> Profile:
    """Load a profile, by name or by the path of a TOML file. Raises ``UnknownName`` or ``RecipeError``."""
    path = Path(name)
    files = _files()
    if path.suffix == ".toml" and path.exists():
        text = path.read_text(encoding="utf-8")
    elif name in files:
        text = files[name].read_text(encoding="utf-8")
    else:
        raise UnknownName("profile", name, files)
    try:
        return Profile.model_validate(locate(tomllib.loads(text)))
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"profile {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"profile {name} is not valid TOML: {error}") from error
