"""Progress on stderr, and the effect of a signal on a command at work."""

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from promptreel.cli import terminal
from promptreel.errors import Interrupted


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The codes with which the process would have ended, with very little grace."""
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        if threading.current_thread() is threading.main_thread():
            raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(terminal, "GRACE", 0.1)
    return codes


def test_a_batch_that_outlives_the_grace_is_lost_as_announced(
    exits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
    assert exits == [Interrupted.exit_code]
    assert "it is lost, and done again next time" in capsys.readouterr().err


def test_the_grace_does_not_limit_work_after_the_block(exits: list[int]) -> None:
    with terminal.stoppable() as check:
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            check()
    time.sleep(0.5)
    assert exits == []


def test_a_second_signal_ends_it_at_once(exits: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "GRACE", 60)
    with terminal.stoppable():
        os.kill(os.getpid(), signal.SIGINT)
        assert exits == []
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGINT)
    assert exits == [Interrupted.exit_code]


class Screen(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the monotonic clock of the terminal module."""
    now = [100.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])

    def set_to(seconds: float) -> None:
        now[0] = 100.0 + seconds

    return set_to


def test_bars_are_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    with terminal.progress() as report:
        report("evolve/1: render", 0, 8)
        report("evolve/1: render", 8, 8)
        report("[bold]sft", 1, 2)
    drawn = screen.getvalue()
    assert "evolve/1: render" in drawn
    assert "━" in drawn
    assert "8/8" in drawn
    assert "[bold]sft" in drawn  # a name is no markup


def test_lines_with_rate_and_time_left_are_printed_elsewhere(
    capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]
) -> None:
    with terminal.progress() as report:
        for second in range(41):
            clock(second)
            report("evolve/1: render", 2 * second + 20, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "evolve/1: render: 20/100"
    assert lines[1] == "evolve/1: render: 30/100, 2.0/s, 0:35 left"  # items that were stored before took no time
    assert lines[-1] == "evolve/1: render: 100/100, 2.0/s, took 0:40"
    assert len(lines) == 1 + 40 / terminal.INTERVAL


def test_slow_work_is_timed_by_the_item(capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]) -> None:
    with terminal.progress() as report:
        report("evaluate/mine: render", 0, 20)
        clock(400)
        report("evaluate/mine: render", 2, 20)
    assert capsys.readouterr().err.splitlines()[-1] == "evaluate/mine: render: 2/20, 200 s each, 1:00:00 left"


def test_each_piece_of_work_has_lines_of_its_own_and_a_last_one(
    capsys: pytest.CaptureFixture[str], clock: Callable[[float], None]
) -> None:
    with terminal.progress() as report:
        for name in ("judge", "write", "judge"):
            report(name, 0, 2)
            clock(1)
            report(name, 1, 2)
            report(name, 2, 2)
            report(name, 2, 2)
    lines = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["judge: 0/2", "judge: 2/2", "write: 0/2", "write: 2/2", "judge: 0/2", "judge: 2/2"]


def test_a_report_raises_after_a_signal(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress() as report:
        report("render", 0, 2)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            report("render", 1, 2)


def test_progress_on_demand_lasts_as_long_as_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    usual = signal.getsignal(signal.SIGINT)
    with terminal.progress_on_demand() as report:
        for _ in range(2):
            assert signal.getsignal(signal.SIGINT) is usual
            report("render", 0, 2)
            assert signal.getsignal(signal.SIGINT) is not usual
            report("render", 2, 2)
        assert signal.getsignal(signal.SIGINT) is usual
    assert capsys.readouterr().err.count("render: 2/2") == 2
