"""What commands share: their common options, a bar on stderr, and an end that loses nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from promptreel.errors import Interrupted

RunOption = Annotated[Path, typer.Option("--run", help="Directory of the run.")]
JSONOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON document on stdout.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="A.B=C", help="Change a key of the recipe.")]


GRACE = 20.0
"""Seconds that a batch in hand has to end after the first signal."""


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """A check that raises ``Interrupted`` once SIGINT or SIGTERM has come: at a moment when all is stored.

    A second signal, or the end of the grace within the block, ends the process at once; only the batch in hand is lost.
    """
    import signal
    import threading

    came: list[int] = []
    last = threading.Timer(GRACE, os._exit, [Interrupted.exit_code])
    last.daemon = True

    def stop(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            os._exit(Interrupted.exit_code)
        lost = f"if that takes over {GRACE:.0f} s it is lost, and done again next time"
        print(f"\nstopping when the batch in hand is stored; {lost}; again to stop now", file=sys.stderr)
        last.start()

    def check() -> None:
        if came:
            raise Interrupted("interrupted; the same command goes on from here")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        last.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback that draws a bar for each thing it is called about, with its rate and the time left.

    It raises ``Interrupted`` after a signal.
    """
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
        TextColumn("{task.description:<34}"), BarColumn(bar_width=24), MofNCompleteColumn(), Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )  # fmt: skip
    with stoppable() as check, Progress(*columns, console=Console(stderr=True)) as drawn:

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = drawn.add_task(what, total=total)
            drawn.update(bars[what], completed=done, total=total)
            check()

        yield report
