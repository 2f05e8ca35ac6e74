"""Promptreel teaches a language model to write the prompts that one particular video model renders best.

from promptreel import Rewriter, load_recipe, run
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptreel.pipeline import run
    from promptreel.recipes import load_recipe
    from promptreel.rewriter import Rewriter

__version__ = "0.1.0"
__all__ = ["Rewriter", "load_recipe", "run"]

_HOMES = {"Rewriter": "rewriter", "load_recipe": "recipes", "run": "pipeline"}


def __getattr__(name: str) -> Any:
    """Public names are imported on first use, so that ``import promptreel`` stays instant."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'promptreel' has no attribute {name!r}")
    return getattr(import_module(f"promptreel.{_HOMES[name]}"), name)
