"""Plain tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def print_summary(summary: dict[str, Any]) -> None:
    """Print the systems, the comparisons and the costs of a run as plain tables."""
    console = Console(width=None if Console().is_terminal else 120)
    for benchmark, size in summary["benchmarks"].items():
        for table in _systems(summary, benchmark, size):
            console.print(table)
        if any(row["benchmark"] == benchmark for row in summary["comparisons"]):
            console.print(_comparisons(summary, benchmark))
    if summary["renders"]:
        console.print(_costs(summary))
    print_losses(summary["losses"])


def print_losses(losses: Mapping[str, int], details: Mapping[str, str] = {}) -> None:
    """Print what a run lost, by reason, with what was said of one of each."""
    console = Console(soft_wrap=True)
    for reason, count in losses.items():
        detail = f" (such as: {details[reason]})" if reason in details else ""
        console.print(f"lost: {count} × {reason}{detail}", markup=False, highlight=False)


def print_stages(rows: Sequence[Any], losses: Mapping[str, int], details: Mapping[str, str] = {}) -> None:
    """Print the state of a run's stages (``StageStatus``), and what it lost."""
    console = Console(width=None if Console().is_terminal else 120)
    table = Table(title="stages", title_justify="left")
    for column in ("stage", "state", "renders", "took", "left"):
        table.add_column(column, justify="left" if column in ("stage", "state") else "right")
    for row in rows:
        renders = f"{row.renders} of at most {row.planned}" if row.planned else "–"
        left = "?" if row.seconds_left is None else duration(row.seconds_left)
        took = duration(row.seconds) if row.seconds or row.state == "done" else "–"
        table.add_row(row.name, row.state, renders, took, left if row.state != "done" else "–")
    console.print(table)
    known = [row.seconds_left for row in rows if row.seconds_left is not None]
    if any(row.state != "done" for row in rows):
        unknown = " and what cannot be estimated yet" if len(known) < len(rows) else ""
        console.print(f"left: about {duration(sum(known))}{unknown}")
    print_losses(losses, details)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def _systems(summary: dict[str, Any], benchmark: str, size: dict[str, int]) -> Iterator[Table]:
    """What the clips of a benchmark show, and what its prompts are like: few columns each, so that none is cut."""
    rows = [row for row in summary["means"] if row["benchmark"] == benchmark]
    seen = list(dict.fromkeys(row["metric"] for row in rows))
    judged = {row["metric"] for row in summary["comparisons"] if row["benchmark"] == benchmark}
    clips = [metric for metric in seen if metric in judged]
    texts = [metric for metric in seen if metric not in judged]
    if clips:
        noise = f"{size['queries']} queries × {size['seeds']} seeds"
        yield _means(summary, rows, clips, f"{benchmark}: {noise} (mean, 95 % interval)")
    if texts:
        yield _means(summary, rows, texts, f"{benchmark}: {size['queries']} prompts (mean, 95 % interval)")


def _means(summary: dict[str, Any], rows: Sequence[dict[str, Any]], metrics: Sequence[str], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("system", overflow="fold")
    for metric in metrics:
        table.add_column(metric, justify="right", overflow="fold")
    for system in dict.fromkeys(row["system"] for row in rows):
        cells = {row["metric"]: _interval(row["mean"], row["ci95"]) for row in rows if row["system"] == system}
        name = f"{system} (ceiling)" if system == summary["ceiling"] else system
        table.add_row(name, *[cells.get(metric, "–") for metric in metrics])
    return table


def _comparisons(summary: dict[str, Any], benchmark: str) -> Table:
    rows = [row for row in summary["comparisons"] if row["benchmark"] == benchmark]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    table = Table(title=f"{benchmark}: win rates, a tie counts ½ (95 % interval)", title_justify="left")
    table.add_column("system")
    table.add_column("against")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for a, b in dict.fromkeys((row["a"], row["b"]) for row in rows):
        cells = {r["metric"]: _interval(r["win_rate"], r["ci95"]) for r in rows if (r["a"], r["b"]) == (a, b)}
        table.add_row(a, b, *[cells.get(metric, "–") for metric in metrics])
    return table


def _costs(summary: dict[str, Any]) -> Table:
    table = Table(title="costs", title_justify="left")
    table.add_column("stage")
    table.add_column("renders", justify="right")
    table.add_column("seconds", justify="right")
    for stage, seconds in summary["seconds"].items():
        table.add_row(stage, str(summary["renders"].get(stage, 0)), f"{seconds:.0f}")
    return table


def _interval(value: float, interval: list[float]) -> str:
    return f"{value:.2f} ({interval[0]:.2f}–{interval[1]:.2f})"
