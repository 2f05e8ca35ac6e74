"""Video and image models: one TOML file each, with what is known about it.

A package adds its own under the entry-point group ``promptreel.profiles``: the entry's name is the profile's
name, its value the package in which ``NAME.toml`` lies.
"""

from __future__ import annotations

import math
import tomllib
from functools import cache
from importlib import resources
from importlib.metadata import entry_points
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from promptreel.errors import RecipeError, UnknownName
from promptreel.resources import locate

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Adapter(Table):
    """LoRA weights that are fused into the pipeline when it loads."""

    model: str
    """Path, ``package:`` path or hub id."""
    scale: float = 1.0
    load: dict[str, Any] = {}
    """Further arguments of ``load_lora_weights``: ``weight_name``, ``subfolder``, ``load_into_transformer_2`` …"""


class Variant(Table):
    """Another way to run a model, mostly in fewer steps: what is not said here stays as in the profile."""

    model: str | None = None
    adapters: tuple[Adapter, ...] = ()
    steps: int | None = None
    guidance: float | None = None
    scheduler: dict[str, Any] = {}
    call: dict[str, Any] = {}
    licence: str | None = None


class Profile(Table):
    name: str
    title: str
    pipeline: str | None = None
    """Class in diffusers; ``None`` for a model that diffusers does not have."""
    model: str
    """Path, ``package:`` path or hub id."""
    revision: str | None = None
    adapters: tuple[Adapter, ...] = ()
    variants: dict[str, Variant] = {}
    licence: str

    height: int
    """In pixels, as ``width``: the size of a clip for which no aspect ratio was asked."""
    width: int
    sizes: dict[str, tuple[int, int]] = {}
    """Aspect ratio, as ``9:16``, to width and height in pixels."""
    frames: int
    """1 for a text-to-image model."""
    fps: float
    steps: int
    guidance: float
    guidance_argument: Literal["guidance_scale", "true_cfg_scale", "guider"] = "guidance_scale"
    """How the pipeline is told its guidance: an argument of its call, or the component ``guider``."""
    negative_prompt: str | None = None
    """What is avoided by default; ``None`` where the model takes no negative prompt."""
    scheduler: dict[str, Any] = {}
    """Changes to the pipeline's scheduler: ``name`` is a class in diffusers, the rest its configuration."""
    call: dict[str, Any] = {}
    """Further arguments of the pipeline's call."""
    deterministic: bool = True
    """Whether equal seeds give equal clips on one machine, whatever else is in the batch."""

    token_limit: int
    """Tokens that the text encoder reads, those around the prompt included; the rest is cut without a word.

    Of several encoders, that of the first to cut among those that read the words one by one: what an encoder
    cuts that only gives a summary is noted in a comment.
    """
    tokenizer: str = "tokenizer"
    """Subfolder of the model with the tokenizer that counts."""
    tokenizer_hub: str | None = None
    """Hub id with the same tokenizer as ``tokenizer.json``, for a model whose own is in an older format."""
    special_tokens: int | None = None
    """Tokens around the prompt that count too; ``None`` for those that the tokenizer adds."""

    dtype: str | dict[str, str] = "bfloat16"
    """Of torch, on a GPU: one for all, or one for each component, with ``default`` for the others."""
    offload: Literal["none", "model", "sequential"] = "none"
    """What waits in the machine's memory until it is used: nothing, whole components, or single layers."""
    tiling: bool = False
    """Whether the autoencoder works on tiles; takes less memory, and changes pixels where tiles meet."""
    slicing: bool = False
    """Whether the autoencoder works on one clip at a time; takes less memory."""
    compile: bool = False
    """Whether the denoiser goes through ``torch.compile``."""
    batch_size: int = Field(1, gt=0)

    judge: str | None = None
    """A judge that reads rewrites for this model at no cost, if there is one."""
    house_style: str = ""
    """How prompts for this model are best written, for templates."""

    parameters: dict[str, float] = {}
    """Billions of parameters by component of the pipeline, as published and rounded: how large it is, before anything
    is fetched."""
    seconds: float | None = None
    """For one clip at the profile's size and steps on the GPU ``seconds_on``, as the authors say; roughly."""
    seconds_on: str = ""

    def variant(self, name: str | None) -> Profile:
        """The profile with a variant's changes, or itself. Raises ``UnknownName``."""
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
        """Width and height in pixels for an aspect ratio: of the listed ones that of the nearest shape.

        What is no ratio, as no ratio, gives the model's own size.
        """
        own = self.width, self.height
        asked = _ratio(aspect)
        if asked is None:
            return own
        shapes = {self.width / self.height: own} | {_ratio(name) or 1: size for name, size in self.sizes.items()}
        return shapes[min(shapes, key=lambda shape: abs(math.log(shape / asked)))]


def _ratio(aspect: str) -> float | None:
    """Width over height of ``16:9``; ``None`` for what is no ratio."""
    width, _, height = aspect.partition(":")
    try:
        ratio = float(width) / float(height)
    except (ValueError, ZeroDivisionError):
        return None
    return ratio if 0 < ratio < math.inf else None


def names() -> list[str]:
    return sorted(_files())


def _files() -> dict[str, Traversable]:
    """The files of all profiles by name, those of other packages too; ours come first."""
    ours = resources.files("promptreel.profiles")
    found = {file.name.removesuffix(".toml"): file for file in ours.iterdir() if file.name.endswith(".toml")}
    for entry in entry_points(group="promptreel.profiles"):
        if entry.name not in found:
            found[entry.name] = resources.files(entry.value) / f"{entry.name}.toml"
    return found


@cache
def load(name: str) -> Profile:
    """The profile by name, or by path of a TOML file. Raises ``UnknownName`` or ``RecipeError``."""
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


PATIENCE = 10.0
"""Seconds that the hub has to say whether it has a tokenizer."""
BYTES_PER_TOKEN = 4
"""Of plain English in UTF-8, roughly, in the vocabularies of CLIP, T5, Llama and Qwen."""


class TokenCounter:
    """Counts the tokens of a prompt as a profile's text encoder does, those around the prompt included.

    ``exact`` is false where the model's tokenizer could not be had (no network, a gated model): what is given
    then is an estimate, and is to be called one.
    """

    def __init__(self, profile: Profile, tokenizer: Tokenizer | None) -> None:
        self.profile, self._tokenizer = profile, tokenizer
        self.exact = tokenizer is not None

    def __call__(self, text: str) -> int:
        around = self.profile.special_tokens
        if self._tokenizer is None:
            return math.ceil(len(text.encode()) / BYTES_PER_TOKEN) + (1 if around is None else around)
        return len(self._tokenizer.encode(text, add_special_tokens=around is None).ids) + (around or 0)

    def fits(self, text: str) -> bool:
        """Whether the text encoder reads all of a prompt."""
        return self(text) <= self.profile.token_limit


@cache
def token_counter(name: str, model: str | None = None) -> TokenCounter:
    """What counts tokens for a profile; ``model`` is a path or hub id of other weights for it.

    It needs no torch: only the tokenizer of the model is read, from disk or from the hub.
    """
    profile = load(name)
    return TokenCounter(profile, _tokenizer(profile, model or profile.model))


def _tokenizer(profile: Profile, model: str) -> Tokenizer | None:
    """The tokenizer that counts, if it can be had."""
    from tokenizers import Tokenizer

    local = Path(model) / profile.tokenizer / "tokenizer.json"
    file = str(local) if local.exists() else None
    if file is None and profile.tokenizer_hub:
        file = _download(profile.tokenizer_hub, None)
    if file is None and not Path(model).is_dir():
        file = _download(model, profile.tokenizer)
    if file is None:
        return None
    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _download(model: str, folder: str | None) -> str | None:
    """A tokenizer's file from the cache or the hub; ``None`` if it is not there or nobody answers."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    name = f"{folder}/tokenizer.json" if folder else "tokenizer.json"
    try:
        cached = try_to_load_from_cache(model, name)
        if isinstance(cached, str):
            return cached
        # Asked once: a download would try for half a minute to reach a hub that does not answer.
        get_hf_file_metadata(hf_hub_url(model, name), timeout=PATIENCE)
        return hf_hub_download(model, name)
    except Exception:  # noqa: BLE001 - the library of HTTP that the hub's uses has changed, and so do its errors
        return None
