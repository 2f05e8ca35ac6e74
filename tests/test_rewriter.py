"""The public rewriter where its model or its judge fails: redraws, withheld texts, and the cache."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from promptreel import registry
from promptreel.errors import Refused, ReplyError
from promptreel.execution.writer import Writer
from promptreel.rewriting.rewriter import Rewriter
from promptreel.store import Database
from promptreel.types import Completion, Component, Failure, Message, SamplingParams

Build = Callable[..., Rewriter]


class Script:
    """Answers each call with the next entry of a script."""

    fingerprint = "script"
    left: ClassVar[list[str | Failure]] = []

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        found = [self.left.pop(0) for _ in conversations]
        return [Completion(text) if isinstance(text, str) else text for text in found]


@pytest.fixture
def script(fake_components: None, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A rewriter that gets these replies, read by the fake judge: every word of the query is a fact."""
    monkeypatch.setitem(registry.BUILT_IN["llm"], "script", "test_rewriter:Script")
    monkeypatch.setattr(
        "promptreel.rewriting.rewriter.writer_for",
        lambda *named: Writer(Component("llm", "script"), "brief", attempts=4),
    )

    def build(*replies: str | Failure, safety: str = "rewrite_to_safe", cache: Database | None = None) -> Rewriter:
        Script.left[:] = replies
        return Rewriter("script", "tiny", safety=safety, judge=Component("judge", "fake"), cache=cache)

    return build


def test_a_text_without_a_verdict_is_drawn_again_and_never_given(
    script: Build, caplog: pytest.LogCaptureFixture
) -> None:
    assert script("red ball unreadable", "red ball")("red ball").text == "red ball"
    with pytest.raises(Refused, match="4 attempts: the judge gave no verdict on it"):
        script(*["red ball unreadable"] * 4)("red ball")
    assert "withheld 4 rewrites of 'red ball': the judge gave no verdict on it" in caplog.text
    assert script(*["red ball unreadable"] * 4, safety="off")("red ball").verdict is None


def test_a_failed_attempt_loses_no_earlier_rewrite(script: Build) -> None:
    rewrite = script("ball", Failure("timeout"), "red ball")
    assert rewrite("red ball").text == "ball"
    assert Script.left == ["red ball"]  # a server that does not answer is not asked on and on


def test_an_unusable_reply_is_an_attempt(script: Build) -> None:
    assert script("<PROMPT>red", "red ball")("red ball").text == "red ball"
    with pytest.raises(ReplyError, match="cut off"):
        script(*["<PROMPT>red"] * 4)("red ball")
    with pytest.raises(ReplyError, match="no answer"):
        script(Failure("timeout", "no answer"), "red ball")("red ball")


def test_an_unusable_reply_is_not_remembered(script: Build, tmp_path: Path) -> None:
    cache = Database(f"sqlite:///{tmp_path}/cache.db")
    with pytest.raises(ReplyError, match="cut off"):
        script(*["<PROMPT>red"] * 4, cache=cache)("red ball")
    assert script("red ball", cache=cache)("red ball").text == "red ball"
    assert script(cache=cache)("red ball").text == "red ball"
