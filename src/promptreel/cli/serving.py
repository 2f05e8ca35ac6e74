"""The command that serves rewrites to other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from promptreel.errors import importing


def serve(
    llm: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="endpoint:MODEL[@URL], local:PATH-OR-HUB-ID[+ADAPTER], or a name: tiny-student, vpo-2b …",
        ),
    ] = "tiny-student",
    profile: Annotated[
        str, typer.Option("--for", metavar="PROFILE", help="The video model; see promptreel profiles.")
    ] = "tiny",
    name: Annotated[
        str | None, typer.Option(help="What clients call the model; by default the last part of --llm.")
    ] = None,
    host: Annotated[str, typer.Option(help="0.0.0.0 serves other machines too; then set a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8600,
    token_file: Annotated[
        Path | None,
        typer.Option(help="A file with the token that clients must send; or set PROMPTREEL_TOKEN."),
    ] = None,
    mode: Annotated[str | None, typer.Option(metavar="MODE", help="faithful or cinematic.")] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Who reads rewrites for facts and harm: as --llm, or a judge.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of requests that bring none.")] = 0,
    safety: Annotated[
        str, typer.Option(metavar="POLICY", help="What becomes of harm: rewrite_to_safe, refuse or off.")
    ] = "rewrite_to_safe",
    batch: Annotated[int, typer.Option(min=1, help="Rewrites that the model writes at once.")] = 32,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may be open at once; more are sent away.")] = 128,
) -> None:
    """Serve rewrites over HTTP, in the protocol of OpenAI's chat completions."""
    with importing("serve"):
        from promptreel.server import app, listen
    from promptreel import registry
    from promptreel.protocols import LLM
    from promptreel.rewriter import Rewriter, judge_of
    from promptreel.types import Sampling

    token = listen.read_token(token_file)
    rewriter = Rewriter(llm, profile, seed, safety, judge=judge_of(judge) if judge else None, mode=mode)
    called = name or Path(llm.partition(":")[2].partition("@")[0].partition("+")[0] or llm).name
    with listen.open_port(host, port) as listening:
        model: LLM = registry.build(rewriter.writer.llm)
        if rewriter.writer.llm.name == "local":
            print(f"loading {llm}", file=sys.stderr)
            model.complete([[{"role": "user", "content": "a ball"}]], [Sampling(0.0, max_tokens=1)])
        if not token and not listen.is_loopback(host):
            cure = f"set {listen.TOKEN}, or leave out --host"
            print(f"warning: anyone who reaches {host} can use this model: {cure}", file=sys.stderr)
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{listening.getsockname()[1]}/v1"
        print(f"{called} rewrites for {profile} at {url}; Ctrl-C ends", file=sys.stderr)
        served = app.create_app(rewriter, model, called, token, app.Limits(rows=batch, open=queue))
        listen.serve(served, listening)
