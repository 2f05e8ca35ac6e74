"""Things that commands share: common options, progress on stderr, and an interruption that loses nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from promptreel.errors import Interrupted

RunOption = Annotated[Path, typer.Option("--run", help="Directory of the run.")]
JSONOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Change a key of the recipe.")]
ProfileOption = Annotated[
    str, typer.Option("--for", metavar="PROFILE", help="Profile of the video model; see promptreel profiles.")
]
LLMOption = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="Language model: endpoint:MODEL[@URL], local:PATH-OR-HUB-ID[+ADAPTER], or a name: tiny-student, vpo-2b …",
    ),
]
ModeOption = Annotated[
    str | None,
    typer.Option(metavar="MODE", help="faithful (the default) adds nothing to the scene; cinematic stages it."),
]
JudgeOption = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Judge of facts and harm: a language model as for --llm, or a judge's name."),
]
SafetyOption = Annotated[str, typer.Option(metavar="POLICY", help="Treatment of harm: rewrite_to_safe, refuse or off.")]

Report = Callable[[str, int, int], None]
"""Reporter of progress: it takes the name of the work, the items done, and the items in all."""

GRACE = 20.0
"""Seconds in which the batch at work must end after the first signal."""
INTERVAL = 5.0
"""Least seconds between two lines about one piece of work."""


def print_json(document: Any) -> None:
    """Print a document on stdout, on one line."""
    print(json.dumps(document, ensure_ascii=False))


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Give a check that raises ``Interrupted`` after SIGINT or SIGTERM; call it when everything is stored.

    A second signal ends the process at once, as does the end of the grace within the block. Only the batch at work is
    lost then.
    """
    import signal
    import threading

    signals: list[int] = []
    last = threading.Timer(GRACE, os._exit, [Interrupted.exit_code])
    last.daemon = True

    def stop(number: int, frame: object) -> None:
        signals.append(number)
        if len(signals) > 1:
            os._exit(Interrupted.exit_code)
        lost = f"after {GRACE:.0f} s it is lost, and done again next time"
        print(f"\nstopping when the batch at work is stored; {lost}; press again to stop now", file=sys.stderr)
        last.start()

    def check() -> None:
        if signals:
            raise Interrupted("interrupted; the same command goes on from here")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        last.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress() -> Iterator[Report]:
    """Give a reporter that shows progress on stderr: bars on a terminal, and lines anywhere else.

    The reporter raises ``Interrupted`` after a signal.
    """
    with stoppable() as check, _bars() if sys.stderr.isatty() else _lines() as show:

        def report(work: str, done: int, total: int) -> None:
            show(work, done, total)
            check()

        yield report


@contextmanager
def progress_on_demand() -> Iterator[Report]:
    """Give a reporter that opens ``progress`` with the first report of a piece of work, and closes it with the last.

    In between, the terminal belongs to others, such as an editor, and a signal acts as usual.
    """
    with ExitStack() as stack:
        opened: list[Report] = []

        def report(work: str, done: int, total: int) -> None:
            if not opened:
                opened.append(stack.enter_context(progress()))
            opened[0](work, done, total)
            if done >= total:
                stack.close()
                opened.clear()

        yield report


@contextmanager
def _bars() -> Iterator[Report]:
    """Give a reporter that draws a bar for each piece of work, with its rate and the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "", justify="right")

    bars: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description:<34}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(), Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as drawn:

        def show(work: str, done: int, total: int) -> None:
            if work not in bars:
                bars[work] = drawn.add_task(work, total=total)
            drawn.update(bars[work], completed=done, total=total)

        yield show


@contextmanager
def _lines() -> Iterator[Report]:
    """Give a reporter that prints lines, for logs."""
    works: dict[str, LoggedWork] = {}

    def show(work: str, done: int, total: int) -> None:
        now = time.monotonic()
        if work not in works or (works[work].finished and done < total):
            works[work] = LoggedWork(work, done, now)
        if line := works[work].line(done, total, now):
            print(line, file=sys.stderr, flush=True)

    yield show


@dataclass
class LoggedWork:
    """A piece of work in a log: a first line, one every ``INTERVAL`` seconds, and a last one."""

    name: str
    known: int
    """Items that were done before it began."""
    began: float
    """Time of the first report, on the monotonic clock in seconds."""
    printed: float | None = field(default=None, init=False)
    """Time of the last line."""
    finished: bool = field(default=False, init=False)

    def line(self, done: int, total: int, now: float) -> str | None:
        """Return the line to print at this time, or ``None``."""
        early = self.printed is not None and now - self.printed < INTERVAL
        if self.finished or (early and done < total):
            return None
        self.printed, self.finished = now, done >= total
        parts = [f"{self.name}: {done}/{total}"]
        took = now - self.began
        if done > self.known and took > 0:
            rate = (done - self.known) / took
            parts.append(f"{rate:.1f}/s" if rate >= 0.1 else f"{1 / rate:.0f} s each")
            parts.append(f"took {_clock(took)}" if done >= total else f"{_clock((total - done) / rate)} left")
        return ", ".join(parts)


def _clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, with hours where there are any: ``0:07``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
