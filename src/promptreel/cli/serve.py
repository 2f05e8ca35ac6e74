"""The command that serves rewrites to other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, cast

import typer

from promptreel.cli.terminal import JudgeOption, LLMOption, ModeOption, ProfileOption, SafetyOption
from promptreel.extras import importing


def serve(
    llm: LLMOption = "tiny-student",
    profile: ProfileOption = "tiny",
    name: Annotated[
        str | None, typer.Option(help="Name of the model for clients; by default the last part of --llm.")
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves other machines too; then set a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8600,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that clients must send; or set PROMPTREEL_TOKEN."),
    ] = None,
    mode: ModeOption = None,
    judge: JudgeOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of requests without one.")] = 0,
    safety: SafetyOption = "rewrite_to_safe",
    batch: Annotated[int, typer.Option(min=1, help="Rewrites that the model writes at once.")] = 32,
    queue: Annotated[int, typer.Option(min=1, help="Open requests at most; more are sent away.")] = 128,
) -> None:
    """Serve rewrites over HTTP, in the protocol of OpenAI's chat completions."""
    with importing("serve"):
        from promptreel.server import app, run
    from promptreel.policy import Safety
    from promptreel.rewriting import Rewriter
    from promptreel.rewriting.models import judge_of
    from promptreel.types import SamplingParams

    token = run.read_token(token_file)
    named = judge_of(judge) if judge else None
    rewriter = Rewriter(llm, profile, seed, cast(Safety, safety), judge=named, mode=mode)
    called = name or Path(llm.partition(":")[2].partition("@")[0].partition("+")[0] or llm).name
    with run.open_port(host, port) as listening:
        if rewriter.writer.llm.name == "local":
            print(f"loading {llm}", file=sys.stderr)
            rewriter.model.complete([[{"role": "user", "content": "a ball"}]], [SamplingParams(0.0, max_tokens=1)])
        if not token and not run.is_loopback(host):
            cure = f"set {run.TOKEN}, or leave out --host"
            print(f"warning: anyone who reaches {host} can use this model: {cure}", file=sys.stderr)
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{listening.getsockname()[1]}/v1"
        print(f"{called} rewrites for {profile} at {url}; Ctrl-C ends", file=sys.stderr)
        served = app.create_app(rewriter, rewriter.model, called, token, app.Limits(rows=batch, open=queue))
        run.serve(served, listening)
