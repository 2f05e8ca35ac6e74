"""Commands that begin a run, go on with it, look at it, and take its results out."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptreel.cli.terminal import JSONOption, RunOption, SetOption, print_json, progress
from promptreel.errors import PromptreelError, RunError, UserError

if TYPE_CHECKING:
    from promptreel.config import Recipe
    from promptreel.pipeline import Pipeline
    from promptreel.store import Run, Summary

log = logging.getLogger(__name__)

FINISHED_WITH_FAILURES = 4
"""Exit code of a finished run that could not have every result; it lists them."""


def demo(
    out: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Run a smaller demo, too small to measure anything.")] = False,
    as_json: JSONOption = False,
) -> None:
    """Run the whole method on the tiny world: evolve, train, evaluate."""
    if quick and not as_json:
        print("A quick glance: its numbers are of too few queries to claim anything. `promptreel demo` measures.")
    _run("tiny_quick" if quick else "tiny_demo", out, as_json=as_json)


def run(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Path of a recipe, or name of a shipped one; by default that of the run in --out."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run; runs/NAME by default.")] = None,
    set: SetOption = [],  # noqa: B006 - the option is called --set
    stage: Annotated[
        str | None, typer.Option(metavar="STAGE", help="Do only this stage, of the run that was begun in --out.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every name and file and print the cost; do nothing.")
    ] = False,
    as_json: JSONOption = False,
) -> None:
    """Begin a run of a recipe, or go on with it."""
    from promptreel.config import load_recipe
    from promptreel.pipeline import begun_recipe

    if stage is not None:
        if recipe is not None or out is None or set or until is not None or dry_run:
            raise UserError("--stage does one stage of a run that was begun: give it with --out alone")
        _run(begun_recipe(out), out, stage=stage, as_json=as_json)
        return
    if recipe is not None:
        loaded, _ = load_recipe(recipe, set)
    elif out is None:
        raise UserError("nothing to run: name a recipe, or with --out the run to go on with")
    elif set:
        raise UserError(f"the run in {out} goes on as it was begun: --set changes a recipe, so name one")
    else:
        loaded = begun_recipe(out)
    if dry_run:
        _print_costs(loaded, until, as_json)
        return
    _run(recipe or loaded, out or Path("runs") / loaded.name, *set, until=until, as_json=as_json)


def _print_costs(recipe: Recipe, until: str | None, as_json: bool) -> None:
    """Print the cost of a recipe. Raises ``UserError`` if it could not run."""
    from promptreel.preflight.check import check
    from promptreel.preflight.cost import costs
    from promptreel.preflight.inventory import absent

    check(recipe, until)
    stages, problems = costs(recipe, until)
    problems += absent(recipe)
    if as_json:
        print_json({"recipe": recipe.name, "stages": [asdict(stage) for stage in stages], "problems": problems})
    else:
        from promptreel.report.preflight_tables import print_costs

        print_costs(stages)
    if problems:
        raise UserError("; ".join(problems))


def _run(
    recipe: str | Recipe,
    out: Path,
    *overrides: str,
    until: str | None = None,
    stage: str | None = None,
    as_json: bool = False,
) -> None:
    """Run a recipe, or one stage of it, print the summary and draw the report."""
    with progress() as report:
        from promptreel.pipeline import run  # takes seconds, during which a signal may come

        summary = run(recipe, out, *overrides, progress=report, until=until, stage=stage)
    _finish(summary, out, as_json)


def _finish(summary: Summary, out: Path, as_json: bool) -> None:
    """Print a summary and draw the report; exit with ``FINISHED_WITH_FAILURES`` where that applies."""
    _print_summary(summary, as_json)
    page = _draw(out)
    if not as_json:
        hint = f"; look at it in {page}" if page else ""
        print(f"\nThe run is in {out}, its numbers in {out / 'summary.json'}{hint}.")
    if summary.finished and summary.failures:
        raise typer.Exit(FINISHED_WITH_FAILURES)


def _draw(directory: Path) -> Path | None:
    """Write the report of a run; return ``None``, with a warning, if that fails: the run itself is stored."""
    try:
        return _write_report(directory)
    except PromptreelError as error:
        log.warning("the report could not be drawn: %s", error)
    except Exception as error:  # noqa: BLE001 - an error of a drawing library must not fail a run that is stored
        log.warning("the report could not be drawn: %s: %s", type(error).__name__, error)
    return None


def _write_report(directory: Path) -> Path:
    """Write the page of a run, and its moving picture if there are clips to compare; return the page's path."""
    from promptreel.extras import importing
    from promptreel.pipeline.summary import summarise

    with importing("the report"):
        from promptreel.report import gif, page
    with _looking(directory) as (recipe, opened):
        with suppress(RunError):
            gif.write(opened, recipe)
        return page.write(opened, recipe, summarise(recipe, opened))


def _print_summary(summary: Summary, as_json: bool) -> None:
    if as_json:
        print_json(summary.to_json())
    else:
        from promptreel.report.tables import print_summary

        print_summary(summary)


@contextmanager
def _looking(directory: Path) -> Iterator[tuple[Recipe, Run]]:
    """Open a run to look at, also while a process works on it: nothing in its database changes."""
    from promptreel.pipeline import begun_recipe
    from promptreel.store import Run

    recipe = begun_recipe(directory)
    with Run(directory, writable=False) as opened:
        yield recipe, opened


@contextmanager
def _pipeline(directory: Path) -> Iterator[Pipeline]:
    """Open a run to work on."""
    from promptreel.pipeline import Pipeline, begun_recipe
    from promptreel.store import Run

    recipe = begun_recipe(directory)
    with Run(directory) as opened, progress() as report:
        yield Pipeline(recipe, opened, report)


def evaluate(
    run: RunOption,
    queries: Annotated[
        Path | None, typer.Option(help="File of queries to compare on; by default the recipe's benchmarks.")
    ] = None,
    systems: Annotated[
        str | None, typer.Option(help="Systems for --queries, comma-separated; by default all of the recipe's.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips for each prompt, for --queries.")] = 2,
    as_json: JSONOption = False,
) -> None:
    """Compare systems of a run: on its benchmarks, or on your own queries."""
    from promptreel.pipeline.evaluate_file import evaluate_file

    with _pipeline(run) as pipeline:
        if queries is None:
            pipeline.do(pipeline.next_of("evaluate"))
            summary = pipeline.summary()
        else:
            summary = evaluate_file(pipeline, queries, systems.split(",") if systems else None, clips)
    _print_summary(summary, as_json)


def report(run: RunOption) -> None:
    """Write the page of a run, with its numbers and clips side by side. Also while the run is at work."""
    print(_write_report(run))


def status(run: RunOption, as_json: JSONOption = False) -> None:
    """Print the stages done and left, and about how long the rest will take. Also while the run is at work."""
    from promptreel.pipeline.status import status as stages_of

    with _looking(run) as (recipe, opened):
        rows = stages_of(recipe, opened)
        failures, details = opened.records.failures(), opened.records.failure_details()
    if as_json:
        print_json({"stages": [asdict(row) for row in rows], "failures": failures})
    else:
        from promptreel.report.tables import print_stages

        print_stages(rows, failures, details)


def export(
    run: RunOption,
    what: Annotated[str, typer.Option(help="Data to write: sft, pairs or scores.")],
    to: Annotated[Path, typer.Option(help="File to write, .jsonl.")],
) -> None:
    """Write data of a run, one JSON object a line, as TRL reads it."""
    from promptreel.pipeline import Pipeline
    from promptreel.pipeline.export import export as write

    with _looking(run) as (recipe, opened):
        count = write(Pipeline(recipe, opened), what, to)
    print(f"{count} lines in {to}.")


def merge(
    run: RunOption,
    to: Annotated[Path, typer.Option(help="Directory to write, as transformers and vLLM read it.")],
    stage: Annotated[str | None, typer.Option(help="Training stage; by default the last one done.")] = None,
    dtype: Annotated[str, typer.Option(help="Type of the weights written.")] = "bfloat16",
) -> None:
    """Write the trained student of a run as one plain model."""
    from promptreel.pipeline import Pipeline
    from promptreel.pipeline.export import merge as write

    with _looking(run) as (recipe, opened):
        written = write(Pipeline(recipe, opened), stage, to, dtype)
    print(f"The student of {written} is in {to}.")
