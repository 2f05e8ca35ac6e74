"""The command that rewrites queries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from promptreel.cli.terminal import (
    JSONOption,
    JudgeOption,
    LLMOption,
    ModeOption,
    ProfileOption,
    SafetyOption,
    print_json,
    progress_on_demand,
)
from promptreel.errors import Refused, UserError

if TYPE_CHECKING:
    from promptreel.policy import Safety
    from promptreel.rewriting import Rewriter
    from promptreel.rewriting.answers import Answer
    from promptreel.rewriting.preview import Preview, Rendered
    from promptreel.types import Candidate, Query

TINY = "tiny-student"
"""Name of the default language model."""


def rewrite(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT …", help="Queries, as people type them.")] = None,
    file: Annotated[Path | None, typer.Option(help="File of queries.")] = None,
    profile: ProfileOption = "tiny",
    llm: LLMOption = TINY,
    mode: ModeOption = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Rewrites of each query.")] = 1,
    best_of: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Write N, and keep the best -n by verdict and, if rendered, by reward."),
    ] = None,
    judge: JudgeOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of words and noise.")] = 0,
    safety: SafetyOption = "rewrite_to_safe",
    edit: Annotated[bool, typer.Option("--edit", help="Open every rewrite in $VISUAL or $EDITOR first.")] = False,
    render: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also render query and rewrites, from the same noise.")
    ] = None,
    rewards: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="With --render: recipe by whose rewards the clips are scored.")
    ] = None,
    as_json: JSONOption = False,
) -> None:
    """Rewrite queries into prompts for a video model."""
    from promptreel import profiles
    from promptreel.rewriting import Rewriter
    from promptreel.rewriting.answers import Options, answer
    from promptreel.rewriting.models import judge_of
    from promptreel.store import user_cache

    queries = _queries(texts, file)
    if best_of and best_of < count:
        raise UserError(f"--best-of {best_of} cannot keep {count} rewrites: it is how many are written")
    if rewards and not render:
        raise UserError("--rewards scores clips: give --render DIR too")
    if best_of and render and edit:
        raise UserError("--best-of with --render chooses after rendering: leave out --edit, which comes before")
    if llm == TINY and profiles.load(profile).judge != "tiny-oracle":
        raise UserError(
            f"{TINY} knows nothing but the tiny world: to write for {profile}, give a language model by --llm"
        )
    named = judge_of(judge) if judge else None
    rewriter = Rewriter(llm, profile, seed, cast("Safety", safety), judge=named, mode=mode, cache=user_cache())
    preview = _preview(profile, render, seed, rewards, best_of is not None) if render else None
    options = Options(count, best_of, _editor(rewriter) if edit else None)
    with progress_on_demand() as report:
        answers = list(answer(rewriter, queries, options, preview, report))
    if as_json:
        print_json([_row(rewriter, found) for found in answers])
    else:
        _print(rewriter, answers, best_of is not None)
    errors = [found.error for found in answers if found.error]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        raise typer.Exit(max(error.exit_code for error in errors))


def _queries(texts: list[str] | None, file: Path | None) -> list[Query]:
    """Return the queries of the command line and of a file. Raises ``UserError`` without any."""
    from promptreel import queries

    found = [queries.ask_for(text) for text in texts or []]
    if file:
        found += queries.read_file(file)
    if not found:
        raise UserError(f"{file} has no queries" if file else "nothing to rewrite: give a TEXT or a --file")
    return found


def _editor(rewriter: Rewriter) -> Callable[[Candidate], str | None]:
    """Return a function that opens a candidate in the person's editor; ``None`` for an emptied one."""
    import click

    def edit(candidate: Candidate) -> str | None:
        note = (
            f"\n\n# Typed: {candidate.query.text}\n# The prompt is above, {candidate.tokens} tokens long; "
            f"{rewriter.profile.title} reads {rewriter.profile.token_limit}.\n"
            "# Lines that begin with # are left out. Nothing left: no prompt.\n"
        )
        try:
            text = click.edit(candidate.text + note, extension=".txt")
        except click.ClickException as error:
            raise UserError(f"{error.message}; set $VISUAL or $EDITOR to a command that waits") from error
        if text is None:  # closed without saving
            return candidate.text
        return " ".join(" ".join(line for line in text.splitlines() if not line.startswith("#")).split()) or None

    return edit


def _preview(profile: str, directory: Path, seed: int, rewards: str | None, choosing: bool) -> Preview:
    """Return a preview that scores by a recipe's rewards; to choose in the tiny world, by those of ``tiny``."""
    from promptreel.config import load_recipe
    from promptreel.rewriting.preview import Preview

    recipe = rewards or ("tiny" if profile == "tiny" and choosing else None)
    return Preview(profile, directory, seed, load_recipe(recipe)[0] if recipe else None)


# JSON


def _row(rewriter: Rewriter, answer: Answer) -> dict[str, Any]:
    """Return an answer as JSON."""
    from promptreel.rewriting.rewriter import WITHHELD

    row: dict[str, Any] = {"query": answer.query.text, "rewrites": []}
    if answer.error:
        return {**row, "refused" if isinstance(answer.error, Refused) else "failed": str(answer.error)}
    row["rewrites"] = [_rewrite_row(rewriter, answer, candidate) for candidate in answer.candidates]
    typed, shown = answer.typed, answer.rendered.get(answer.query.text)
    row["video"] = _path(shown)
    if typed and typed.withheld:
        row["failure"] = WITHHELD[typed.withheld]
    else:
        row["failure"] = shown.failure if shown else ""
    row["side_by_side"] = str(answer.side_by_side) if answer.side_by_side else None
    return row


def _rewrite_row(rewriter: Rewriter, answer: Answer, candidate: Candidate) -> dict[str, Any]:
    verdict, shown = candidate.verdict, answer.rendered.get(candidate.text)
    return {
        "text": candidate.text,
        "tokens": candidate.tokens,
        "exact": rewriter.tokens.exact,
        "fits": candidate.fits,
        "fidelity": verdict.fidelity if verdict else None,
        "problems": verdict.problems if verdict else [],
        "removed": candidate.removed,
        "video": _path(shown),
        "reward": shown.candidate.reward if shown else None,
        "failure": shown.failure if shown else "",
    }


def _path(shown: Rendered | None) -> str | None:
    return str(shown.file) if shown and shown.file else None


# Text


def _print(rewriter: Rewriter, answers: list[Answer], chosen: bool) -> None:
    """Print rewrites on stdout, in colour on a terminal, and notes about them on stderr."""
    for answer in answers:
        for candidate in answer.candidates:
            _print_rewrite(answer.query.text, candidate.text)
            _print_notes(_notes(rewriter, answer, candidate))
        _print_notes(_notes_as_typed(rewriter, answer))
        if answer.side_by_side:
            _print_notes([f"as typed and as rewritten, from left to right: {answer.side_by_side}"])
        scored = any(shown.candidate.reward is not None for shown in answer.rendered.values())
        if chosen and answer.drawn > len(answer.candidates) and not rewriter.judged and not scored:
            _print_notes(
                [
                    f"no judge read these {answer.drawn} different rewrites: give --judge, or --render with "
                    "--rewards; the first that fits is shown"
                ]
            )


def _print_rewrite(query: str, text: str) -> None:
    """Print a rewrite; on a terminal, words of the query and added words are coloured."""
    from rich.console import Console
    from rich.text import Text

    from promptreel.report.diff import compare

    console = Console()
    if console.is_terminal:
        colours = {"kept": "bold green", "added": "cyan", "": ""}
        marked = [(piece, colours[kind]) for piece, kind in compare(query, text)]
        console.print(Text.assemble(*marked), soft_wrap=True, highlight=False)
    else:
        print(text)


def _print_notes(notes: list[str]) -> None:
    for note in notes:
        print(f"  note: {note}", file=sys.stderr)


def _notes_as_typed(rewriter: Rewriter, answer: Answer) -> list[str]:
    """Return notes on the clip of the query itself."""
    from promptreel.rewriting.rewriter import WITHHELD

    typed, shown, notes = answer.typed, answer.rendered.get(answer.query.text), []
    if typed and typed.withheld:
        notes.append(f"as typed it is not rendered: {WITHHELD[typed.withheld]}")
    elif typed and not typed.fits:
        notes.append(f"as typed it has {_cut(rewriter, typed)}")
    if shown and shown.failure:
        notes.append(f"the query could not be rendered: {shown.failure}")
    return notes


def _cut(rewriter: Rewriter, candidate: Candidate) -> str:
    """Return the length of a text that is too long, in words."""
    about = "" if rewriter.tokens.exact else "about "
    return f"{about}{candidate.tokens} tokens; the model reads {rewriter.profile.token_limit} and cuts the rest"


def _notes(rewriter: Rewriter, answer: Answer, candidate: Candidate) -> list[str]:
    """Return notes on a rewrite: facts, length, clip and reward."""
    from promptreel.report.diff import unsaid
    from promptreel.rewriting.rewriter import WITHHELD

    notes = [f"left out as harmful: {fact}" for fact in candidate.removed]
    notes += candidate.verdict.problems if candidate.verdict else []
    missing = unsaid(answer.query.text, candidate.text)
    if candidate.verdict is None and missing:
        notes.append(f"not in these words: {', '.join(missing)}")
    if not candidate.fits:
        notes.append(f"{_cut(rewriter, candidate)}: shorten it (--edit), or take another seed")
        if answer.typed:
            notes.append("not rendered, since it would be cut")
    elif answer.typed and candidate.withheld:  # as it was edited
        notes.append(f"not rendered: {WITHHELD[candidate.withheld]}")
    shown = answer.rendered.get(candidate.text)
    if shown and shown.failure:
        notes.append(f"could not be rendered: {shown.failure}")
    if shown and shown.candidate.reward is not None:
        typed = answer.rendered.get(answer.query.text)
        value = typed.candidate.reward if typed else None
        beside = "" if value is None else f", as typed {value:.2f}"
        notes.append(f"reward {shown.candidate.reward:.2f}{beside}")
    return notes
