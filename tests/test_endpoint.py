"""The endpoint client against a real server on loopback that speaks the protocol and misbehaves: protocol tests."""

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import Behaviour, ChatServer

from promptreel.desk import Desk, Writer
from promptreel.engine.local import LocalEngine
from promptreel.errors import RunError, UserError
from promptreel.llms.endpoint import EndpointLLM
from promptreel.store import Database
from promptreel.types import Component, Failure, Message, Reply, Sampling, content_id

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
        replies = client(server, price=(2.0, 10.0)).complete(ASK, Sampling(0.5, 0.9, 77, seed=3).each(ASK))
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [f"re: question {n}" for n in range(6)]
    assert replies[0] == Reply("re: question 0", 10, 5, pytest.approx((10 * 2 + 5 * 10) / 1e6))
    sent = server.requests[0]
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"]) == (0.5, 0.9, 77)
    assert len({request["seed"] for request in server.requests}) == 6
    assert server.most_at_once > 1


def test_seeds_are_the_same_every_time() -> None:
    with ChatServer() as server:
        client(server, concurrency=1).complete(ASK, Sampling(seed=3).each(ASK))
        client(server, concurrency=1).complete(ASK, Sampling(seed=3).each(ASK))
    seeds = [request["seed"] for request in server.requests]
    assert seeds[:6] == seeds[6:]


def test_concurrency_is_kept() -> None:
    with ChatServer(lambda number, body: {"delay": 0.05}) as server:
        client(server, concurrency=2).complete(ASK, Sampling().each(ASK))
    assert server.most_at_once == 2


def test_429_is_tried_again_when_the_server_says() -> None:
    refuse = {"status": 429, "headers": {"Retry-After": "0.6"}, "body": '{"error": {"message": "slow down"}}'}
    with ChatServer(lambda number, body: refuse if number == 0 else None) as server:
        (reply,) = client(server).complete(ASK[:1], [Sampling()])
    assert isinstance(reply, Reply)
    assert server.times[1] - server.times[0] >= 0.55


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_passing_faults_are_tried_again_and_lasting_ones_are_counted(status: int) -> None:
    with ChatServer(lambda number, body: {"status": status, "body": "oops"} if number < 2 else None) as server:
        (reply,) = client(server).complete(ASK[:1], [Sampling()])
    assert isinstance(reply, Reply)
    with ChatServer(lambda number, body: {"status": status, "body": "oops"}) as server:
        (failure,) = client(server, retries=2).complete(ASK[:1], [Sampling()])
        assert len(server.requests) == 3
    assert isinstance(failure, Failure)
    assert failure.reason == f"status {status}"


def test_a_slow_server_is_given_up_at_the_deadline() -> None:
    with ChatServer(lambda number, body: {"delay": 3}) as server:
        (failure,) = client(server, timeout=0.2, retries=50, deadline=0.7).complete(ASK[:1], [Sampling()])
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
        (reply,) = client(server).complete(ASK[:1], [Sampling()])
        assert isinstance(reply, Reply), reply
        assert server.requests[0]["seed"] != server.requests[1]["seed"]
    with ChatServer(lambda number, body: how) as server:
        (failure,) = client(server, attempts=2).complete(ASK[:1], [Sampling()])
        assert len(server.requests) == 2
    assert isinstance(failure, Failure)
    assert failure.reason == "malformed"


def test_a_truncated_answer_is_not_half_an_answer() -> None:
    with ChatServer(lambda number, body: {"cut": 40} if number == 0 else None) as server:
        (reply,) = client(server).complete(ASK[:1], [Sampling()])
    assert isinstance(reply, Reply)


def test_structured_answers_are_asked_for_and_checked() -> None:
    schema = json.dumps({"type": "object"})
    answers = ['{"a": 1', "plain", '{"a": 1}']
    with ChatServer(lambda number, body: {"content": answers[min(number, 2)]}) as server:
        (reply,) = client(server).complete(ASK[:1], [Sampling(schema=schema)])
    assert isinstance(reply, Reply)
    assert json.loads(reply.text) == {"a": 1}
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize("how", [{"refusal": "I cannot"}, {"content": None, "finish": "content_filter"}], ids=str)
def test_a_refusal_is_counted_as_one_and_not_argued_with(how: dict[str, Any]) -> None:
    with ChatServer(lambda number, body: how) as server:
        (failure,) = client(server).complete(ASK[:1], [Sampling()])
        assert len(server.requests) == 1
    assert isinstance(failure, Failure)
    assert failure.reason == "refusal"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_can_never_succeed_stops_at_once_without_telling_the_key(status: int, monkeypatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    body = '{"error": {"message": "no such thing"}}'
    with ChatServer(lambda number, asked: {"status": status, "body": body}) as server:
        with pytest.raises(RunError, match="no such thing") as caught:
            client(server, key="MY_KEY").complete(ASK[:1], [Sampling()])
        assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert "secret" not in str(caught.value)


def refusing(*names: str, words: str) -> Behaviour:
    """A server that refuses requests with any of these parameters, the first one by name."""

    def behave(number: int, body: dict[str, Any]) -> dict[str, Any] | None:
        name = next((name for name in names if name in body), None)
        status = 422 if "extra_forbidden" in words else 400
        return name and {"status": status, "body": words.replace("NAME", name)}

    return behave


OPENAI = (
    '{"error": {"message": "Unsupported value: \'NAME\' does not support 0.2 with this model. Only the default (1) '
    'value is supported.", "type": "invalid_request_error", "param": "NAME", "code": "unsupported_value"}}'
)
PROXY = '{"error": {"message": "Unsupported parameter: \'NAME\' is not supported with this model."}}'
MISTRAL = (
    '{"object": "error", "message": {"detail": [{"type": "extra_forbidden", "loc": ["body", "NAME"], "msg": "Extra '
    'inputs are not permitted", "input": 1}]}, "type": "invalid_request_error", "param": null, "code": null}'
)
QUOTED = '{"message": ' + json.dumps('{"detail":[{"type":"extra_forbidden","loc":["body","NAME"]}]}') + "}"


@pytest.mark.parametrize("words", [OPENAI, PROXY, MISTRAL, QUOTED])
def test_what_a_model_refuses_by_name_is_left_out_from_then_on(words: str, caplog: pytest.LogCaptureFixture) -> None:
    with ChatServer(refusing("temperature", "top_p", "seed", "max_completion_tokens", words=words)) as server:
        llm = client(server, concurrency=3)
        replies = llm.complete(ASK, Sampling(0.2, 0.9, 77).each(ASK))
        before = len(server.requests)
        again = llm.complete(ASK, Sampling(0.2, 0.9, 77).each(ASK))
    for found in (replies, again):
        assert [reply.text for reply in found if isinstance(reply, Reply)] == [f"re: question {n}" for n in range(6)]
    assert len(server.requests) == before + 6  # nobody learns it twice
    last = server.requests[-1]
    assert last.keys() == {"model", "messages", "max_tokens"}
    assert last["max_tokens"] == 77
    assert len(caplog.messages) == 4
    assert caplog.messages[0] == "model takes no temperature: it is left out, and the server decides"
    assert llm.fingerprint == client(server).fingerprint


def test_a_request_refused_for_something_else_is_counted_and_changes_nothing() -> None:
    """Also where the words of parameters appear in what the server says."""
    said = [
        '{"error": {"message": "Invalid \'temperature\': above 2.", "param": "temperature", "code": "above_max"}}',
        '{"error": {"message": "Unsupported value", "param": "messages", "code": "unsupported_value"}}',
        '{"detail": [{"type": "value_error", "loc": ["body", "seed"], "input": {"temperature": 1}}]}',
    ]
    with ChatServer(lambda number, body: {"status": 400, "body": said[number % 3]}) as server:
        llm = client(server, concurrency=1)
        replies = llm.complete(ASK, Sampling().each(ASK))
    assert {reply.reason for reply in replies if isinstance(reply, Failure)} == {"refused request"}
    assert len(server.requests) == 6
    assert {"temperature", "top_p", "seed", "max_completion_tokens"} <= server.requests[-1].keys()


def test_what_the_recipe_says_itself_is_never_left_out() -> None:
    with ChatServer(refusing("temperature", words=OPENAI)) as server:
        (failure,) = client(server, options={"temperature": 0.3}).complete(ASK[:1], [Sampling()])
    assert isinstance(failure, Failure)
    assert (failure.reason, "temperature" in failure.detail) == ("refused request", True)
    assert len(server.requests) == 1


def test_a_missing_key_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        EndpointLLM("gpt-9").complete(ASK[:1], [Sampling()])


def test_nobody_at_home_is_a_failure() -> None:
    with ChatServer() as server:
        url = server.url
    (failure,) = EndpointLLM("model", url, retries=1).complete(ASK[:1], [Sampling()])
    assert isinstance(failure, Failure)
    assert failure.reason == "connection"


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": [{"message": "hi", "finish_reason": "stop"}]}',
        '{"choices": {"0": {"message": {"content": "hi"}}}}',
        '{"choices": [{"message": {"content": ["hi"]}}]}',
        '{"choices": [{"message": {"content": "hi"}}], "usage": "much"}',
        '{"choices": [{"message": {"content": "hi", "content": "ho"}}]}',
        '{"choices": [{"message": {"content": "hi"}}, ' + "[" * 100_000,
        "9" * 5000,
    ],
    ids=range(7),
)
def test_a_response_of_another_form_is_malformed(body: str) -> None:
    with ChatServer(lambda number, asked: {"body": body}) as server:
        (failure,) = client(server, attempts=1).complete(ASK[:1], [Sampling()])
    assert isinstance(failure, Failure)
    assert failure.reason == "malformed"


@pytest.mark.parametrize("usage", ["{}", "null", '{"prompt_tokens": null, "completion_tokens": null}'])
def test_what_a_server_does_not_count_counts_as_nothing(usage: str) -> None:
    body = '{"choices": [{"message": {"content": "hi"}}], "usage": USAGE}'.replace("USAGE", usage)
    with ChatServer(lambda number, asked: {"body": body}) as server:
        assert client(server, price=(1.0, 1.0)).complete(ASK[:1], [Sampling()]) == [Reply("hi")]


def test_a_reply_can_be_stored_whatever_it_says() -> None:
    body = r'{"choices": [{"message": {"content": "a \ud800 cat \ud83d\udc31"}}]}'
    with ChatServer(lambda number, asked: {"body": body}) as server:
        (reply,) = client(server).complete(ASK[:1], [Sampling()])
    assert isinstance(reply, Reply)
    assert reply.text == "a \ufffd cat 🐱"
    assert content_id(reply.text)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, '{"a": 1, "a": 2}'], ids=range(3))
def test_a_structured_answer_that_breaks_parsers_is_malformed(content: str) -> None:
    with ChatServer(lambda number, asked: {"content": content}) as server:
        (failure,) = client(server, attempts=1).complete(ASK[:1], [Sampling(schema='{"type": "object"}')])
    assert isinstance(failure, Failure)
    assert failure.reason == "malformed"


def test_what_is_cut_off_is_asked_for_again_and_all_that_was_paid_is_counted() -> None:
    price = (2.0, 10.0)
    once = (10 * 2 + 5 * 10) / 1e6
    with ChatServer(lambda number, asked: {"finish": "length"} if number < 2 else None) as server:
        (reply,) = client(server, price=price).complete(ASK[:1], [Sampling()])
    assert reply == Reply("re: question 0", 30, 15, pytest.approx(3 * once))
    with ChatServer(lambda number, asked: {"finish": "length"} if number < 2 else {"refusal": "no"}) as server:
        (refused,) = client(server, price=price).complete(ASK[:1], [Sampling()])
        (failure,) = client(server, price=price, attempts=1).complete(ASK[:1], [Sampling()])
    assert refused == Failure("refusal", "no", 30, 15, pytest.approx(3 * once))
    assert failure == Failure("refusal", "no", 10, 5, pytest.approx(once))
    with ChatServer(lambda number, asked: {"finish": "length"}) as server:
        (cut,) = client(server, price=price, attempts=2).complete(ASK[:1], [Sampling()])
    assert cut == Failure("malformed", "cut off at the token limit", 20, 10, pytest.approx(2 * once))


DEEPSEEK = '{"error": {"message": "This response_format type is unavailable now", "type": "invalid_request_error"}}'
OLD_GPT = '{"error": {"message": "Invalid parameter: \'response_format\' of type \'json_schema\' is not supported."}}'


@pytest.mark.parametrize("words", [DEEPSEEK, OLD_GPT])
@pytest.mark.parametrize("taken", ["json_object", None])
def test_a_server_without_schemas_is_asked_for_json_and_at_last_just_asked(
    words: str, taken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(number: int, body: dict[str, Any]) -> dict[str, Any]:
        asked = body.get("response_format", {}).get("type")
        return (
            {"content": "```json\n{}\n```" if not asked else "{}"} if asked == taken else {"status": 400, "body": words}
        )

    sampling = Sampling(schema='{"type": "object"}')
    with ChatServer(behave) as server:
        llm = client(server, concurrency=3)
        replies = llm.complete(ASK, sampling.each(ASK))
        before = len(server.requests)
        replies += llm.complete(ASK, sampling.each(ASK))
    assert {reply.text for reply in replies if isinstance(reply, Reply)} == {"{}" if taken else "```json\n{}\n```"}
    assert not any(isinstance(reply, Failure) for reply in replies)
    assert len(server.requests) == before + 6
    assert server.requests[-1].get("response_format") == ({"type": taken} if taken else None)
    assert {"temperature", "top_p", "seed", "max_completion_tokens"} <= server.requests[-1].keys()
    assert caplog.messages == ["model takes no response_format of type json_schema: what it answers is only checked"]


@pytest.mark.parametrize(
    "words",
    [
        '{"detail": "model \'m\' isn\'t supported with NAME"}',
        '{"error": "NAME: unknown field"}',
        '{"message": "Unrecognized request argument supplied: NAME"}',
        '{"error": {"message": "this model does not support the NAME setting"}}',
    ],
)
def test_a_parameter_is_left_out_in_whatever_words_it_is_refused(words: str) -> None:
    with ChatServer(refusing("seed", words=words)) as server:
        (reply,) = client(server).complete(ASK[:1], [Sampling()])
    assert isinstance(reply, Reply)
    assert "seed" not in server.requests[-1]


def test_it_may_be_asked_from_a_running_loop() -> None:
    async def notebook(llm: EndpointLLM) -> list[Reply | Failure]:
        return llm.complete(ASK, Sampling().each(ASK))

    with ChatServer() as server:
        replies = asyncio.run(notebook(client(server)))
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [f"re: question {n}" for n in range(6)]


def test_request_rates_are_kept() -> None:
    """A busy machine may delay a request, but none comes before its turn."""
    with ChatServer() as server:
        began = time.monotonic()
        client(server, requests_per_minute=600).complete(ASK, Sampling().each(ASK))
    for turn, came in enumerate(sorted(server.times)):
        assert came - began >= 0.1 * turn


def test_token_rates_are_kept_from_one_call_to_the_next() -> None:
    """Two askers of one model, in turns: 6,000 tokens a minute are 100 a second, each request may take about 52."""
    with ChatServer() as server:
        askers = [client(server, tokens_per_minute=6000) for _ in range(2)]
        began = time.monotonic()
        for asker in askers * 2:
            asker.complete(ASK[:1], [Sampling(max_tokens=50)])
    for turn, came in enumerate(sorted(server.times)):
        assert came - began >= 0.5 * turn


WAYS: dict[str, dict[str, Any]] = {
    "500": {"status": 500, "body": "oops"},
    "429": {"status": 429, "headers": {"Retry-After": "0.02"}, "body": "{}"},
    "malformed": {"body": "not json"},
    "empty": {"content": ""},
    "truncated": {"cut": 30},
    "slow": {"delay": 2.5},
    "refusal": {"refusal": "no"},
    "refused request": {"status": 400, "body": '{"error": {"message": "bad"}}'},
}


@pytest.mark.parametrize(("proposals", "least"), [(250, 4), pytest.param(1000, 20, marks=pytest.mark.slow)])
def test_under_many_faults_every_proposal_is_answered_or_counted(proposals: int, least: int, tmp_path: Path) -> None:
    """30 % of the requests for so many proposals fail in every way; nothing is lost, nothing mixed up, the rate is
    kept, and asking again asks nobody.
    """
    dice = random.Random(0)
    plan = [dice.choice(list(WAYS)) if dice.random() < 0.3 else None for _ in range(5000)]
    asked: list[list[Message]] = [[{"role": "user", "content": f"question {n}"}] for n in range(proposals)]
    rate = 15_000
    with ChatServer(lambda number, body: WAYS.get(plan[number] or "")) as server:
        options = {
            "model": "model", "url": server.url, "concurrency": 64, "requests_per_minute": rate, "timeout": 2.0,
        }  # fmt: skip
        writer = Writer(Component("llm", "endpoint", options), batch_size=500)
        database = Database(f"sqlite:///{tmp_path / 'run.db'}")
        desk = Desk(database, LocalEngine())
        began = time.monotonic()
        texts = desk.rewrites(writer, asked, "evolve/1")
        given = Counter(plan[: len(server.requests)])
        losses = dict(desk.losses)
        assert desk.rewrites(writer, asked, "evolve/1") == texts
        database.close()
    assert len(texts) == proposals
    assert all(text in (None, f"re: question {number}") for number, text in enumerate(texts))
    assert sum(losses.values()) == texts.count(None)
    assert all(0 < losses[reason] <= given[reason] for reason in ("refusal", "refused request"))
    assert losses.keys() <= {
        "refusal",
        "refused request",
        "malformed",
        "connection",
        "timeout",
        "status 429",
        "status 500",
    }
    assert texts.count(None) <= given["refusal"] + given["refused request"] + 20  # others are tried again
    assert sum(given.values()) == len(server.requests) > 1.2 * proposals
    assert min(given[way] for way in WAYS) > least
    for turn, came in enumerate(sorted(server.times)):
        assert came - began >= 0.999 * turn * 60 / rate
