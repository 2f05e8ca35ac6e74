"""The endpoint client against a real server on loopback that speaks the protocol and misbehaves: protocol tests."""

import json
import random
from typing import Any

import openai
import pytest
from chat_server import ChatServer

from promptreel.errors import RunError, UserError
from promptreel.llms.endpoint import EndpointLLM
from promptreel.types import Failure, Message, Reply, Sampling

ASK: list[list[Message]] = [[{"role": "user", "content": f"question {n}"}] for n in range(6)]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries are the client's; here they are short."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.05)


def client(server: ChatServer, **options: Any) -> EndpointLLM:
    return EndpointLLM("model", server.url, **options)


def test_answers_come_in_order_with_what_they_cost() -> None:
    with ChatServer(lambda number, body: {"delay": 0.02 * (6 - number)}) as server:
        replies = client(server, price=(2.0, 10.0)).complete(ASK, Sampling(0.5, 0.9, 77, seed=3))
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [f"re: question {n}" for n in range(6)]
    assert replies[0] == Reply("re: question 0", 10, 5, pytest.approx((10 * 2 + 5 * 10) / 1e6))
    sent = server.requests[0]
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"]) == (0.5, 0.9, 77)
    assert len({request["seed"] for request in server.requests}) == 6
    assert server.most_at_once > 1


def test_seeds_are_the_same_every_time() -> None:
    with ChatServer() as server:
        client(server, concurrency=1).complete(ASK, Sampling(seed=3))
        client(server, concurrency=1).complete(ASK, Sampling(seed=3))
    seeds = [request["seed"] for request in server.requests]
    assert seeds[:6] == seeds[6:]


def test_concurrency_is_kept() -> None:
    with ChatServer(lambda number, body: {"delay": 0.05}) as server:
        client(server, concurrency=2).complete(ASK, Sampling())
    assert server.most_at_once == 2


def test_429_is_tried_again_when_the_server_says() -> None:
    refuse = {"status": 429, "headers": {"Retry-After": "0.6"}, "body": '{"error": {"message": "slow down"}}'}
    with ChatServer(lambda number, body: refuse if number == 0 else None) as server:
        (reply,) = client(server).complete(ASK[:1], Sampling())
    assert isinstance(reply, Reply)
    assert server.times[1] - server.times[0] >= 0.55


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_passing_faults_are_tried_again_and_lasting_ones_are_counted(status: int) -> None:
    with ChatServer(lambda number, body: {"status": status, "body": "oops"} if number < 2 else None) as server:
        (reply,) = client(server).complete(ASK[:1], Sampling())
    assert isinstance(reply, Reply)
    with ChatServer(lambda number, body: {"status": status, "body": "oops"}) as server:
        (failure,) = client(server, retries=2).complete(ASK[:1], Sampling())
        assert len(server.requests) == 3
    assert isinstance(failure, Failure)
    assert failure.reason == f"status {status}"


def test_a_slow_server_is_given_up_at_the_deadline() -> None:
    with ChatServer(lambda number, body: {"delay": 3}) as server:
        (failure,) = client(server, timeout=0.2, retries=50, deadline=0.7).complete(ASK[:1], Sampling())
    assert isinstance(failure, Failure)
    assert failure.reason == "timeout"


@pytest.mark.parametrize(
    "how",
    [
        {"body": "not json"},
        {"body": "[]"},
        {"body": "null"},
        {"body": "{}"},
        {"body": '{"choices": []}'},
        {"body": '{"choices": [{}]}'},
        {"body": '{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'},
        {"content": "   "},
        {"content": ""},
        {"body": "<html>gateway</html>"},
    ],
    ids=str,
)
def test_a_malformed_answer_is_asked_for_again_and_then_counted(how: dict[str, Any]) -> None:
    with ChatServer(lambda number, body: how if number == 0 else None) as server:
        (reply,) = client(server).complete(ASK[:1], Sampling())
        assert isinstance(reply, Reply), reply
        assert server.requests[0]["seed"] != server.requests[1]["seed"]
    with ChatServer(lambda number, body: how) as server:
        (failure,) = client(server, attempts=2).complete(ASK[:1], Sampling())
        assert len(server.requests) == 2
    assert isinstance(failure, Failure)
    assert failure.reason == "malformed"


def test_a_truncated_answer_is_not_half_an_answer() -> None:
    with ChatServer(lambda number, body: {"cut": 40} if number == 0 else None) as server:
        (reply,) = client(server).complete(ASK[:1], Sampling())
    assert isinstance(reply, Reply)


def test_structured_answers_are_asked_for_and_checked() -> None:
    schema = json.dumps({"type": "object"})
    answers = ['{"a": 1', "plain", '{"a": 1}']
    with ChatServer(lambda number, body: {"content": answers[min(number, 2)]}) as server:
        (reply,) = client(server).complete(ASK[:1], Sampling(schema=schema))
    assert isinstance(reply, Reply)
    assert json.loads(reply.text) == {"a": 1}
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize("how", [{"refusal": "I cannot"}, {"content": None, "finish": "content_filter"}], ids=str)
def test_a_refusal_is_counted_as_one_and_not_argued_with(how: dict[str, Any]) -> None:
    with ChatServer(lambda number, body: how) as server:
        (failure,) = client(server).complete(ASK[:1], Sampling())
        assert len(server.requests) == 1
    assert isinstance(failure, Failure)
    assert failure.reason == "refusal"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_can_never_succeed_stops_at_once_without_telling_the_key(status: int, monkeypatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    body = '{"error": {"message": "no such thing"}}'
    with ChatServer(lambda number, asked: {"status": status, "body": body}) as server:
        with pytest.raises(RunError, match="no such thing") as caught:
            client(server, key="MY_KEY").complete(ASK[:1], Sampling())
        assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert "secret" not in str(caught.value)


def test_a_missing_key_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        EndpointLLM("gpt-9").complete(ASK[:1], Sampling())


def test_nobody_at_home_is_a_failure() -> None:
    with ChatServer() as server:
        url = server.url
    (failure,) = EndpointLLM("model", url, retries=1).complete(ASK[:1], Sampling())
    assert isinstance(failure, Failure)
    assert failure.reason == "connection"


def test_request_rates_are_kept() -> None:
    with ChatServer() as server:
        client(server, requests_per_minute=600).complete(ASK, Sampling())
    gaps = [b - a for a, b in zip(sorted(server.times), sorted(server.times)[1:], strict=False)]
    assert min(gaps) > 0.05  # 0.1 s apart, but for jitter
    assert max(server.times) - min(server.times) >= 0.45


def test_under_many_faults_every_question_is_answered_or_counted() -> None:
    """30 % of a thousand requests fail in every way; nothing is lost, nothing mixed up, the rate is kept."""
    ways: list[dict[str, Any]] = [
        {"status": 500, "body": "oops"},
        {"status": 429, "headers": {"Retry-After": "0.02"}, "body": "{}"},
        {"body": "not json"},
        {"content": ""},
        {"cut": 30},
        {"refusal": "no"},
        {"status": 400, "body": '{"error": {"message": "bad"}}'},
    ]
    dice = random.Random(0)
    plan = [dice.choice(ways) if dice.random() < 0.3 else None for _ in range(5000)]
    asked: list[list[Message]] = [[{"role": "user", "content": f"question {n}"}] for n in range(1000)]
    with ChatServer(lambda number, body: plan[number]) as server:
        options = {"concurrency": 32, "requests_per_minute": 30_000}
        replies = client(server, **options).complete(asked, Sampling())
        seconds = max(server.times) - min(server.times)
    assert len(replies) == 1000
    for number, reply in enumerate(replies):
        if isinstance(reply, Reply):
            assert reply.text == f"re: question {number}"
        else:
            assert reply.reason in ("refusal", "refused request", "malformed", "connection", "status 429")
    answered = sum(isinstance(reply, Reply) for reply in replies)
    assert answered >= 850
    assert 1000 / seconds <= 30_000 / 60 * 1.1
