"""Endpoints: malformed URLs and keys are refused, and no message contains a secret."""

import base64
import json
import traceback
from pathlib import Path
from typing import Any

import fakes
import openai
import pytest
from chat_server import ChatServer

from promptreel.errors import RunError, UserError
from promptreel.execution.writer import Writer
from promptreel.faults import raise_if_unanswered
from promptreel.judges.guards import GuardModel
from promptreel.judges.llm import LLMJudge
from promptreel.judges.moderation import Moderation
from promptreel.llms.endpoint import EndpointLLM
from promptreel.protocols import Judge
from promptreel.store import Run
from promptreel.types import Candidate, Completion, Component, Failure, Message, Query, SamplingParams

ASK: list[list[Message]] = [[{"role": "user", "content": "question"}]]


@pytest.mark.parametrize(
    "url",
    ["http://[::1/v1", "http://host:99999/v1", "http://host:port/v1", "ftp://host/v1", "host/v1", "http://", "", 7, "http://a\nb"],
)  # fmt: skip
def test_a_malformed_url_is_the_users_error(url: Any) -> None:
    with pytest.raises(UserError, match="no URL of a server"):
        EndpointLLM("model", url)


SECRET = "sk-very-secret"
BASIC = base64.b64encode(b"user:hunter2").decode()


def test_a_key_is_sent_without_the_line_end_that_it_was_copied_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {SECRET}\r\n")
    with ChatServer() as server:
        assert isinstance(
            EndpointLLM("model", server.url, key="MY_KEY").complete(ASK, [SamplingParams()])[0], Completion
        )
        assert server.headers[0]["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("key", ["sk-verý-secret", "sk-very\r\nsecret", "sk-very\x00secret"])
def test_a_key_that_cannot_be_sent_is_the_users_error(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"MY_KEY": key})
    with ChatServer() as server, pytest.raises(UserError, match="MY_KEY") as caught:
        EndpointLLM("model", server.url, key="MY_KEY").complete(ASK, [SamplingParams()])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 418, 500, 200])
def test_no_secret_that_a_server_repeats_gets_out(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    message = f"Bearer {SECRET}, Basic {BASIC} of http://user:hunter2@host and hunter2" + " x" * 400
    body = json.dumps({"error": {"message": message}})
    if status == 200:
        body = json.dumps({"choices": [{"message": {"content": None, "refusal": message}}]})
    with ChatServer(lambda number, asked: {"status": status, "body": body}) as server:
        llm = EndpointLLM("model", server.url.replace("//", "//user:hunter2@"), key="MY_KEY", retries=0)
        try:
            (failure,) = llm.complete(ASK, [SamplingParams()])
        except RunError as error:
            assert status == 401
            failure = Failure("", "".join(traceback.format_exception(error)))
    assert isinstance(failure, Failure)
    assert failure.detail.count("***") >= 4
    for secret in (SECRET, BASIC, "hunter2"):
        assert secret not in failure.detail
    assert status == 401 or len(failure.detail) <= 300


def test_the_user_and_password_in_a_url_do_not_change_the_fingerprint() -> None:
    with ChatServer() as server:
        llm = EndpointLLM("model", server.url.replace("//", "//user:hunter2@"), options={"extra_headers": {"x": "1"}})
        assert llm.fingerprint == EndpointLLM("model", server.url).fingerprint
        assert llm.endpoint.place == server.url
        assert isinstance(llm.complete(ASK, [SamplingParams()])[0], Completion)
        assert f"Basic {BASIC}" in server.headers[0].values()
    (failure,) = EndpointLLM("model", server.url.replace("//", "//user:hunter2@"), retries=0).complete(
        ASK, [SamplingParams()]
    )
    assert "hunter2" not in str(failure)
    with pytest.raises(UserError, match=r"\*\*\*@") as caught:
        EndpointLLM("model", "http://user:hun/ter2@host/v1")
    assert "ter2" not in str(caught.value)


def test_an_outage_stores_nothing_so_that_the_run_can_go_on(tmp_path: Path) -> None:
    """The same requests give the same completions afterwards as without an outage."""
    asked: list[list[Message]] = [[{"role": "user", "content": f"question {n}"}] for n in range(5)]
    away = [True]
    with (
        ChatServer(lambda number, body: {"status": 503, "body": "{}"} if away[0] else None) as server,
        Run(tmp_path) as run,
    ):
        options = {"model": "model", "url": server.url, "retries": 0}
        writer, step = Writer(Component("llm", "endpoint", options)), fakes.step(run, "evolve/1")
        with pytest.raises(RunError, match=r"nobody answers \(status 503 .*the same command goes on"):
            step.complete(writer, asked)
        away[0] = False
        completions = step.complete(writer, asked)
    assert [c.text for c in completions if isinstance(c, Completion)] == [f"re: question {n}" for n in range(5)]


def test_an_outage_of_a_judge_raises_instead_of_giving_no_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.05)
    candidate = Candidate(Query("a red ball"), "A red ball.")
    with ChatServer(lambda number, body: {"status": 503, "body": "{}"}) as server:
        llm = EndpointLLM("model", server.url, retries=0)
        judges: list[Judge] = [LLMJudge(llm), GuardModel(llm)]
        for judge in judges:
            with pytest.raises(RunError, match="nobody answers"):
                judge.judge([candidate, candidate])
        with pytest.raises(RunError, match="nobody answers"):
            Moderation(url=server.url).judge([candidate])


def test_a_single_failure_among_completions_is_no_outage() -> None:
    raise_if_unanswered([])
    raise_if_unanswered([Failure("timeout"), Completion("a ball")])
    raise_if_unanswered([Failure("malformed"), Failure("refused request")])
    with pytest.raises(RunError, match=r"nobody answers \(timeout 9 s\)"):
        raise_if_unanswered([Failure("timeout", "9 s"), Failure("connection")])
