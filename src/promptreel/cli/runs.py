"""Commands that begin a run, go on with it, and take from it what it made."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptreel.cli.terminal import JSONOption, RunOption, SetOption, progress
from promptreel.errors import PromptreelError, RunError, UserError

if TYPE_CHECKING:
    from promptreel.config import Recipe
    from promptreel.pipeline import Pipeline
    from promptreel.store import Run

log = logging.getLogger(__name__)

FINISHED_WITH_LOSSES = 4
"""Exit code of a run that is done, but could not have everything: what, it lists."""
OF_BOTH = (
    "judge.attempts=4", "evaluate.systems=['raw', 'base', 'sft', 'dpo-3', 'checked']",
    *(f"evaluate.benchmarks.tiny-{name}.queries.skip=0" for name in ("test", "ood", "unsafe", "safe")),
)  # fmt: skip
"""What both demos change in the recipe of both seeds together: its judge, which now and then gives no verdict, is asked
more often, so that nothing is lost; fewer systems are compared, on other test queries than those it is measured on."""
DEMO = (
    *OF_BOTH, "name=tiny-demo", "evolve.queries.take=64", "sample-1.queries.take=60", "sample-2.queries.take=50",
    "sample-3.queries.take=50", "evaluate.benchmarks.tiny-test.queries.take=100",
    "evaluate.benchmarks.tiny-ood.queries.take=32", "evaluate.benchmarks.tiny-unsafe.queries.take=100",
    "evaluate.benchmarks.tiny-safe.queries.take=100",
)  # fmt: skip
"""What the demo makes smaller in the recipe of both seeds together."""
QUICK = (
    *OF_BOTH, "name=tiny-quick", "evolve.queries.take=24", "sample-1.queries.take=20", "sample-2.queries.take=12",
    "sample-3.queries.take=12", "evaluate.benchmarks.tiny-test.queries.take=24",
    "evaluate.benchmarks.tiny-test.seeds=1",
    "evaluate.benchmarks.tiny-ood.queries.take=8", "evaluate.benchmarks.tiny-ood.seeds=1",
    "evaluate.benchmarks.tiny-unsafe.queries.take=24", "evaluate.benchmarks.tiny-safe.queries.take=24",
)  # fmt: skip


def demo(
    out: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller still: a glance, not a measurement.")] = False,
    as_json: JSONOption = False,
) -> None:
    """The whole method on the tiny world: evolve, train, evaluate."""
    from promptreel.recipes import load_recipe

    recipe, given = load_recipe("tiny_promptreel", QUICK if quick else DEMO)
    if quick and not as_json:
        print("A quick glance: its numbers are of too few queries to claim anything. `promptreel demo` measures.")
    _run(recipe, given, out, None, as_json)


def run(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="Path of a recipe, or the name of one that comes along; without, that of the run in --out."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the run; runs/NAME by default.")] = None,
    set: SetOption = [],  # noqa: B006 - the option is called --set
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every name and file, show the plan; do nothing.")
    ] = False,
    as_json: JSONOption = False,
) -> None:
    """Begin a run of a recipe, or go on with it."""
    from promptreel.recipes import load_recipe

    if recipe is not None:
        loaded, given = load_recipe(recipe, set)
    elif out is None:
        raise UserError("say which recipe, or with --out which run to go on with")
    elif set:
        raise UserError(f"the run in {out} goes on as it was begun: --set changes a recipe, so name one")
    else:
        loaded, given = _begun(out), ""
    if dry_run:
        _plan(loaded, until, as_json)
        return
    _run(loaded, given, out or Path("runs") / loaded.name, until, as_json)


def _plan(recipe: Recipe, until: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from promptreel.pipeline.check import check
    from promptreel.pipeline.models import absent
    from promptreel.pipeline.plan import plan

    check(recipe, until)
    stages, problems = plan(recipe, until)
    problems += absent(recipe)
    if as_json:
        document = {"recipe": recipe.name, "stages": [asdict(stage) for stage in stages], "problems": problems}
        print(json.dumps(document, ensure_ascii=False))
    else:
        from promptreel.report.outlook import print_plan

        print_plan(stages)
    if problems:
        raise UserError("; ".join(problems))


def _run(recipe: Recipe, given: str, out: Path, until: str | None, as_json: bool) -> None:
    with progress() as report:
        from promptreel.pipeline import run as run_recipe  # takes seconds, in which signals may come already

        summary = run_recipe(recipe, given, out, report, until)
    _show(summary, as_json)
    page = _draw(out, recipe)
    if not as_json:
        where = f"; look at it in {page}" if page else ""
        print(f"\nThe run is in {out}, its numbers in {out / 'summary.json'}{where}.")
    if summary["finished"] and summary["losses"]:
        raise typer.Exit(FINISHED_WITH_LOSSES)


def _draw(directory: Path, recipe: Recipe) -> Path | None:
    """Write the page of a run that ended, if it can be drawn: nothing that fails here costs the run anything."""
    from promptreel.store import Run

    try:
        with Run(directory, alone=False) as opened:
            return _write_page(opened, recipe)
    except PromptreelError as error:
        log.warning("the report could not be drawn: %s", error)
    except Exception as error:  # noqa: BLE001 - the run is done and stored, whatever a library stumbles over
        log.warning("the report could not be drawn: %s: %s", type(error).__name__, error)
    return None


def _write_page(run: Run, recipe: Recipe) -> Path:
    """The page of a run, and beside it its moving picture, if there are clips to compare."""
    from promptreel.errors import importing

    with importing("the report"):
        from promptreel.report import page, picture
    with suppress(RunError):
        picture.write(run, recipe)
    return page.write(run, recipe)


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        from promptreel.report.tables import print_summary

        print_summary(summary)


def _begun(directory: Path) -> Recipe:
    """The recipe of a run that was begun."""
    from promptreel.recipes import parse_recipe

    path = directory / "recipe.json"
    if not path.exists():
        raise UserError(f"{directory} holds no run; begin one with  promptreel run RECIPE --out {directory}")
    return parse_recipe(json.loads(path.read_text(encoding="utf-8")), str(path))


@contextmanager
def _pipeline(directory: Path, alone: bool = True) -> Iterator[Pipeline]:
    """The pipeline of a run that was begun; to look at it, it need not be ``alone``."""
    from promptreel.pipeline import Pipeline
    from promptreel.store import Run

    recipe = _begun(directory)
    with Run(directory, alone=alone) as opened, progress() as report:
        yield Pipeline(recipe, opened, report)


def stage_command(kind: str, what: str) -> Callable[..., None]:
    """The command that does the stages of a kind."""

    def command(
        run: RunOption,
        stage: Annotated[str | None, typer.Option(help="Its name; by default the first that is not done.")] = None,
        as_json: JSONOption = False,
    ) -> None:
        with _pipeline(run) as pipeline:
            name = pipeline.next_of(kind, stage)
            pipeline.do(name)
            summary = pipeline.summary()
        _show(summary["stages"].get(name, summary) if as_json else summary, as_json)

    command.__doc__ = what
    return command


def merge(
    run: RunOption,
    to: Annotated[Path, typer.Option(help="Directory to write: plain transformers, as vLLM reads it.")],
    stage: Annotated[str | None, typer.Option(help="A training stage; by default the last that is done.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the weights written.")] = "bfloat16",
) -> None:
    """Write a run's trained student as one plain model."""
    from promptreel.pipeline import exports

    with _pipeline(run) as pipeline:
        written = exports.merge(pipeline, stage, to, dtype)
    print(f"The student of {written} is in {to}.")


def evaluate(
    run: RunOption,
    queries: Annotated[Path | None, typer.Option(help="A file of queries; the recipe's benchmarks without.")] = None,
    systems: Annotated[str | None, typer.Option(help="Comma-separated; all of the recipe's by default.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Clips for each prompt, with --queries.")] = 2,
    as_json: JSONOption = False,
) -> None:
    """Compare systems of a run: on its benchmarks, or on your own queries."""
    from promptreel.pipeline import exports

    with _pipeline(run) as pipeline:
        if queries is None:
            pipeline.do(pipeline.next_of("evaluate"))
            summary = pipeline.summary()
        else:
            summary = exports.evaluate_file(pipeline, queries, systems.split(",") if systems else None, seeds)
    _show(summary, as_json)


def report(run: RunOption) -> None:
    """Write the page of a run: its numbers, and clips side by side. Also while the run is at work."""
    with _pipeline(run, alone=False) as pipeline:
        pipeline.summary()
        path = _write_page(pipeline.run, pipeline.recipe)
    print(path)


def status(run: RunOption, as_json: JSONOption = False) -> None:
    """What of a run is done, what is left, and about how long that will take. Also while the run is at work."""
    from dataclasses import asdict

    from promptreel.pipeline.status import status as stages_of

    with _pipeline(run, alone=False) as pipeline:
        rows = stages_of(pipeline)
        losses, details = pipeline.run.database.losses(), pipeline.run.database.details()
    if as_json:
        print(json.dumps({"stages": [asdict(row) for row in rows], "losses": losses}))
    else:
        from promptreel.report.tables import print_stages

        print_stages(rows, losses, details)


def export(
    run: RunOption,
    what: Annotated[str, typer.Option(help="sft, pairs or scores.")],
    to: Annotated[Path, typer.Option(help="A .jsonl file to write.")],
) -> None:
    """Write what a run made, one JSON object a line, as TRL reads it."""
    from promptreel.pipeline import exports

    with _pipeline(run) as pipeline:
        count = exports.export(pipeline, what, to)
    print(f"{count} lines in {to}.")
