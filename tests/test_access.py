"""How endpoints are reached: URLs that can be, keys that can be sent, and no secret in anything that is said."""

import base64
import json
import traceback
from typing import Any

import pytest
from chat_server import ChatServer

from promptreel.errors import RunError, UserError
from promptreel.llms.endpoint import EndpointLLM
from promptreel.types import Failure, Message, Reply, Sampling

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
