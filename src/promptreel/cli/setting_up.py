"""Commands before the first run: what there is, what fits, and a recipe to begin with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from promptreel.cli.terminal import JSONOption
from promptreel.errors import UserError

NEEDED = 250
"""Queries that the stages of the first recipe read, all different."""


def show_profiles(
    name: Annotated[str | None, typer.Argument(help="One of them, or the path of a TOML file.")] = None,
    as_json: JSONOption = False,
) -> None:
    """What is known of video and image models: all of them, or one."""
    from promptreel import profiles

    if name is None:
        found = [profiles.load(known) for known in profiles.names()]
        if as_json:
            print(json.dumps([profile.model_dump(mode="json") for profile in found], ensure_ascii=False))
        else:
            from promptreel.report.outlook import print_profiles

            print_profiles(found)
        return
    profile = profiles.load(name)
    if as_json:
        print(json.dumps(profile.model_dump(mode="json"), ensure_ascii=False))
    else:
        from promptreel.report.outlook import print_profile

        print_profile(profile)


def init(
    profile: Annotated[str, typer.Option("--for", metavar="PROFILE", help="The video model.")] = "wan2.1-1.3b",
    out: Annotated[Path, typer.Option(metavar="FILE", help="The recipe to write.")] = Path("recipe.toml"),
    queries: Annotated[str, typer.Option(help="Where your queries are: a file, or hub:OWNER/NAME.")] = "queries.txt",
) -> None:
    """Write a recipe for a video model, with comments, to begin with."""
    from importlib import resources

    from jinja2 import Environment, StrictUndefined

    from promptreel import profiles
    from promptreel.recipes import load_recipe

    known = profiles.load(profile)
    if out.exists():
        raise UserError(f"{out} is there already: give another --out")
    words = max(256, known.token_limit)
    template = (resources.files("promptreel.cli") / "recipe.toml.j2").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True)  # noqa: S701 - a recipe, not a page
    text = environment.from_string(template).render(
        profile=known, named=profile, file=out, queries=queries, needed=NEEDED, words=words
    )
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from error
    load_recipe(out)
    print(f"{out} is a recipe for {known.title}.")
    print(f"Put {NEEDED} queries into {queries}, then:  promptreel doctor {out}  and  promptreel run {out} --dry-run")


def doctor(
    recipe: Annotated[str | None, typer.Argument(help="Path of a recipe, or the name of one that comes along.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour of a GPU, in any money.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="That one clip takes, where you have timed it yourself.")
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="Ask the hub how large models are.")] = False,
    as_json: JSONOption = False,
) -> None:
    """What is installed, what fits this machine, and what a recipe would fetch and cost, before it does.

    Exits with 2 if the recipe could not run here.
    """
    from dataclasses import asdict

    from promptreel import profiles
    from promptreel.pipeline import doctor as examination
    from promptreel.recipes import load_recipe

    extras, here = examination.extras(), examination.machine()
    if recipe is not None:
        found = examination.outlook(load_recipe(recipe)[0], here, price, seconds, online)
        fits = None
    else:
        found = None
        fits = [(name, examination.fit_of(profiles.load(name), here)) for name in profiles.names()]
    if as_json:
        document = {
            "extras": [asdict(extra) for extra in extras],
            "machine": asdict(here),
            "profiles": fits and {name: {**asdict(fit), "fits": fit.fits} for name, fit in fits},
            "recipe": found and {**asdict(found), "fits": found.fit.fits if found.fit else None},
        }
        print(json.dumps(document, ensure_ascii=False))
    else:
        from promptreel.report.outlook import print_fits, print_machine, print_outlook

        print_machine(extras, here)
        if found:
            print_outlook(found)
        elif fits:
            print_fits(fits)
    if found and found.problems:
        raise typer.Exit(UserError.exit_code)
