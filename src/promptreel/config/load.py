"""Recipes from files: TOML written by hand, changed by dotted overrides, resolved and stored as JSON.

``evolve.rounds=2`` reaches the stage of that name. An unknown key is an error that names the nearest known one. The
package ships recipes in its folder ``recipes``.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from promptreel.config.recipe import Recipe
from promptreel.config.stages import AnyStage
from promptreel.errors import RecipeError, did_you_mean


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> tuple[Recipe, str]:
    """Return a recipe, by path or by the name of a shipped one, and its text as given.

    Raises ``RecipeError`` with the place and the nearest known key.
    """
    text = _text(source)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not valid TOML: {error}") from error
    stages = data.get("stage", [])
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise RecipeError(f"{source}: stages are a list of tables: begin each with [[stage]]")
    for override in overrides:
        _override(data, override)
    return parse_recipe(data, str(source)), text


def parse_recipe(data: Mapping[str, Any], source: str = "recipe") -> Recipe:
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explain(error, data)}") from error


def _text(source: str | Path) -> str:
    path = Path(source)
    if path.suffix == ".toml" or path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"cannot read the recipe {path}: {error.strerror}") from error
    shipped = resources.files("promptreel") / "recipes"
    names = sorted(entry.name.removesuffix(".toml") for entry in shipped.iterdir() if entry.name.endswith(".toml"))
    if str(source) not in names:
        raise RecipeError(f"no recipe file and no shipped recipe {str(source)!r}{did_you_mean(str(source), names)}")
    return (shipped / f"{source}.toml").read_text(encoding="utf-8")


def _override(data: dict[str, Any], override: str) -> None:
    """Set ``a.b=c`` in place; the first part may be the name of a stage. ``c`` is TOML, or else a string."""
    path, equals, value = override.partition("=")
    if not equals or not path.strip():
        raise RecipeError(f"--set takes a.b=value, not {override!r}")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *parents, last = [part.strip() for part in path.split(".")]
    at: Any = data
    for index, part in enumerate(parents):
        stages = [s for s in data.get("stage", []) if s.get("name", s.get("kind")) == part] if index == 0 else []
        at = stages[0] if stages else at.setdefault(part, {})
        if not isinstance(at, dict):
            raise RecipeError(f"--set {override!r}: {part!r} is not a table")
    at[last] = parsed


def _explain(error: ValidationError, data: Mapping[str, Any]) -> str:
    """Return the first error, its place as dotted names, and the nearest known key."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if len(place) > 1 and place[0] == "stage" and place[1].isdigit():
        stage = data["stage"][int(place[1])]
        place[:3] = [str(stage.get("name", stage.get("kind", place[1])))]  # the third is its kind
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}{did_you_mean(place[-1], _siblings(first['loc']))}"
    if first["type"] == "union_tag_invalid":
        return f"{where}: unknown kind{did_you_mean(str(first['input'].get('kind')), _kinds())}"
    if first["type"] == "missing":
        return f"{where!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def _kinds() -> list[str]:
    """Return the names of all stage kinds."""
    return [get_args(stage.model_fields["kind"].annotation)[0] for stage in get_args(get_args(AnyStage)[0])]


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Return the known keys of the table that a location points into."""
    schema = TypeAdapter(Recipe).json_schema()
    at: dict[str, Any] = schema
    for part in location[:-1]:
        at = _follow(at, part, schema)
    return sorted(at.get("properties", {}))


def _follow(at: dict[str, Any], part: int | str, schema: dict[str, Any]) -> dict[str, Any]:
    if isinstance(part, int):
        found = at.get("items", {})
    elif part in at.get("properties", {}):
        found = at["properties"][part]
    elif "discriminator" in at:
        found = {"$ref": at["discriminator"]["mapping"][part]}
    else:
        found = at.get("additionalProperties", {})
    options = [option for option in found.get("anyOf", []) if option.get("type") != "null"]
    found = options[0] if options else found
    if "$ref" in found:
        found = schema["$defs"][found["$ref"].rpartition("/")[2]]
    return found if isinstance(found, dict) else {}


def same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return True if two resolved recipes describe the same run."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
