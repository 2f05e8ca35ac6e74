"""A recipe at work: its stages in order, in one run directory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from promptreel.config import Recipe
from promptreel.errors import RunError, UserError
from promptreel.pipeline.check import check, environment
from promptreel.pipeline.models import absent
from promptreel.pipeline.plan import plan
from promptreel.pipeline.stages import Pipeline
from promptreel.recipes import same
from promptreel.scoring import Report, silent
from promptreel.store import Run

__all__ = ["Pipeline", "check", "run"]

log = logging.getLogger(__name__)
OURS = {"run.lock", "clips", "models"}
"""What a run that was killed at its very beginning may have left."""


def run(
    recipe: Recipe, given: str, directory: Path, report: Report = silent, until: str | None = None
) -> dict[str, Any]:
    """Begin a run of a recipe in a directory, or go on with it; its summary.

    ``given`` is the recipe's text, kept beside it. ``report`` is called after every stored batch and may raise
    to stop the run. Raises ``UserError`` when a file or model that the recipe names is missing, before anything is paid
    for, and ``RunError`` when the directory holds a run of another recipe; a run that goes on with other versions or
    threads than it began with is warned about, since its numbers may differ.
    """
    check(recipe, until)
    there = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    if "run.db" not in there and there - OURS:
        raise UserError(f"{directory} holds other things than a run: choose another --out, or empty it")
    with Run(directory) as opened:
        begun = opened.recipe()
        if begun is None:
            if problems := [*plan(recipe, until)[1], *absent(recipe)]:
                raise UserError("; ".join(problems))
            opened.write_recipe(given, recipe.resolved())
        elif not same(begun, recipe.resolved()):
            raise RunError(
                f"{directory} holds a run of another recipe; choose another --out, or go on with this one: type  "
                f"promptreel run --out {directory}"
            )
        now = environment(recipe)
        before = next(iter(opened.database.environments()), now)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                log.warning(
                    "this run began with %s %s and goes on with %s: its numbers may differ from an unbroken run's",
                    name, before.get(name), now.get(name),
                )  # fmt: skip
        opened.database.note_environment(now)
        return Pipeline(recipe, opened, report).execute(until)
