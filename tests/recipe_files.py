"""Recipes of fakes as files, for what reads a recipe from a file."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fakes


def write_recipe(path: Path, **changes: Any) -> str:
    """Write the recipe of fakes, with some of its tables replaced, as TOML; return the text."""
    data = {**copy.deepcopy(fakes.RECIPE), **changes}
    text = "".join(f"{key} = {_toml(value)}\n" for key, value in data.items())
    path.write_text(text, encoding="utf-8")
    return text


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(part)}' for key, part in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
