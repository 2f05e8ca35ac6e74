"""Begin a run of a recipe, or go on with it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from promptreel.config import Recipe, load_recipe, parse_recipe, same
from promptreel.errors import RunError, UserError
from promptreel.execution.batches import Progress, silent
from promptreel.pipeline.pipeline import Pipeline
from promptreel.preflight.check import check, environment
from promptreel.preflight.cost import costs
from promptreel.preflight.inventory import absent
from promptreel.stages.context import Trainer
from promptreel.store import Run, Summary
from promptreel.store.run import holds_other_things

log = logging.getLogger(__name__)


def run(
    recipe: str | Path | Recipe,
    directory: str | Path,
    *overrides: str,
    progress: Progress = silent,
    until: str | None = None,
    stage: str | None = None,
    database: str | None = None,
    clips: str | None = None,
    trainers: Mapping[str, Trainer] | None = None,
) -> Summary:
    """Begin a run of a recipe in a directory, or go on with it; return its summary.

        run("tiny", "runs/tiny", "evolve.rounds=2")

    ``recipe`` is a shipped recipe's name, a path, or a ``Recipe``; ``overrides`` change keys of the first two.
    ``progress`` is called after every stored batch and may raise to stop the run. The run ends after the stage
    ``until``, or does the one stage ``stage``. ``database`` and ``clips`` are the URLs of a database and a clip store
    shared with other runs. ``trainers`` replaces training methods, by stage kind.

    Raises ``UserError`` for a missing file or model before anything is paid for, and ``RunError`` if the directory
    holds a run of another recipe. A run that goes on with other versions or threads than it began with is warned about:
    its numbers may differ.
    """
    directory = Path(directory)
    if not all(isinstance(override, str) for override in overrides):
        raise UserError('give each override as an argument of its own: run(recipe, directory, "evolve.rounds=2")')
    if isinstance(recipe, Recipe):
        if overrides:
            raise UserError("overrides change a recipe in a file: change the Recipe that is given instead")
        loaded, given = recipe, "# This recipe was given as an object: see recipe.json.\n"
    else:
        loaded, given = load_recipe(recipe, overrides)
    check(loaded, stage or until)
    if holds_other_things(directory):
        raise UserError(f"{directory} holds other things than a run: choose another --out, or empty it")
    with Run(directory, database=database, clips=clips) as opened:
        begun = opened.recipe()
        if begun is None:
            if problems := [*costs(loaded, until)[1], *absent(loaded)]:
                raise UserError("; ".join(problems))
            opened.write_recipe(given, loaded.resolved())
        elif not same(begun, loaded.resolved()):
            raise RunError(
                f"{directory} holds a run of another recipe; choose another --out, or go on with this one: type  "
                f"promptreel run --out {directory}"
            )
        _note_environment(opened, loaded)
        pipeline = Pipeline(loaded, opened, progress, trainers)
        try:
            if stage is None:
                return pipeline.execute(until)
            pipeline.do(stage)
            return pipeline.summary()
        finally:
            pipeline.close()


def begun_recipe(directory: Path) -> Recipe:
    """Return the recipe of a run that was begun. Raises ``UserError`` if the directory holds none."""
    path = directory / "recipe.json"
    if not path.exists():
        raise UserError(f"{directory} holds no run; begin one with  promptreel run RECIPE --out {directory}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    return parse_recipe(data, str(path))


def _note_environment(opened: Run, recipe: Recipe) -> None:
    """Record versions and threads; warn about those that changed since the run began."""
    now = environment(recipe)
    before = next(iter(opened.records.environments()), now)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            log.warning(
                "this run began with %s %s and goes on with %s: its numbers may differ from an unbroken run's",
                name, before.get(name), now.get(name),
            )  # fmt: skip
    opened.records.note_environment(now)
