"""Language models by specification, as on the command line: endpoints, local weights, and models with names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from promptreel import profiles, prompts, registry
from promptreel.errors import UnknownName, UserError
from promptreel.execution.writer import CARD, Writer
from promptreel.package_files import locate
from promptreel.rewriting.loop import ATTEMPTS
from promptreel.tiny import presets
from promptreel.types import Component, SamplingParams

NAMED: Mapping[str, tuple[str, str | None]] = {
    **presets.MODELS,
    "prompt-a-video-cv": ("jiyatai/Prompt_A_Video_CV", None),
    "prompt-a-video-os": ("jiyatai/Prompt_A_Video_OS", None),
    "vpo-2b": ("CCCCCC/VPO-2B", None),
    "vpo-5b": ("CCCCCC/VPO-5B", None),
}
"""Language models with names of their own: weights and adapter."""

_PROMPT_A_VIDEO = {"format": "prompt_a_video", "sampling": {"temperature": 1.0, "top_p": 0.95, "max_tokens": 256}}
# github.com/jiyt17/Prompt-A-Video, booster/inference/inference_chat.py. It draws from the 50 likeliest tokens;
# ``SamplingParams`` has no field for that, and 0.95 of the probability cuts off the same tail.
_VPO = {"format": "vpo", "sampling": {"temperature": 0.7, "max_tokens": 1024}}  # github.com/thu-coai/VPO, README.md
CARDS: Mapping[str, Mapping[str, Any]] = {
    "jiyatai/Prompt_A_Video_CV": _PROMPT_A_VIDEO,
    "jiyatai/Prompt_A_Video_OS": _PROMPT_A_VIDEO,
    "CCCCCC/VPO-2B": _VPO,
    "CCCCCC/VPO-5B": _VPO,
}
"""Cards of students that others released, by hub id: no card lies beside their weights."""

ENDPOINT = re.compile(r"(?P<model>.+?)(?:@(?P<url>https?://.+))?")
SPECS = "endpoint:MODEL[@URL], local:PATH-OR-HUB-ID[+ADAPTER]"
RETRIES = 2
"""Retries of a request to an endpoint: a person is waiting."""
LONGEST = 2048
"""Tokens that a model without a card may write: thoughts count too, and a reply that is cut off is of no use."""


def component_of(spec: str) -> Component:
    """Return the language model of a specification: an endpoint, local weights, or a name.

    Raises ``UserError`` for any other text.
    """
    kind, _, rest = spec.partition(":")
    if spec in NAMED:
        return _local(*NAMED[spec])
    if kind == "local" and rest:
        model, _, adapter = rest.partition("+")
        return _local(model, adapter)
    if kind == "endpoint" and (parts := ENDPOINT.fullmatch(rest)):
        if "@" in parts["model"][1:]:
            raise UserError(f"cannot read {spec!r}: after @ comes a URL that begins with http:// or https://")
        url = {"url": parts["url"]} if parts["url"] else {}
        return Component("llm", "endpoint", {"model": parts["model"], **url, "retries": RETRIES})
    raise UserError(f"cannot read the language model {spec!r}: give {SPECS}, or {', '.join(NAMED)}")


def _local(model: str, adapter: str | None) -> Component:
    """Return local weights. Raises ``UserError`` for a path without a file; a hub id has one slash at most."""
    for path in filter(None, (model, adapter)):
        is_path = path.startswith((".", "/", "~")) or path.count("/") > 1
        if is_path and not path.startswith("package:") and not Path(path).expanduser().exists():
            raise UserError(f"there is no model at {path}: give the path of its directory, or its id on the hub")
    return Component("llm", "local", {"model": model} | ({"adapter": adapter} if adapter else {}))


def judge_of(spec: str) -> Component:
    """Return the judge of a specification: a registered one, or a language model that is asked for verdicts."""
    if spec in registry.names("judge"):
        return Component("judge", spec)
    llm = component_of(spec)
    return Component("judge", "llm", {"llm": {"name": llm.name, **llm.options}})


def writer_for(spec: str, profile: str, mode: str | None = None) -> Writer:
    """Return the writer of a specification for a video model, in a mode of ``prompts.MODES``.

    A student has a card with its format and sampling, beside its weights or in ``CARDS``, and takes no mode. Every
    other model is asked in the first mode by default.
    """
    if mode is not None and mode not in prompts.MODES:
        raise UnknownName("mode", mode, prompts.MODES)
    component = component_of(spec)
    model = str(locate(component.options["model"]))
    path = Path(model) / CARD
    beside = component.name == "local" and path.exists()
    card = json.loads(path.read_text()) if beside else CARDS.get(model, {})
    if card and mode:
        raise UserError(f"{spec} was trained to be asked in its own way: leave out the mode")
    return Writer(
        component,
        card.get("format", mode or prompts.MODES[0]),
        SamplingParams(**card.get("sampling", {"temperature": 0.7, "max_tokens": LONGEST})),
        profile=profiles.load(profile).model_dump(),
        attempts=ATTEMPTS,
    )
