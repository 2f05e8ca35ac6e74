"""Tables for the terminal of a run: its summary, its stages and its failures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from rich.console import Console
from rich.table import Table

from promptreel.store import Mean, Summary


class StageRow(Protocol):
    """The state of a stage, as ``pipeline.status`` gives it."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str:
        """``new``, ``running``, ``stopped`` or ``done``."""
        ...

    @property
    def renders(self) -> int:
        """Clips rendered so far."""
        ...

    @property
    def planned(self) -> int | None:
        """Clips to render, at most; ``None`` if unknown."""
        ...

    @property
    def seconds(self) -> float: ...
    @property
    def seconds_left(self) -> float | None:
        """An estimate; ``None`` if unknown."""
        ...


def print_summary(summary: Summary) -> None:
    """Print the systems, the comparisons, the costs and the failures of a run."""
    console = _console()
    for benchmark in summary.benchmarks:
        for table in _systems(summary, benchmark):
            console.print(table)
        if any(row.benchmark == benchmark for row in summary.comparisons):
            console.print(_comparisons(summary, benchmark))
    if summary.renders:
        console.print(_costs(summary))
    print_failures(summary.failures)


def print_failures(failures: Mapping[str, int], details: Mapping[str, str] = {}) -> None:
    """Print the number of failures by reason, with the detail of one for each reason that has any."""
    console = Console(soft_wrap=True)
    for reason, count in failures.items():
        detail = f" (such as: {details[reason]})" if reason in details else ""
        console.print(f"failed: {count} × {reason}{detail}", markup=False, highlight=False)


def print_stages(rows: Sequence[StageRow], failures: Mapping[str, int], details: Mapping[str, str] = {}) -> None:
    """Print the state of a run's stages, and its failures."""
    console = _console()
    table = _table("stages")
    for column in ("stage", "state", "renders", "took", "left"):
        table.add_column(column, justify="left" if column in ("stage", "state") else "right")
    for row in rows:
        done = row.state == "done"
        renders = f"{row.renders} of at most {row.planned}" if row.planned else "–"
        took = duration(row.seconds) if row.seconds or done else "–"
        table.add_row(row.name, row.state, renders, took, "–" if done else _left(row.seconds_left))
    console.print(table)
    known = [row.seconds_left for row in rows if row.seconds_left is not None]
    if any(row.state != "done" for row in rows):
        unknown = " and the stages without an estimate" if len(known) < len(rows) else ""
        console.print(f"left: about {duration(sum(known))}{unknown}")
    print_failures(failures, details)


def _left(seconds: float | None) -> str:
    return "?" if seconds is None else duration(seconds)


def duration(seconds: float) -> str:
    """Return a duration in words: ``2 h 5 min`` or ``3 min 10 s``."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


def _systems(summary: Summary, benchmark: str) -> Iterator[Table]:
    """Yield the metrics of clips, then those of texts: few columns each, so that none is cut."""
    size = summary.benchmarks[benchmark]
    rows = [row for row in summary.means if row.benchmark == benchmark]
    scored = {row.metric for row in summary.comparisons if row.benchmark == benchmark}
    metrics = list(dict.fromkeys(row.metric for row in rows))
    clips = [metric for metric in metrics if metric in scored]
    texts = [metric for metric in metrics if metric not in scored]
    if clips:
        counts = f"{size.queries} queries × {size.clips_per_prompt} clips"
        yield _means(rows, clips, f"{benchmark}: {counts} (mean, 95 % interval)", summary.ceiling)
    if texts:
        yield _means(rows, texts, f"{benchmark}: {size.queries} prompts (mean, 95 % interval)", summary.ceiling)


def _means(rows: Sequence[Mean], metrics: Sequence[str], title: str, ceiling: str | None) -> Table:
    table = _table(title)
    table.add_column("system", overflow="fold")
    for metric in metrics:
        table.add_column(metric, justify="right", overflow="fold")
    for system in dict.fromkeys(row.system for row in rows):
        cells = {row.metric: _interval(row.mean, row.ci95) for row in rows if row.system == system}
        name = f"{system} (ceiling)" if system == ceiling else system
        table.add_row(name, *[cells.get(metric, "–") for metric in metrics])
    return table


def _comparisons(summary: Summary, benchmark: str) -> Table:
    rows = [row for row in summary.comparisons if row.benchmark == benchmark]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    table = _table(f"{benchmark}: win rates, a tie counts ½ (95 % interval)")
    table.add_column("system")
    table.add_column("against")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for a, b in dict.fromkeys((row.a, row.b) for row in rows):
        cells = {row.metric: _interval(row.win_rate, row.ci95) for row in rows if (row.a, row.b) == (a, b)}
        table.add_row(a, b, *[cells.get(metric, "–") for metric in metrics])
    return table


def _costs(summary: Summary) -> Table:
    table = _table("costs")
    table.add_column("stage")
    table.add_column("renders", justify="right")
    table.add_column("seconds", justify="right")
    for stage, seconds in summary.seconds.items():
        table.add_row(stage, str(summary.renders.get(stage, 0)), f"{seconds:.0f}")
    return table


def _interval(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{value:.2f} ({low:.2f}–{high:.2f})"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left")


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 120)
