"""The command that rewrites what a person typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from promptreel.cli.terminal import JSONOption, progress
from promptreel.errors import Refused, UserError


def rewrite(
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT …", help="What to show.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file of queries.")] = None,
    profile: Annotated[str, typer.Option("--for", metavar="PROFILE", help="The video model.")] = "tiny",
    llm: Annotated[str, typer.Option(metavar="SPEC", help="local:PATH-OR-HUB-ID[+ADAPTER], or tiny-student.")] = (
        "tiny-student"
    ),
    count: Annotated[int, typer.Option("-n", min=1, help="Rewrites of each query.")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    safety: Annotated[
        str, typer.Option(metavar="POLICY", help="What becomes of harm: rewrite_to_safe, refuse or off.")
    ] = "rewrite_to_safe",
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
    rewriter = Rewriter(llm, profile, seed, safety)
    found, refused = [], []
    for query in asked:
        try:
            found.append((query, rewriter.candidates(query, count)))
        except Refused as error:  # the other queries are answered all the same
            refused.append((query, error))
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
                        "removed": r.removed,
                        "video": rendered.get(r.text),
                    }
                    for r in rewrites
                ],
                "video": rendered.get(query.text),
            }
            for query, rewrites in found
        ]
        rows += [{"query": query.text, "rewrites": [], "refused": str(refusal)} for query, refusal in refused]
        print(json.dumps(rows, ensure_ascii=False))
    else:
        _print(found, rewriter.profile.token_limit)
    for _, refusal in refused:
        print(f"error: {refusal}", file=sys.stderr)
    if refused:
        raise typer.Exit(Refused.exit_code)


def _print(found: Sequence[tuple[Any, Any]], limit: int) -> None:
    """Print rewrites, and on stderr what is to be known of them."""
    for _, rewrites in found:
        for written in rewrites:
            print(written.text)
            for what in written.removed:
                print(f"  note: left out as harmful: {what}", file=sys.stderr)
            for problem in written.verdict.problems if written.verdict else []:
                print(f"  note: {problem}", file=sys.stderr)
            if written.tokens is not None and written.tokens > limit:
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
