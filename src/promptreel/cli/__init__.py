"""The command line: parse, call, print. A command imports only modules that it needs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Annotated, NoReturn

import typer

import promptreel
from promptreel.cli import rewrite, run, serve, setup
from promptreel.errors import Interrupted, PromptreelError

app = typer.Typer(
    name="promptreel",
    help="Teach a language model to write the prompts that your video model renders best.",
    no_args_is_help=True,
    rich_markup_mode=None,  # boxes take as long as all else of --help, and [...] would be read as markup
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"promptreel {promptreel.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


app.command()(run.demo)
app.command()(rewrite.rewrite)
app.command()(serve.serve)
app.command()(run.run)
app.command()(run.evaluate)
app.command()(run.report)
app.command()(run.status)
app.command()(run.export)
app.command()(run.merge)
app.command()(setup.init)
app.command()(setup.profiles)
app.command()(setup.doctor)


QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
"""Environment variables that keep libraries from drawing bars and giving advice, unless the user sets them."""


def main() -> None:
    """Run the command line. An error raised on purpose becomes one line and its exit code."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        # Deprecations in these libraries are for Promptreel's developers, not for its users.
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|peft|trl|diffusers)\.")
    logging.basicConfig(format="warning: %(message)s", level=logging.ERROR)
    logging.getLogger("promptreel").setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports every attempt to reach the hub twice
    try:
        app()
    except PromptreelError as error:
        fail(error)


def fail(error: PromptreelError) -> NoReturn:
    """Print an error on stderr and exit with its code."""
    print(error if isinstance(error, Interrupted) else f"error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
