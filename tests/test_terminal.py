"""What a signal does to a command at work."""

import os
import signal
import threading
import time

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


def test_a_batch_that_outlives_the_grace_is_lost_as_was_said(
    exits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal.stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
    assert exits == [Interrupted.exit_code]
    assert "it is lost, and done again next time" in capsys.readouterr().err


def test_what_comes_after_the_work_has_all_the_time_it_needs(exits: list[int]) -> None:
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
