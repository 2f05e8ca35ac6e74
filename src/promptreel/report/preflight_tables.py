"""Tables for the terminal of everything that is known before a run: costs, models, machine, profiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from promptreel.preflight.doctor import Extra, Fit, Machine, Outlook
    from promptreel.preflight.inventory import Model
    from promptreel.profiles import Profile
    from promptreel.stages import Cost

PLACES = {"here": "here", "hub": "to be fetched", "endpoint": "served", "nowhere": "missing"}
"""Places of models, in words."""


def print_costs(stages: Sequence[Cost]) -> None:
    """Print the cost of every stage of a recipe, at most."""
    table = Table(title="at most", title_justify="left")
    for column in ("stage", "kind", "reads"):
        table.add_column(column)
    for column in ("queries", "completions", "verdicts", "renders"):
        table.add_column(column, justify="right")
    for stage in stages:
        counts = (stage.queries, stage.completions, stage.verdicts, stage.renders)
        table.add_row(stage.name, stage.kind, ", ".join(stage.inputs), *[_number(count) for count in counts])
    totals = (
        _total([stage.completions for stage in stages]),
        _total([stage.verdicts for stage in stages]),
        _total([stage.renders for stage in stages]),
    )
    table.add_section()
    table.add_row("in all", "", "", "", *[_number(total) for total in totals])
    _console().print(table)


def print_machine(extras: Sequence[Extra], here: Machine) -> None:
    """Print the installed extras, and the hardware of the machine."""
    lines = []
    for extra in extras:
        parts = [", ".join(f"{module} {version}" for module, version in extra.installed.items())]
        if extra.missing:
            parts.append(f"lacks {', '.join(extra.missing)}: pip install 'promptreel[{extra.name}]'")
        lines.append(f"{extra.name}: {'; '.join(part for part in parts if part)}")
    memory = "?" if here.memory is None else f"{here.memory:.0f}"
    lines.append(f"cores: {here.cores}, memory: {memory} GB, disk: {here.disk:.0f} GB free")
    lines.append(f"GPU: {_gpus(here)}")
    _print_lines(_console(), lines)


def _gpus(here: Machine) -> str:
    if here.gpus is None:
        return "unknown, since torch is not installed"
    return ", ".join(f"{name} ({memory:.0f} GB)" for name, memory in here.gpus) or "none"


def print_fits(fits: Mapping[str, Fit]) -> None:
    """Print the fit of video models, by name, into the memory of this machine."""
    table = Table(title="video models on this machine", title_justify="left")
    for column in ("profile", "weights in memory", ""):
        table.add_column(column)
    for name, fit in fits.items():
        table.add_row(name, _gigabytes(fit.weights), _fit(fit))
    _console().print(table)


def print_outlook(found: Outlook) -> None:
    """Print the needs of a recipe: models, memory, costs and problems."""
    console = _console()
    console.print(_models(found))
    lines = []
    to_fetch = {model.name: model.size for model in found.models if model.place == "hub"}
    if to_fetch:
        sizes = list(to_fetch.values())
        unknown = f", and {sizes.count(None)} of unknown size (--online asks the hub)" if None in sizes else ""
        lines.append(f"to be fetched: about {sum(size or 0 for size in sizes):.0f} GB{unknown}")
    if found.fit:
        lines.append(f"video model on {found.fit.device}: {_fit(found.fit)}")
    _print_lines(console, lines)
    print_costs(found.stages)
    _print_lines(console, [f"GPU-hours: {_hours(found)}", *(f"problem: {problem}" for problem in found.problems)])


def _models(found: Outlook) -> Table:
    table = Table(title=f"models of {found.recipe}", title_justify="left")
    for column in ("role", "model", "place", "size", "licence"):
        table.add_column(column, overflow="fold")
    for model in found.models:
        table.add_row(model.role, model.name, PLACES[model.place], _size(model), model.licence)
    return table


def _size(model: Model) -> str:
    if model.place == "endpoint":
        return ""
    estimated = f" by its {model.source}" if model.source in ("profile", "name") else ""
    return f"{_gigabytes(model.size)}{estimated}"


def _hours(found: Outlook) -> str:
    """Return the GPU-hours of a recipe, or the reason for which they are unknown."""
    if found.renders is None:
        return "unknown, the number of renders is open"
    if found.hours is None or found.seconds is None:
        return "unknown, no time for a clip is known: give --seconds"
    money = "" if found.money is None else f", {found.money:,.0f} in money"
    source = f"{found.renders:,} clips at {found.seconds:,.0f} s ({found.seconds_from})"
    return (
        f"at most about {found.hours:,.1f}{money}: an estimate from {source}; trainings and language models come on top"
    )


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
    """Print all facts about a video or image model."""
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
    """Return a fact on one line, without empty parts."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items() if inner)
    if isinstance(value, list):
        return ", ".join(_short(inner) for inner in value)
    return str(value)


def _fit(fit: Fit) -> str:
    if fit.available is None or fit.weights is None:
        return "unknown"
    if not fit.fits:
        return f"{_gigabytes(fit.weights)} of weights do not fit into {_gigabytes(fit.available)}"
    return f"weights fit, {fit.available - fit.weights:.0f} GB are left for activations"


def _total(counts: Sequence[int | None]) -> int | None:
    """Return the sum of counts; ``None`` if one of them is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _number(value: int | None) -> str:
    if value is None:
        return "?"
    return f"{value:,}" if value else "–"


def _gigabytes(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.1f} GB" if value >= 0.05 else f"{value * 1000:.0f} MB"


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 120, markup=False)  # licences have brackets
