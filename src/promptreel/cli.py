"""The command line: parse, call, print. Nothing is imported that a command does not need."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from promptreel.errors import Interrupted, PromptreelError, UserError

if TYPE_CHECKING:
    from promptreel.config import Recipe
    from promptreel.pipeline import Pipeline

app = typer.Typer(
    name="promptreel",
    help="Teach a language model to write the prompts that your video model renders best.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RunOption = Annotated[Path, typer.Option("--run", help="Directory of the run.")]
JSONOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Change a key of the recipe.")]


QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
"""Libraries draw no bars and give no advice inside ours, unless the environment asks them to."""


def main() -> None:
    """Entry point: errors made on purpose become one line and their exit code."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(format="warning: %(message)s", level=logging.ERROR)
    logging.getLogger("promptreel").setLevel(logging.WARNING)
    try:
        app()
    except PromptreelError as error:
        fail(error)


def fail(error: PromptreelError) -> NoReturn:
    print(error if isinstance(error, Interrupted) else f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)


GRACE = 20.0
"""Seconds that a batch in hand has to end after the first signal."""


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """A check that raises ``Interrupted`` once SIGINT or SIGTERM has come: at a moment when all is stored.

    A second signal, or the end of the grace, ends the process at once; only the batch in hand is lost.
    """
    import signal
    import threading

    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            os._exit(Interrupted.exit_code)
        print(f"\nstopping when the batch in hand is stored, within {GRACE:.0f} s; again to stop now", file=sys.stderr)
        timer = threading.Timer(GRACE, os._exit, [Interrupted.exit_code])
        timer.daemon = True
        timer.start()

    def check() -> None:
        if came:
            raise Interrupted("interrupted; the same command goes on from here")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback that draws a bar for each thing it is called about, with its rate and the time left.

    It raises ``Interrupted`` after a signal.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "", justify="right")

    bars: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description:<34}"), BarColumn(bar_width=24), MofNCompleteColumn(), Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )  # fmt: skip
    with stoppable() as check, Progress(*columns, console=Console(stderr=True)) as drawn:

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = drawn.add_task(what, total=total)
            drawn.update(bars[what], completed=done, total=total)
            check()

        yield report


DEMO = (
    "name=tiny-demo", "evolve.queries.take=64", "evolve.rounds=3", "sample-1.queries.take=96",
    "sample-2.queries.take=96", "evaluate.benchmarks.tiny-test.queries.take=100",
    "evaluate.benchmarks.tiny-ood.queries.take=32",
)  # fmt: skip
"""What the demo makes smaller in the tiny recipe."""
QUICK = (
    "name=tiny-quick", "evolve.queries.take=24", "evolve.rounds=2", "sample-1.queries.take=32",
    "sample-2.queries.take=24", "evaluate.benchmarks.tiny-test.queries.take=24",
    "evaluate.benchmarks.tiny-test.seeds=1",
    "evaluate.benchmarks.tiny-ood.queries.take=8", "evaluate.benchmarks.tiny-ood.seeds=1",
)  # fmt: skip


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller still: a glance, not a measurement.")] = False,
    as_json: JSONOption = False,
) -> None:
    """The whole method on the tiny world: evolve, train, evaluate."""
    from promptreel.config import load_recipe

    recipe, given = load_recipe("tiny", QUICK if quick else DEMO)
    _run(recipe, given, out, None, as_json)
    if quick and not as_json:
        print("These are the numbers of a quick glance: too few queries to claim anything. `promptreel demo` measures.")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Path of a recipe, or the name of one that comes along.")],
    out: Annotated[Path | None, typer.Option(help="Directory of the run; runs/NAME by default.")] = None,
    set: SetOption = [],  # noqa: B006 - the option is called --set
    until: Annotated[str | None, typer.Option(metavar="STAGE", help="Stop after this stage.")] = None,
    as_json: JSONOption = False,
) -> None:
    """Begin a run of a recipe, or go on with it."""
    from promptreel.config import load_recipe

    loaded, given = load_recipe(recipe, set)
    _run(loaded, given, out or Path("runs") / loaded.name, until, as_json)


def _run(recipe: Recipe, given: str, out: Path, until: str | None, as_json: bool) -> None:
    from promptreel.pipeline import run as run_recipe

    with progress() as report:
        summary = run_recipe(recipe, given, out, report, until)
    _show(summary, as_json)
    if not as_json:
        print(f"\nThe run is in {out}; its numbers are in {out / 'summary.json'}.")


def _show(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        from promptreel.report.tables import print_summary

        print_summary(summary)


@contextmanager
def _pipeline(directory: Path) -> Iterator[Pipeline]:
    """The pipeline of a run that was begun."""
    from promptreel.config import parse_recipe
    from promptreel.pipeline import Pipeline
    from promptreel.store import Run

    if not (directory / "recipe.json").exists():
        raise UserError(f"{directory} holds no run; begin one with  promptreel run RECIPE --out {directory}")
    with Run(directory) as opened, progress() as report:
        yield Pipeline(parse_recipe(opened.recipe() or {}, str(directory / "recipe.json")), opened, report)


def _stage_command(kind: str, what: str) -> None:
    def command(
        run: RunOption,
        stage: Annotated[str | None, typer.Option(help="Its name; by default the first that is not done.")] = None,
        as_json: JSONOption = False,
    ) -> None:
        with _pipeline(run) as pipeline:
            name = stage or pipeline.next_of(kind)
            pipeline.do(name)
            summary = pipeline.summary()
        _show(summary["stages"].get(name, summary) if as_json else summary, as_json)

    command.__doc__ = what
    app.command(kind)(command)


_stage_command("evolve", "Do the evolution of a run: propose, gate, render, score, repeat.")
_stage_command("critique", "Have a run's drafts judged, and mended until they pass.")
_stage_command("sft", "Do a run's supervised fine-tuning on the best rewrites.")
_stage_command("sample", "Draw, render and score candidates from a run's student.")
_stage_command("pairs", "Turn a run's scored candidates into preference pairs.")
_stage_command("dpo", "Do a round of preference training of a run.")


@app.command()
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


@app.command()
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


@app.command()
def report(run: RunOption) -> None:
    """Write the page of a run: its numbers, and clips side by side."""
    from promptreel.errors import importing

    with _pipeline(run) as pipeline:
        pipeline.summary()
        with importing("the report"):
            from promptreel.report.page import write
        path = write(pipeline.run, pipeline.recipe)
    print(path)


@app.command()
def status(run: RunOption, as_json: JSONOption = False) -> None:
    """What of a run is done, what is left, and about how long that will take."""
    from dataclasses import asdict

    from promptreel.pipeline.status import status as stages_of

    with _pipeline(run) as pipeline:
        rows = stages_of(pipeline)
        losses = pipeline.run.database.losses()
    if as_json:
        print(json.dumps({"stages": [asdict(row) for row in rows], "losses": losses}))
    else:
        from promptreel.report.tables import print_stages

        print_stages(rows, losses)


@app.command()
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


@app.command()
def rewrite(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT …", help="What to show.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of queries.")] = None,
    profile: Annotated[str, typer.Option("--for", metavar="PROFILE", help="The video model.")] = "tiny",
    llm: Annotated[str, typer.Option(metavar="SPEC", help="local:PATH-OR-HUB-ID[+ADAPTER], or tiny-student.")] = (
        "tiny-student"
    ),
    count: Annotated[int, typer.Option("-n", min=1, help="Rewrites of each query.")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    render: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also render query and rewrites, with the same noise.")
    ] = None,
    as_json: JSONOption = False,
) -> None:
    """Rewrite what a person typed into a prompt for a video model."""
    from promptreel import queries
    from promptreel.rewriter import Rewriter

    asked = [queries.ask_for(text) for text in texts or []]
    asked += list(queries.read_file(file)) if file else []
    if not asked:
        raise UserError("nothing to rewrite: give a TEXT or a --file")
    rewriter = Rewriter(llm, profile, seed)
    found = [(query, rewriter.candidates(query, count)) for query in asked]
    rendered = _render(profile, seed, found, render) if render else {}
    if as_json:
        rows = [
            {
                "query": query.text,
                "rewrites": [
                    {
                        "text": r.text,
                        "tokens": r.tokens,
                        "fidelity": r.verdict.fidelity if r.verdict else None,
                        "problems": r.verdict.problems if r.verdict else [],
                        "video": rendered.get(r.text),
                    }
                    for r in rewrites
                ],
                "video": rendered.get(query.text),
            }
            for query, rewrites in found
        ]
        print(json.dumps(rows, ensure_ascii=False))
        return
    for _, rewrites in found:
        for written in rewrites:
            print(written.text)
            for problem in written.verdict.problems if written.verdict else []:
                print(f"  note: {problem}", file=sys.stderr)
            if written.tokens is not None and written.tokens > rewriter.profile.token_limit:
                limit = rewriter.profile.token_limit
                print(f"  note: {written.tokens} tokens; the model reads {limit}", file=sys.stderr)


def _render(profile: str, seed: int, found: Sequence[tuple[Any, Any]], directory: Path) -> dict[str, str]:
    """Render every text with one noise into MP4 files; text to path."""
    from promptreel import media, registry
    from promptreel.types import Component, Failure, RenderRequest

    generator = registry.build(Component("generator", "diffusers", {"profile": profile}))
    texts = dict.fromkeys(t for query, rewrites in found for t in (query.text, *(r.text for r in rewrites)))
    paths: dict[str, str] = {}
    with progress() as report:
        for number, text in enumerate(texts):
            report("render", number, len(texts))
            (clip,) = generator.render([RenderRequest(text, "", seed)])
            if isinstance(clip, Failure):
                print(f"  note: {text!r} could not be rendered: {clip.detail}", file=sys.stderr)
                continue
            path = directory / f"{clip.id[:12]}.mp4"
            media.write_video(path, clip.frames, clip.fps, scale=max(1, 384 // clip.frames.shape[1]))
            paths[text] = str(path)
        report("render", len(texts), len(texts))
    return paths
