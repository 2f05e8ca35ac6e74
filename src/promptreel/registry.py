"""Registry of components: (kind, name) to ``module:Class``, imported only when one is used.

Other packages add components under the entry-point group ``promptreel.<kind>s`` (``promptreel.generators``,
``promptreel.llms``, ``promptreel.rewards``, ``promptreel.judges``, ``promptreel.searches``, ``promptreel.engines``,
``promptreel.datasets``): the entry's name is the component's name and its value the same ``module:Class``. A script
adds its own with ``register``. Profiles come from other packages too, see ``profiles``.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from promptreel.errors import RecipeError, UnknownName, did_you_mean
from promptreel.extras import importing
from promptreel.package_files import locate
from promptreel.protocols import LLM, Generator, Judge, Reward
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
        "clip": "promptreel.rewards.clip:CLIP",
        "xclip": "promptreel.rewards.xclip:XCLIP",
        "tiny-oracle": "promptreel.tiny.judges:OracleReward",
    },
    "judge": {
        "llm": "promptreel.judges.llm:LLMJudge",
        "guarded": "promptreel.judges.guarded:Guarded",
        "guard": "promptreel.judges.guards:GuardModel",
        "moderation": "promptreel.judges.moderation:Moderation",
        "tiny-oracle": "promptreel.tiny.judges:OracleJudge",
        "tiny-judge": "promptreel.tiny.judge_server:TinyJudge",
    },
    "search": {"rounds": "promptreel.search.evolution:Rounds"},
    "engine": {
        "local": "promptreel.execution.local_engine:LocalEngine",
        "processes": "promptreel.execution.process_engine:ProcessEngine",
    },
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


ADDED: dict[str, dict[str, str]] = {}
"""Components that this process registered."""


def register(kind: str, name: str, target: str) -> None:
    """Add a component, as ``module:Class``, to this process and the workers that an engine starts from it."""
    if kind not in BUILT_IN:
        raise UnknownName("kind of component", kind, BUILT_IN)
    ADDED.setdefault(kind, {})[name] = target


def names(kind: str) -> dict[str, str]:
    """Return all components of a kind, built in and plugged in: name to ``module:Class``."""
    return {**_plugged(kind), **BUILT_IN[kind], **ADDED.get(kind, {})}


@cache  # the metadata of all installed packages is read for it
def _plugged(kind: str) -> dict[str, str]:
    return {entry.name: entry.value for entry in entry_points(group=f"promptreel.{_plural(kind)}")}


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("ch") else f"{kind}s"


def find(kind: str, name: str) -> type:
    """Return the class of a component.

    Raises ``UnknownName`` with the nearest name, or ``MissingExtra`` with the command that installs it.
    """
    known = names(kind)
    if name not in known:
        raise UnknownName(kind, name, known)
    module, _, attribute = known[name].partition(":")
    with importing(f"{kind} {name!r}"):
        found: type = getattr(import_module(module), attribute)
    return found


def declared(kind: str, name: str, attribute: str, default: Any = None) -> Any:
    """Return a class attribute that a component declares (``dimensions``, ``moving``, ``explains`` …)."""
    return getattr(find(kind, name), attribute, default)


def check(component: Component) -> None:
    """Raise for an unknown name, and for an option the component does not take or needs and lacks."""
    for part in parts(component):
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


PORTS: dict[Any, str] = {LLM: "llm", Generator: "generator", Reward: "reward", Judge: "judge"}
"""Annotations of constructor parameters that take a component, and the kind of the component."""


@cache
def _ports(component: type) -> dict[str, str]:
    """Return the parameters of a component's constructor that are components, and of which kind."""
    found = {}
    for name, parameter in inspect.signature(component, eval_str=True).parameters.items():
        hint = parameter.annotation
        inside = [hint, *typing.get_args(hint)]  # LLM | None, list[Reward], dict[str, Reward]
        port = next((PORTS[part] for part in inside if isinstance(part, type) and part in PORTS), None)
        if port:
            found[name] = port
    return found


def _part(kind: str, table: Any, option: str) -> Component:
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise RecipeError(f"{option} is a {kind}: give it as a table with its name, {{ name = … }}")
    return Component(kind, table["name"], {key: value for key, value in table.items() if key != "name"})


def _map_parts(component: Component, change: Any) -> dict[str, Any]:
    """Return the options that are components with ``change`` applied to each: one, a list, or a table of them."""
    changed: dict[str, Any] = {}
    for option, kind in _ports(find(component.kind, component.name)).items():
        value = component.options.get(option)
        if value is None:
            continue
        if isinstance(value, list | tuple):
            changed[option] = [change(_part(kind, item, option)) for item in value]
        elif isinstance(value, Mapping) and "name" not in value:
            changed[option] = {key: change(_part(kind, item, option)) for key, item in value.items()}
        else:
            changed[option] = change(_part(kind, value, option))
    return changed


def parts(component: Component) -> list[Component]:
    """Return the components among a component's options."""
    found: list[Component] = []
    _map_parts(component, found.append)
    return found


def part(component: Component, option: str) -> Component | None:
    """Return the component that an option names, if it does."""
    found = _map_parts(component, lambda inner: inner).get(option)
    return found if isinstance(found, Component) else None


def whole(component: Component) -> Iterator[Component]:
    """Yield a component and all components inside it."""
    yield component
    for inner in parts(component):
        yield from whole(inner)


def build(component: Component) -> Any:
    """Construct a component, its parts first. It loads its weights on first use, so its fingerprint is cheap."""
    check(component)
    options = {key: locate(value) for key, value in component.options.items()}
    options |= _map_parts(component, build)
    with importing(f"{component.kind} {component.name!r}"):
        return find(component.kind, component.name)(**options)
