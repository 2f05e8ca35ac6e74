"""The command that rewrites what a person typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptreel.cli.terminal import JSONOption, progress
from promptreel.errors import Refused, ReplyError, UserError

if TYPE_CHECKING:
    from promptreel.pipeline.preview import Preview, Shown
    from promptreel.rewriter import Rewriter
    from promptreel.types import Query, Rewrite


TINY = "tiny-student"
"""Who writes if nobody else is named."""


@dataclass
class Answer:
    """What is said of one query."""

    query: Query
    rewrites: list[Rewrite] = field(default_factory=list)
    error: Refused | ReplyError | None = None
    """Why there are none: the policy refuses them, or no reply held one."""
    drawn: int = 0
    typed: Rewrite | None = None
    """The query read as if it were a rewrite, where it is rendered too."""
    shown: Mapping[str, Shown] = field(default_factory=dict)
    side_by_side: Path | None = None


def rewrite(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT …", help="What to show.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of queries.")] = None,
    profile: Annotated[
        str, typer.Option("--for", metavar="PROFILE", help="The video model; see promptreel profiles.")
    ] = "tiny",
    llm: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="endpoint:MODEL[@URL], local:PATH-OR-HUB-ID[+ADAPTER], or a name: tiny-student, vpo-2b …",
        ),
    ] = TINY,
    mode: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="faithful (the default) adds nothing to the scene; cinematic stages it."),
    ] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Rewrites of each query.")] = 1,
    best_of: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Write N, and keep the best -n by verdict and, if rendered, by reward."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Who reads rewrites for facts and harm: as --llm, or a judge.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the words and of the noise.")] = 0,
    safety: Annotated[
        str, typer.Option(metavar="POLICY", help="What becomes of harm: rewrite_to_safe, refuse or off.")
    ] = "rewrite_to_safe",
    edit: Annotated[bool, typer.Option("--edit", help="Open every rewrite in $VISUAL or $EDITOR first.")] = False,
    render: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also render query and rewrites, from the same noise.")
    ] = None,
    rewards: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="With --render: the recipe whose rewards score the clips.")
    ] = None,
    as_json: JSONOption = False,
) -> None:
    """Rewrite what a person typed into a prompt for a video model."""
    from promptreel import profiles, queries
    from promptreel.rewriter import Rewriter, judge_of
    from promptreel.store import personal_cache

    asked = [queries.ask_for(text) for text in texts or []]
    asked += list(queries.read_file(file)) if file else []
    if not asked:
        raise UserError("nothing to rewrite: give a TEXT or a --file")
    if best_of and best_of < count:
        raise UserError(f"--best-of {best_of} cannot keep {count} rewrites: it is how many are written")
    if rewards and not render:
        raise UserError("--rewards scores clips: give --render DIR too")
    if best_of and render and edit:
        raise UserError("--best-of with --render chooses after rendering: leave out --edit, which is for before")
    if llm == TINY and profiles.load(profile).judge != "tiny-oracle":
        raise UserError(
            f"{TINY} knows nothing but the tiny world: to write for {profile}, give a language model by --llm"
        )
    named = judge_of(judge) if judge else None
    rewriter = Rewriter(llm, profile, seed, safety, judge=named, mode=mode, cache=personal_cache())
    preview = _preview(profile, render, seed, rewards, best_of is not None) if render else None
    answers = []
    for query in asked:
        try:
            drawn = rewriter.candidates(query, best_of or count)
        except (Refused, ReplyError) as error:  # the other queries are answered all the same
            answers.append(Answer(query, error=error))
            continue
        answer = Answer(query, drawn, drawn=len(drawn))
        if best_of and not preview:
            answer.rewrites = _best(rewriter, answer)[:count]
        if edit:
            answer.rewrites = _edited(rewriter, query, answer.rewrites)
        answers.append(answer)
    if preview:
        _render(rewriter, preview, answers)
    if preview and best_of:
        for answer in answers:
            answer.rewrites = _best(rewriter, answer)[:count]
    if as_json:
        print(json.dumps([_row(rewriter, answer) for answer in answers], ensure_ascii=False))
    else:
        _print(rewriter, answers, best_of)
    unanswered = [answer.error for answer in answers if answer.error]
    for why in unanswered:
        print(f"error: {why}", file=sys.stderr)
    if unanswered:
        raise typer.Exit(max(why.exit_code for why in unanswered))


def _edited(rewriter: Rewriter, query: Query, rewrites: list[Rewrite]) -> list[Rewrite]:
    """The rewrites as a person leaves them in an editor; one that they empty is dropped."""
    import click

    edited = []
    for written in rewrites:
        note = (
            f"\n\n# Typed: {query.text}\n# The prompt is above, {written.tokens} tokens long; {rewriter.profile.title} "
            f"reads {rewriter.profile.token_limit}.\n# Lines that begin with # are left out. Nothing left: no prompt.\n"
        )
        try:
            text = click.edit(written.text + note, extension=".txt")
        except click.ClickException as error:
            raise UserError(f"{error.message}; set $VISUAL or $EDITOR to a command that waits") from error
        if text is None:  # closed without saving
            edited.append(written)
            continue
        left = " ".join(" ".join(line for line in text.splitlines() if not line.startswith("#")).split())
        if left == written.text:
            edited.append(written)
        elif left:
            edited.append(rewriter.examine(query, left))
    return edited


def _preview(profile: str, directory: Path, seed: int, rewards: str | None, choosing: bool) -> Preview:
    """What renders and, to choose among rewrites, scores: by a recipe's rewards, which for ``tiny`` come along."""
    from promptreel.pipeline.preview import Preview
    from promptreel.recipes import load_recipe

    recipe = rewards or ("tiny" if profile == "tiny" and choosing else None)
    return Preview(profile, directory, seed, load_recipe(recipe)[0] if recipe else None)


def _render(rewriter: Rewriter, preview: Preview, answers: list[Answer]) -> None:
    """Render what may be shown: every query, and those of its rewrites that the model reads to their end."""
    with progress() as report:
        for answer in answers:
            if not answer.error:
                answer.typed = typed = rewriter.examine(answer.query, answer.query.text)
                left = [w for w in answer.rewrites if rewriter.fits(w) and not rewriter.withheld(w.verdict)]
                texts = [typed.text] * (not rewriter.withheld(typed.verdict)) + [written.text for written in left]
                answer.shown, answer.side_by_side = preview.show(answer.query, texts, report)


def _best(rewriter: Rewriter, answer: Answer) -> list[Rewrite]:
    """The rewrites of a query from best to worst: by their texts, and those that are equal there by reward."""

    def key(written: Rewrite) -> tuple[Any, ...]:
        shown = answer.shown.get(written.text)
        scored = shown is not None and shown.total is not None
        return *rewriter.rank(written), scored, shown.total if shown and scored else 0.0

    return sorted(answer.rewrites, key=key, reverse=True)


def _row(rewriter: Rewriter, answer: Answer) -> dict[str, Any]:
    """An answer as JSON."""
    row: dict[str, Any] = {"query": answer.query.text, "rewrites": []}
    if answer.error:
        return {**row, "refused" if isinstance(answer.error, Refused) else "failed": str(answer.error)}
    for written in answer.rewrites:
        verdict, shown = written.verdict, answer.shown.get(written.text)
        row["rewrites"].append(
            {
                "text": written.text,
                "tokens": written.tokens,
                "exact": rewriter.count.exact,
                "fits": rewriter.fits(written),
                "fidelity": verdict.fidelity if verdict else None,
                "problems": verdict.problems if verdict else [],
                "removed": written.removed,
                "video": _path(shown),
                "total": shown.total if shown else None,
                "failure": shown.failure if shown else "",
            }
        )
    raw = answer.shown.get(answer.query.text)
    row["video"] = _path(raw)
    row["failure"] = (answer.typed and rewriter.withheld(answer.typed.verdict)) or (raw.failure if raw else "")
    row["side_by_side"] = str(answer.side_by_side) if answer.side_by_side else None
    return row


def _path(shown: Shown | None) -> str | None:
    return str(shown.video) if shown and shown.video else None


def _print(rewriter: Rewriter, answers: list[Answer], best_of: int | None) -> None:
    """Print rewrites, in colour on a terminal, and on stderr what is to be known of them."""
    from rich.console import Console
    from rich.text import Text

    from promptreel.report.words import compare, unsaid

    console = Console()
    colours = {"kept": "bold green", "added": "cyan", "": ""}
    for answer in answers:
        query = answer.query.text
        for written in answer.rewrites:
            if console.is_terminal:
                marked = [(piece, colours[what]) for piece, what in compare(query, written.text)]
                console.print(Text.assemble(*marked), soft_wrap=True, highlight=False)
            else:
                print(written.text)
            for note in _notes(rewriter, answer, written, unsaid(query, written.text)):
                print(f"  note: {note}", file=sys.stderr)
        for note in _notes_as_typed(rewriter, answer):
            print(f"  note: {note}", file=sys.stderr)
        if answer.side_by_side:
            print(f"  note: as typed and as rewritten, from left to right: {answer.side_by_side}", file=sys.stderr)
        scored = any(shown.total is not None for shown in answer.shown.values())
        if best_of and answer.drawn > len(answer.rewrites) and not rewriter.judged and not scored:
            print(
                f"  note: nobody judged these {answer.drawn} different rewrites: give --judge, or --render with "
                "--rewards; the first that fits is shown",
                file=sys.stderr,
            )


def _notes_as_typed(rewriter: Rewriter, answer: Answer) -> list[str]:
    """What is to be known of the clip of a query itself."""
    typed, raw, notes = answer.typed, answer.shown.get(answer.query.text), []
    if typed and (why := rewriter.withheld(typed.verdict)):
        notes.append(f"as typed it is not rendered: {why}")
    elif typed and not rewriter.fits(typed):
        notes.append(f"as typed it has {_cut(rewriter, typed)}")
    if raw and raw.failure:
        notes.append(f"the query could not be rendered: {raw.failure}")
    return notes


def _cut(rewriter: Rewriter, written: Rewrite) -> str:
    """How long a text is, and that this is too long."""
    about = "" if rewriter.count.exact else "about "
    return f"{about}{written.tokens} tokens; the model reads {rewriter.profile.token_limit} and cuts the rest"


def _notes(rewriter: Rewriter, answer: Answer, written: Rewrite, unsaid: list[str]) -> list[str]:
    notes = [f"left out as harmful: {what}" for what in written.removed]
    notes += written.verdict.problems if written.verdict else []
    if written.verdict is None and unsaid:
        notes.append(f"not in these words: {', '.join(unsaid)}")
    if not rewriter.fits(written):
        notes.append(f"{_cut(rewriter, written)}: shorten it (--edit), or take another seed")
        if answer.typed:
            notes.append("not rendered, since it would be cut")
    elif answer.typed and (why := rewriter.withheld(written.verdict)):  # as it was edited
        notes.append(f"not rendered: {why}")
    shown = answer.shown.get(written.text)
    if shown and shown.failure:
        notes.append(f"could not be rendered: {shown.failure}")
    if shown and shown.total is not None:
        raw = answer.shown.get(answer.query.text)
        beside = f", as typed {raw.total:.2f}" if raw and raw.total is not None else ""
        notes.append(f"reward {shown.total:.2f}{beside}")
    return notes
