"""The command line: parse, call, print. Nothing is imported that a command does not need."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

import promptreel
from promptreel.cli import rewriting, runs, serving, setting_up
from promptreel.errors import Interrupted, PromptreelError

app = typer.Typer(
    name="promptreel",
    help="Teach a language model to write the prompts that your video model renders best.",
    no_args_is_help=True,
    rich_markup_mode=None,  # boxes take as long as all else of --help, and [...] would be read as markup
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"promptreel {promptreel.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command()(runs.demo)
app.command()(rewriting.rewrite)
app.command()(serving.serve)
app.command()(runs.run)
for kind, what in {
    "evolve": "Do the evolution of a run: propose, gate, render, score, repeat.",
    "critique": "Have a run's drafts judged, and mended until they pass.",
    "sft": "Do a run's supervised fine-tuning on the best rewrites.",
    "sample": "Draw, render and score candidates from a run's student.",
    "pairs": "Turn a run's scored candidates into preference pairs.",
    "dpo": "Do a round of preference training of a run.",
}.items():
    app.command(kind)(runs.stage_command(kind, what))
app.command()(runs.merge)
app.command()(runs.evaluate)
app.command()(runs.report)
app.command()(runs.status)
app.command()(runs.export)
app.command()(setting_up.init)
app.command("profiles")(setting_up.show_profiles)
app.command()(setting_up.doctor)


QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
"""Libraries draw no bars and give no advice inside ours, unless the environment asks them to."""


def main() -> None:
    """Entry point: errors made on purpose become one line and their exit code."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        # What these libraries will call things in their next versions is for us to heed, not for who uses us.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl|diffusers)\.")
    logging.basicConfig(format="warning: %(message)s", level=logging.ERROR)
    logging.getLogger("promptreel").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells every attempt to reach the hub, twice
    try:
        app()
    except PromptreelError as error:
        fail(error)


def fail(error: PromptreelError) -> NoReturn:
    print(error if isinstance(error, Interrupted) else f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
