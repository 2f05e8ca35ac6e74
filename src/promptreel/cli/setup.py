"""Commands before the first run: known models, this machine, and a recipe to begin with."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from promptreel.cli.terminal import JSONOption, ProfileOption, print_json
from promptreel.errors import UserError

NEEDED = 250
"""Distinct queries that the stages of the first recipe read."""


def profiles(
    name: Annotated[
        str | None, typer.Argument(help="Name of one, or path of a TOML file; by default all are listed.")
    ] = None,
    as_json: JSONOption = False,
) -> None:
    """Print the facts known about video and image models."""
    from promptreel.profiles import load, names
    from promptreel.report.preflight_tables import print_profile, print_profiles

    if name is not None:
        profile = load(name)
        if as_json:
            print_json(profile.model_dump(mode="json"))
        else:
            print_profile(profile)
        return
    found = [load(known) for known in names()]
    if as_json:
        print_json([profile.model_dump(mode="json") for profile in found])
    else:
        print_profiles(found)


def init(
    profile: ProfileOption = "wan2.1-1.3b",
    out: Annotated[Path, typer.Option(metavar="FILE", help="Recipe to write.")] = Path("recipe.toml"),
    queries: Annotated[str, typer.Option(help="Source of your queries: a file, or hub:OWNER/NAME.")] = "queries.txt",
) -> None:
    """Write a recipe for a video model, with comments, to begin with."""
    from importlib import resources

    from jinja2 import Environment, StrictUndefined

    from promptreel.config import load_recipe
    from promptreel.profiles import load

    known = load(profile)
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
    recipe: Annotated[str | None, typer.Argument(help="Path of a recipe, or name of a shipped one.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a GPU-hour, in any currency.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="Seconds for one clip, as you have timed it.")] = None,
    online: Annotated[bool, typer.Option("--online", help="Ask the hub for the sizes of models.")] = False,
    as_json: JSONOption = False,
) -> None:
    """Check this machine, and the downloads and costs of a recipe, before anything is fetched.

    Exits with 2 if the recipe could not run here.
    """
    from promptreel import profiles as known
    from promptreel.config import load_recipe
    from promptreel.preflight.doctor import extras, fit_of, machine, outlook
    from promptreel.report.preflight_tables import print_fits, print_machine, print_outlook

    installed, here = extras(), machine()
    found = outlook(load_recipe(recipe)[0], here, price, seconds, online) if recipe is not None else None
    fits = {name: fit_of(known.load(name), here) for name in known.names()} if found is None else {}
    if as_json:
        print_json(
            {
                "extras": [asdict(extra) for extra in installed],
                "machine": asdict(here),
                "profiles": {name: {**asdict(fit), "fits": fit.fits} for name, fit in fits.items()} or None,
                "recipe": {**asdict(found), "fits": found.fit.fits if found.fit else None} if found else None,
            }
        )
    else:
        print_machine(installed, here)
        if found:
            print_outlook(found)
        else:
            print_fits(fits)
    if found and found.problems:
        raise typer.Exit(UserError.exit_code)
