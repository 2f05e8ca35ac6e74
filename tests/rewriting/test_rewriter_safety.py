"""Harm in rewrites: withheld texts, removed parts, refused queries, and exit codes."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest

from promptreel import cli, registry
from promptreel.errors import Refused, UnknownName, UserError
from promptreel.execution.writer import Writer
from promptreel.policy import Safety
from promptreel.rewriting import Rewriter
from promptreel.types import Completion, Component, Message, SamplingParams

pytestmark = pytest.mark.usefixtures("policy_components")
Build = Callable[[Safety], Rewriter]
ATTEMPTS = 4


@pytest.fixture
def rewriter(monkeypatch: pytest.MonkeyPatch) -> Build:
    """Return a builder of rewriters over the mender, with the fake judge. The mender leaves out the last word."""
    writer = Writer(Component("llm", "mender"), "brief", attempts=ATTEMPTS)
    monkeypatch.setattr("promptreel.rewriting.rewriter.writer_for", lambda *named: writer)
    return lambda safety: Rewriter("mender", "tiny", safety=safety, judge=Component("judge", "fake"))


class Drafts:
    """A language model that gives the next draft, for however many conversations."""

    fingerprint = "drafts"

    def __init__(self, drafts: Iterator[str]) -> None:
        self.drafts = drafts

    def complete(self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]) -> list[Completion]:
        return [Completion(next(self.drafts)) for _ in conversations]


def test_a_text_that_loses_a_fact_is_drawn_again(rewriter: Build) -> None:
    drafts = Drafts(iter(["ball", "star", "red star"]))
    (candidate,) = rewriter("rewrite_to_safe").candidates("red star", model=drafts)
    assert candidate.text == "red star"
    assert candidate.verdict
    assert candidate.verdict.fidelity == 1.0


def test_the_best_text_is_given_with_its_faults_if_none_is_accepted(rewriter: Build) -> None:
    drafts = Drafts(iter(["ball", "star", "sky", "sea"]))
    (candidate,) = rewriter("rewrite_to_safe").candidates("red star", model=drafts)
    assert (candidate.text, candidate.rejected, candidate.problems) == ("star", "fidelity", ["lost: red"])


def test_a_rewrite_lists_the_harmful_parts_that_it_leaves_out(
    rewriter: Build, caplog: pytest.LogCaptureFixture
) -> None:
    candidate = rewriter("rewrite_to_safe")("star gory")
    assert (str(candidate), candidate.removed, candidate.withheld) == ("star", ["gory"], None)
    assert not caplog.messages


def test_a_query_without_a_harmless_rewrite_is_refused(rewriter: Build, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Refused, match=f"no harmless rewrite of 'gory star' came of {ATTEMPTS} attempts") as refusal:
        rewriter("rewrite_to_safe")("gory star")
    assert refusal.value.exit_code == 3
    assert f"withheld {ATTEMPTS} rewrites of 'gory star': it is harmful" in caplog.text


def test_a_policy_that_refuses_rewrites_harmless_queries_alone(rewriter: Build) -> None:
    with pytest.raises(Refused, match="the query 'star gory' is refused: gory"):
        rewriter("refuse")("star gory")
    with pytest.raises(Refused, match="the judge gave no verdict on it"):
        rewriter("refuse")("unreadable star")
    assert rewriter("refuse")("red ball").text == "red"


def test_harm_counts_as_a_fact_where_it_is_not_judged(rewriter: Build) -> None:
    assert rewriter("off")("gory star").problems == ["lost: star"]


def test_a_policy_that_cannot_be_kept_is_refused(rewriter: Build) -> None:
    with pytest.raises(UnknownName, match="did you mean 'refuse'"):
        rewriter("refuze")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="takes a judge, and the profile 'cogvideox-2b' names none"):
        Rewriter("mender", "cogvideox-2b", safety="refuse")


def test_the_command_line_answers_the_queries_that_it_may_and_exits_with_3(
    rewriter: Build, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.BUILT_IN["judge"], "tiny-oracle", "fakes:FakeJudge")  # that of the profile

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["promptreel", "rewrite", *arguments])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        return int(exit.value.code or 0), *capsys.readouterr()

    code, out, err = call("gory star", "red ball", "--safety", "refuse", "--json")
    assert code == 3
    refused, answered = json.loads(out)
    assert answered["rewrites"][0]["text"] == "red"
    assert (refused["query"], refused["rewrites"]) == ("gory star", [])
    assert "'gory star' is refused: gory" in refused["refused"]
    assert "is refused" in err
    code, out, err = call("star gory")
    assert (code, out) == (0, "star\n")
    assert "left out as harmful: gory" in err
