"""Names of components: (kind, name) to ``module:Class``, imported only when one is used.

Other packages add theirs under the entry-point group ``promptreel.<kind>s`` (``promptreel.generators``,
``promptreel.llms``, ``promptreel.rewards``, ``promptreel.judges``, ``promptreel.engines``,
``promptreel.datasets``): the entry's name is the component's name and its value the same ``module:Class``.
Profiles come from other packages too, see ``profiles``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from promptreel.errors import RecipeError, UnknownName, did_you_mean, importing
from promptreel.resources import locate
from promptreel.types import Component

BUILT_IN: dict[str, dict[str, str]] = {
    "llm": {
        "local": "promptreel.llms.local:LocalLLM",
        "endpoint": "promptreel.llms.endpoint:EndpointLLM",
        "tiny-canonical": "promptreel.tiny.judges:CanonicalLLM",
        "tiny-judge": "promptreel.tiny.judge_server:TinyJudgeLLM",
    },
    "generator": {"diffusers": "promptreel.generators.diffusers:DiffusersGenerator"},
    "reward": {
        "pixels": "promptreel.rewards.pixels:Pixels",
        "clip": "promptreel.rewards.image:CLIP",
        "xclip": "promptreel.rewards.video:XCLIP",
        "tiny-oracle": "promptreel.tiny.judges:OracleReward",
    },
    "judge": {
        "llm": "promptreel.rewards.text:LLMJudge",
        "guarded": "promptreel.rewards.text:Guarded",
        "guard": "promptreel.rewards.safety:GuardModel",
        "moderation": "promptreel.rewards.safety:Moderation",
        "tiny-oracle": "promptreel.tiny.judges:OracleJudge",
        "tiny-judge": "promptreel.tiny.judge_server:TinyJudge",
    },
    "engine": {"local": "promptreel.engine.local:LocalEngine"},
    "dataset": {
        "tiny-train": "promptreel.tiny.datasets:train",
        "tiny-dev": "promptreel.tiny.datasets:dev",
        "tiny-test": "promptreel.tiny.datasets:test",
        "tiny-ood": "promptreel.tiny.datasets:ood",
        "tiny-mixed": "promptreel.tiny.datasets:mixed",
        "tiny-safe": "promptreel.tiny.datasets:safe",
        "tiny-unsafe": "promptreel.tiny.datasets:unsafe",
        "tiny-dev-safe": "promptreel.tiny.datasets:dev_safe",
        "tiny-dev-unsafe": "promptreel.tiny.datasets:dev_unsafe",
        "tiny-image-train": "promptreel.tiny.datasets:image_train",
        "tiny-image-dev": "promptreel.tiny.datasets:image_dev",
        "tiny-image-test": "promptreel.tiny.datasets:image_test",
    },
}


def names(kind: str) -> dict[str, str]:
    """All components of a kind, built in and plugged in: name to ``module:Class``."""
    return {**_plugged(kind), **BUILT_IN[kind]}


@cache  # the metadata of all installed packages is read for it
def _plugged(kind: str) -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=f"promptreel.{kind}s")}


def find(kind: str, name: str) -> type:
    """The class of a component.

    Raises ``UnknownName`` with the nearest name, or ``MissingExtra`` with the line to type.
    """
    known = names(kind)
    if name not in known:
        raise UnknownName(kind, name, known)
    module, _, attribute = known[name].partition(":")
    with importing(f"{kind} {name!r}"):
        found: type = getattr(import_module(module), attribute)
    return found


def check(component: Component) -> None:
    """Raise for an unknown name, and for an option the component does not take or needs and lacks."""
    for part in parts(component).values():
        check(part)
    kind, name = component.kind, component.name
    parameters = inspect.signature(find(kind, name)).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        for option in component.options:
            if option not in parameters:
                raise RecipeError(f"{kind} {name!r} has no option {option!r}{did_you_mean(option, parameters)}")
    for option, parameter in parameters.items():
        variable = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if parameter.default is parameter.empty and not variable and option not in component.options:
            raise RecipeError(f"{kind} {name!r} needs the option {option!r}")


PARTS = {"llm": "llm", "facts": "judge", "guard": "judge"}
"""Options that are components themselves, as tables with a name, and of which kind."""


def parts(component: Component) -> dict[str, Component]:
    """The components among a component's options."""
    found = {}
    for option, kind in PARTS.items():
        table = component.options.get(option)
        if isinstance(table, Mapping) and "name" in table:
            found[option] = Component(kind, table["name"], {k: v for k, v in table.items() if k != "name"})
    return found


def build(component: Component) -> Any:
    """Construct a component, its parts first. It loads its weights on first use, so its fingerprint is cheap."""
    check(component)
    options = {key: locate(value) for key, value in component.options.items()}
    options |= {option: build(part) for option, part in parts(component).items()}
    with importing(f"{component.kind} {component.name!r}"):
        return find(component.kind, component.name)(**options)
