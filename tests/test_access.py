"""How endpoints are reached: URLs that can be, keys that can be sent, and no secret in anything that is said."""

import base64
import json
import traceback
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import ChatServer

from promptreel.access import check_answered
from promptreel.desk import Desk, Writer
from promptreel.engine.local import LocalEngine
from promptreel.errors import RunError, UserError
from promptreel.llms.endpoint import EndpointLLM
from promptreel.protocols import Judge
from promptreel.rewards.safety import GuardModel, Moderation
from promptreel.rewards.text import LLMJudge
from promptreel.store import Run
from promptreel.types import Component, Failure, Message, Query, Reply, Sampling

ASK: list[list[Message]] = [[{"role": "user", "content": "question"}]]


@pytest.mark.parametrize(
    "url",
    ["http://[::1/v1", "http://host:99999/v1", "http://host:port/v1", "ftp://host/v1", "host/v1", "http://", "", 7, "http://a\nb"],
)  # fmt: skip
def test_a_url_at_which_nothing_can_be_is_the_users_error(url: Any) -> None:
    with pytest.raises(UserError, match="no URL of a server"):
        EndpointLLM("model", url)


SECRET = "sk-very-secret"
BASIC = base64.b64encode(b"user:hunter2").decode()


def test_a_key_is_sent_without_the_line_end_that_it_was_copied_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {SECRET}\r\n")
    with ChatServer() as server:
        assert isinstance(EndpointLLM("model", server.url, key="MY_KEY").complete(ASK, [Sampling()])[0], Reply)
        assert server.headers[0]["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("key", ["sk-verý-secret", "sk-very\r\nsecret", "sk-very\x00secret"])
def test_a_key_that_cannot_be_sent_is_the_users_error(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"MY_KEY": key})
    with ChatServer() as server, pytest.raises(UserError, match="MY_KEY") as caught:
        EndpointLLM("model", server.url, key="MY_KEY").complete(ASK, [Sampling()])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [400, 401, 418, 500, 200])
def test_no_secret_gets_out_whoever_repeats_it(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", SECRET)
    told = f"Bearer {SECRET}, Basic {BASIC} of http://user:hunter2@host and hunter2" + " x" * 400
    body = json.dumps({"error": {"message": told}})
    if status == 200:
        body = json.dumps({"choices": [{"message": {"content": None, "refusal": told}}]})
    with ChatServer(lambda number, asked: {"status": status, "body": body}) as server:
        llm = EndpointLLM("model", server.url.replace("//", "//user:hunter2@"), key="MY_KEY", retries=0)
        try:
            (failure,) = llm.complete(ASK, [Sampling()])
        except RunError as error:
            assert status == 401
            failure = Failure("", "".join(traceback.format_exception(error)))
    assert isinstance(failure, Failure)
    assert failure.detail.count("***") >= 4
    for secret in (SECRET, BASIC, "hunter2"):
        assert secret not in failure.detail
    assert status == 401 or len(failure.detail) <= 300


def test_a_url_with_a_name_and_password_is_the_same_server_whoever_asks() -> None:
    with ChatServer() as server:
        llm = EndpointLLM("model", server.url.replace("//", "//user:hunter2@"), options={"extra_headers": {"x": "1"}})
        assert llm.fingerprint == EndpointLLM("model", server.url).fingerprint
        assert llm.access.place == server.url
        assert isinstance(llm.complete(ASK, [Sampling()])[0], Reply)
        assert f"Basic {BASIC}" in server.headers[0].values()
    (failure,) = EndpointLLM("model", server.url.replace("//", "//user:hunter2@"), retries=0).complete(
        ASK, [Sampling()]
    )
    assert "hunter2" not in str(failure)
    with pytest.raises(UserError, match=r"\*\*\*@") as caught:
        EndpointLLM("model", "http://user:hun/ter2@host/v1")
    assert "ter2" not in str(caught.value)


def test_a_server_that_is_away_leaves_nothing_behind(tmp_path: Path) -> None:
    """What an outage cut off is asked for when the run goes on, and comes out as if nothing had been."""
    asked: list[list[Message]] = [[{"role": "user", "content": f"question {n}"}] for n in range(5)]
    away = [True]
    with (
        ChatServer(lambda number, body: {"status": 503, "body": "{}"} if away[0] else None) as server,
        Run(tmp_path) as run,
    ):
        options = {"model": "model", "url": server.url, "retries": 0}
        writer, desk = Writer(Component("llm", "endpoint", options)), Desk(run.database, LocalEngine())
        with pytest.raises(RunError, match=r"nobody answers \(status 503 .*the same command goes on"):
            desk.rewrites(writer, asked, "evolve/1")
        away[0] = False
        assert desk.rewrites(writer, asked, "evolve/1") == [f"re: question {n}" for n in range(5)]


def test_a_judge_that_is_away_gives_no_verdicts_to_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.05)
    item = (Query("a red ball"), "A red ball.")
    with ChatServer(lambda number, body: {"status": 503, "body": "{}"}) as server:
        llm = EndpointLLM("model", server.url, retries=0)
        judges: list[Judge] = [LLMJudge(llm), GuardModel(llm)]
        for judge in judges:
            with pytest.raises(RunError, match="nobody answers"):
                judge.judge([item, item])
        with pytest.raises(RunError, match="nobody answers"):
            Moderation(url=server.url).judge([item])


def test_one_question_of_many_without_an_answer_is_a_loss_and_no_outage() -> None:
    check_answered([])
    check_answered([Failure("timeout"), Reply("a ball")])
    check_answered([Failure("malformed"), Failure("refused request")])
    with pytest.raises(RunError, match=r"nobody answers \(timeout 9 s\)"):
        check_answered([Failure("timeout", "9 s"), Failure("connection")])
