"""Promptreel teaches a language model to write the prompts that one particular video model renders best.

from promptreel import Rewriter, load_recipe, run
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptreel.config import load_recipe
    from promptreel.pipeline.run import run
    from promptreel.rewriting import Rewriter
    from promptreel.store import Summary
    from promptreel.types import Candidate, Query

__version__ = "0.1.0"
__all__ = ["Candidate", "Query", "Rewriter", "Summary", "load_recipe", "run"]

_MODULES = {
    "Candidate": "promptreel.types",
    "Query": "promptreel.types",
    "Rewriter": "promptreel.rewriting",
    "Summary": "promptreel.store",
    "load_recipe": "promptreel.config",
    "run": "promptreel.pipeline",
}
"""Module of each public name."""


def __getattr__(name: str) -> Any:
    """Import a public name on its first use, so that ``import promptreel`` stays instant."""
    if name not in _MODULES:
        raise AttributeError(f"module 'promptreel' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
