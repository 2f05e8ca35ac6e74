"""Video models: one TOML file each, with what is known about it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from promptreel.errors import RecipeError, UnknownName
from promptreel.resources import locate


class Profile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    pipeline: str
    """Class in diffusers."""
    model: str
    """Path, ``package:`` path or hub id."""
    adapter: str | None = None
    """LoRA weights loaded into the pipeline; path, ``package:`` path or hub id."""
    licence: str
    height: int
    width: int
    frames: int
    """1 for a text-to-image model."""
    fps: float
    steps: int
    guidance: float
    negative_prompt: str | None = None
    """What is avoided by default; ``None`` where the model takes no negative prompt."""
    token_limit: int
    """Tokens that the text encoder reads, its end token included; the rest is cut without a word."""
    tokenizer: str = "tokenizer"
    """Subfolder of the model with the tokenizer that counts."""
    call: dict[str, Any] = {}
    """Further arguments of the pipeline's call; built-in rewriters are switched off here."""
    judge: str | None = None
    """A judge that reads rewrites for this model at no cost, if there is one."""
    house_style: str = ""
    """How prompts for this model are best written, for templates."""


def names() -> list[str]:
    return sorted(entry.name.removesuffix(".toml") for entry in _directory() if entry.name.endswith(".toml"))


def _directory() -> list[Any]:
    return list(resources.files("promptreel.profiles").iterdir())


@cache
def load(name: str) -> Profile:
    """The profile by name, or by path of a TOML file. Raises ``UnknownName``."""
    path = Path(name)
    if path.suffix == ".toml" and path.exists():
        text = path.read_text(encoding="utf-8")
    elif name in names():
        text = (resources.files("promptreel.profiles") / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise UnknownName("profile", name, names())
    try:
        return Profile.model_validate(locate(tomllib.loads(text)))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"profile {name}: {error}") from error


@cache
def token_counter(name: str) -> Callable[[str], int]:
    """A function that counts the tokens of a prompt as the profile's text encoder does, end token included.

    It needs no torch: only the tokenizer of the model is read, from disk or from the hub.
    """
    from tokenizers import Tokenizer

    profile = load(name)
    local = Path(profile.model) / profile.tokenizer / "tokenizer.json"
    if local.exists():
        tokenizer = Tokenizer.from_file(str(local))
    else:
        from huggingface_hub import hf_hub_download

        tokenizer = Tokenizer.from_file(hf_hub_download(profile.model, "tokenizer.json", subfolder=profile.tokenizer))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text).ids)
