"""Tables of what is planned, needed and known, before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from promptreel.profiles import Profile


def print_plan(stages: Sequence[Any]) -> None:
    """Print the stages of a recipe (``Planned``) with what each asks for at most."""
    table = Table(title="at most", title_justify="left")
    for column in ("stage", "kind", "reads"):
        table.add_column(column)
    for column in ("queries", "rewrites", "judged", "renders"):
        table.add_column(column, justify="right")
    for stage in stages:
        numbers = (stage.queries, stage.replies, stage.verdicts, stage.renders)
        table.add_row(stage.name, stage.kind, ", ".join(stage.inputs), *map(_number, numbers))
    totals: list[int | None] = []
    for name in ("replies", "verdicts", "renders"):
        counts = [getattr(stage, name) for stage in stages]
        totals.append(None if None in counts else sum(counts))
    table.add_section()
    table.add_row("in all", "", "", "", *map(_number, totals))
    _console().print(table)


def print_machine(extras: Sequence[Any], here: Any) -> None:
    """Print what is installed (``Extra``) and what the machine has (``Machine``)."""
    console = _console()
    for extra in extras:
        have = ", ".join(f"{name} {number}" for name, number in extra.installed.items())
        lacks = f"lacks {', '.join(extra.missing)}: pip install 'promptreel[{extra.name}]'" if extra.missing else ""
        _lines(console, [f"{extra.name}: {'; '.join(filter(None, (have, lacks)))}"])
    gpus = "unknown, since torch is not installed" if here.gpus is None else "none"
    if here.gpus:
        gpus = ", ".join(f"{name} ({memory:.0f} GB)" for name, memory in here.gpus)
    memory = "?" if here.memory is None else f"{here.memory:.0f}"
    _lines(console, [f"cores: {here.cores}, memory: {memory} GB, disk: {here.disk:.0f} GB free", f"GPU: {gpus}"])


def print_fits(fits: Iterable[tuple[str, Any]]) -> None:
    """Print for video models, by name, whether they fit (``Fit``)."""
    table = Table(title="video models on this machine", title_justify="left")
    for column in ("profile", "weights in memory", ""):
        table.add_column(column)
    for name, fit in fits:
        table.add_row(name, _gigabytes(fit.weights), _fits(fit))
    console = _console()
    console.print(table)


def print_outlook(found: Any) -> None:
    """Print what a recipe needs (``Outlook``)."""
    console = _console()
    table = Table(title=f"models of {found.recipe}", title_justify="left")
    for column in ("role", "model", "where", "size", "licence"):
        table.add_column(column, overflow="fold")
    for model in found.models:
        where = {"here": "here", "hub": "to be fetched", "endpoint": "served", "nowhere": "missing"}[model.place]
        how = f" by its {model.source}" if model.source in ("profile", "name") else ""
        size = "" if model.place == "endpoint" else f"{_gigabytes(model.size)}{how}"
        table.add_row(model.role, model.name, where, size, model.licence)
    console.print(table)
    to_fetch = [model.size for model in {model.name: model for model in found.models if model.place == "hub"}.values()]
    lines = []
    if to_fetch:
        unknown = f", and {to_fetch.count(None)} of unknown size (--online asks the hub)" if None in to_fetch else ""
        lines.append(f"to be fetched: about {sum(size or 0 for size in to_fetch):.0f} GB{unknown}")
    if found.fit:
        lines.append(f"video model on {found.fit.device}: {_fits(found.fit)}")
    _lines(console, lines)
    print_plan(found.stages)
    if found.hours is None:
        why = "the number of renders is open" if found.renders is None else "nobody has timed a clip: give --seconds"
        _lines(console, [f"GPU-hours: unknown, {why}"])
    else:
        money = "" if found.money is None else f", {found.money:,.0f} in money"
        how = f"{found.renders:,} clips at {found.seconds:,.0f} s ({found.seconds_from})"
        _lines(console, [f"GPU-hours: at most about {found.hours:,.1f}{money}: an estimate from {how}; trainings and "
                         "language models come on top"])  # fmt: skip
    _lines(console, (f"problem: {problem}" for problem in found.problems))


def print_profiles(known: Iterable[Profile]) -> None:
    """Print video and image models, one a line."""
    table = Table()
    for column in ("profile", "model", "clip", "reads", "licence"):
        table.add_column(column, overflow="fold")
    for profile in known:
        clip = f"{profile.width}×{profile.height}"
        clip += f", {profile.frames / profile.fps:.1f} s" if profile.frames > 1 else ", image"
        table.add_row(profile.name, profile.title, clip, f"{profile.token_limit} tokens", profile.licence)
    _console().print(table)


def print_profile(profile: Profile) -> None:
    """Print all that is known of a video or image model."""
    facts = profile.model_dump(mode="json", exclude_defaults=True)
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {_short(inner)}" for key, inner in value.items())
        table.add_row(name, _short(value))
    _console().print(table)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items() if inner)
    return ", ".join(map(_short, value)) if isinstance(value, list) else str(value)


def _fits(fit: Any) -> str:
    if fit.fits is None:
        return "unknown"
    if not fit.fits:
        return f"{_gigabytes(fit.weights)} of weights do not fit into {_gigabytes(fit.available)}"
    return f"weights fit, {fit.available - fit.weights:.0f} GB are left for what is computed"


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}" if value else "–"


def _gigabytes(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} GB" if value >= 0.05 else f"{value * 1000:.0f} MB"


def _lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 120, markup=False)  # licences have brackets
