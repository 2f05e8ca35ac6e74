"""Files that come with installed packages."""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from typing import Any


def locate(value: Any) -> Any:
    """Resolve ``package:module/path`` to the file in that installed package, also inside lists and tables.

    Other values stay as they are. So does a path into a package that is not installed; opening it then fails.
    """
    if isinstance(value, dict):
        return {key: locate(item) for key, item in value.items()}
    if isinstance(value, list):
        return [locate(item) for item in value]
    if isinstance(value, str) and value.startswith("package:"):
        module, _, inside = value.removeprefix("package:").partition("/")
        with suppress(ModuleNotFoundError):
            return str(resources.files(module) / inside)
    return value
