"""Protocol tests of the endpoint client, against a real server on loopback that misbehaves."""

import asyncio
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import fakes
import openai
import pytest
from chat_server import Behaviour, ChatServer

from promptreel.errors import RunError, UserError
from promptreel.execution.writer import Writer
from promptreel.fingerprint import content_id
from promptreel.llms.endpoint import EndpointLLM
from promptreel.store import Run
from promptreel.types import Completion, Component, Failure, Message, SamplingParams

ASK: list[list[Message]] = [[{"role": "user", "content": f"question {n}"}] for n in range(6)]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits of the openai client between tries."""
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(openai._base_client, "MAX_RETRY_DELAY", 0.05)


def client(server: ChatServer, **options: Any) -> EndpointLLM:
    return EndpointLLM("model", server.url, **options)


def test_answers_come_in_order_with_their_costs() -> None:
    with ChatServer(lambda number, body: {"delay": 0.02 * (6 - number)}) as server:
        replies = client(server, price=(2.0, 10.0)).complete(ASK, SamplingParams(0.5, 0.9, 77, seed=3).each(ASK))
    assert [reply.text for reply in replies if isinstance(reply, Completion)] == [f"re: question {n}" for n in range(6)]
    assert replies[0] == Completion("re: question 0", 10, 5, pytest.approx((10 * 2 + 5 * 10) / 1e6))
    sent = server.requests[0]
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"]) == (0.5, 0.9, 77)
    assert len({request["seed"] for request in server.requests}) == 6
    assert server.most_at_once > 1


def test_seeds_are_the_same_every_time() -> None:
    with ChatServer() as server:
        client(server, concurrency=1).complete(ASK, SamplingParams(seed=3).each(ASK))
        client(server, concurrency=1).complete(ASK, SamplingParams(seed=3).each(ASK))
    seeds = [request["seed"] for request in server.requests]
    assert seeds[:6] == seeds[6:]


def test_no_more_requests_than_the_concurrency_are_in_flight() -> None:
    with ChatServer(lambda number, body: {"delay": 0.05}) as server:
        client(server, concurrency=2).complete(ASK, SamplingParams().each(ASK))
    assert server.most_at_once == 2


def test_a_429_is_tried_again_after_the_time_that_the_server_asks_for() -> None:
    refuse = {"status": 429, "headers": {"Retry-After": "0.6"}, "body": '{"error": {"message": "slow down"}}'}
    with ChatServer(lambda number, body: refuse if number == 0 else None) as server:
        (reply,) = client(server).complete(ASK[:1], [SamplingParams()])
    assert isinstance(reply, Completion)
    assert server.times[1] - server.times[0] >= 0.55


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_transient_faults_are_tried_again_and_lasting_ones_are_failures(status: int) -> None:
    with ChatServer(lambda number, body: {"status": status, "body": "oops"} if number < 2 else None) as server:
        (reply,) = client(server).complete(ASK[:1], [SamplingParams()])
    assert isinstance(reply, Completion)
    with ChatServer(lambda number, body: {"status": status, "body": "oops"}) as server:
        (failure,) = client(server, retries=2).complete(ASK[:1], [SamplingParams()])
        assert len(server.requests) == 3
    assert isinstance(failure, Failure)
    assert failure.reason == f"status {status}"


def test_a_slow_server_is_given_up_at_the_deadline() -> None:
    with ChatServer(lambda number, body: {"delay": 3}) as server:
        (failure,) = client(server, timeout=0.2, retries=50, deadline=0.7).complete(ASK[:1], [SamplingParams()])
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
def test_a_malformed_answer_is_asked_for_again_and_then_a_failure(how: dict[str, Any]) -> None:
    with ChatServer(lambda number, body: how if number == 0 else None) as server:
        (reply,) = client(server).complete(ASK[:1], [SamplingParams()])
        assert isinstance(reply, Completion), reply
        assert server.requests[0]["seed"] != server.requests[1]["seed"]
    with ChatServer(lambda number, body: how) as server:
        (failure,) = client(server, attempts=2).complete(ASK[:1], [SamplingParams()])
        assert len(server.requests) == 2
    assert isinstance(failure, Failure)
    assert failure.reason == "malformed"


def test_a_truncated_response_is_asked_for_again() -> None:
    with ChatServer(lambda number, body: {"cut": 40} if number == 0 else None) as server:
        (reply,) = client(server).complete(ASK[:1], [SamplingParams()])
    assert isinstance(reply, Completion)


def test_answers_to_a_schema_are_checked_for_json() -> None:
    schema = json.dumps({"type": "object"})
    answers = ['{"a": 1', "plain", '{"a": 1}']
    with ChatServer(lambda number, body: {"content": answers[min(number, 2)]}) as server:
        (reply,) = client(server).complete(ASK[:1], [SamplingParams(schema=schema)])
    assert isinstance(reply, Completion)
    assert json.loads(reply.text) == {"a": 1}
    assert server.requests[0]["response_format"]["json_schema"]["schema"] == {"type": "object"}


@pytest.mark.parametrize("how", [{"refusal": "I cannot"}, {"content": None, "finish": "content_filter"}], ids=str)
def test_a_refusal_is_a_failure_and_not_asked_for_again(how: dict[str, Any]) -> None:
    with ChatServer(lambda number, body: how) as server:
        (failure,) = client(server).complete(ASK[:1], [SamplingParams()])
        assert len(server.requests) == 1
    assert isinstance(failure, Failure)
    assert failure.reason == "refusal"


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_url_or_model_raises_at_once_without_telling_the_key(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    body = '{"error": {"message": "no such thing"}}'
    with ChatServer(lambda number, asked: {"status": status, "body": body}) as server:
        with pytest.raises(RunError, match="no such thing") as caught:
            client(server, key="MY_KEY").complete(ASK[:1], [SamplingParams()])
        assert server.headers[0]["authorization"] == "Bearer sk-very-secret"
    assert "secret" not in str(caught.value)


def refusing(*names: str, words: str) -> Behaviour:
    """Return the behaviour of a server that refuses requests with these parameters, and names the first of them."""

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
def test_a_parameter_that_a_model_refuses_by_name_is_left_out_from_then_on(
    words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ChatServer(refusing("temperature", "top_p", "seed", "max_completion_tokens", words=words)) as server:
        llm = client(server, concurrency=3)
        replies = llm.complete(ASK, SamplingParams(0.2, 0.9, 77).each(ASK))
        before = len(server.requests)
        again = llm.complete(ASK, SamplingParams(0.2, 0.9, 77).each(ASK))
    for found in (replies, again):
        assert [reply.text for reply in found if isinstance(reply, Completion)] == [
            f"re: question {n}" for n in range(6)
        ]
    assert len(server.requests) == before + 6  # no refusal is met twice
    last = server.requests[-1]
    assert last.keys() == {"model", "messages", "max_tokens"}
    assert last["max_tokens"] == 77
    assert len(caplog.messages) == 4
    assert caplog.messages[0] == "model takes no temperature: it is left out, and the server decides"
    assert llm.fingerprint == client(server).fingerprint


def test_a_request_refused_for_another_reason_is_a_failure_and_leaves_nothing_out() -> None:
    """Also if names of parameters appear in the server's message."""
    said = [
        '{"error": {"message": "Invalid \'temperature\': above 2.", "param": "temperature", "code": "above_max"}}',
        '{"error": {"message": "Unsupported value", "param": "messages", "code": "unsupported_value"}}',
        '{"detail": [{"type": "value_error", "loc": ["body", "seed"], "input": {"temperature": 1}}]}',
    ]
    with ChatServer(lambda number, body: {"status": 400, "body": said[number % 3]}) as server:
        llm = client(server, concurrency=1)
        replies = llm.complete(ASK, SamplingParams().each(ASK))
    assert {reply.reason for reply in replies if isinstance(reply, Failure)} == {"refused request"}
    assert len(server.requests) == 6
    assert {"temperature", "top_p", "seed", "max_completion_tokens"} <= server.requests[-1].keys()


def test_a_parameter_among_the_options_is_never_left_out() -> None:
    with ChatServer(refusing("temperature", words=OPENAI)) as server:
        (failure,) = client(server, options={"temperature": 0.3}).complete(ASK[:1], [SamplingParams()])
    assert isinstance(failure, Failure)
    assert (failure.reason, "temperature" in failure.detail) == ("refused request", True)
    assert len(server.requests) == 1


def test_a_missing_key_names_the_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        EndpointLLM("gpt-9").complete(ASK[:1], [SamplingParams()])


def test_a_refused_connection_is_a_failure() -> None:
    with ChatServer() as server:
        url = server.url
    (failure,) = EndpointLLM("model", url, retries=1).complete(ASK[:1], [SamplingParams()])
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
        (failure,) = client(server, attempts=1).complete(ASK[:1], [SamplingParams()])
    assert isinstance(failure, Failure)
    assert failure.reason == "malformed"


@pytest.mark.parametrize("usage", ["{}", "null", '{"prompt_tokens": null, "completion_tokens": null}'])
def test_missing_usage_counts_as_no_tokens(usage: str) -> None:
    body = '{"choices": [{"message": {"content": "hi"}}], "usage": USAGE}'.replace("USAGE", usage)
    with ChatServer(lambda number, asked: {"body": body}) as server:
        assert client(server, price=(1.0, 1.0)).complete(ASK[:1], [SamplingParams()]) == [Completion("hi")]


def test_a_reply_with_half_a_surrogate_pair_can_be_stored() -> None:
    body = r'{"choices": [{"message": {"content": "a \ud800 cat \ud83d\udc31"}}]}'
    with ChatServer(lambda number, asked: {"body": body}) as server:
        (reply,) = client(server).complete(ASK[:1], [SamplingParams()])
    assert isinstance(reply, Completion)
    assert reply.text == "a \ufffd cat 🐱"
    assert content_id(reply.text)


@pytest.mark.parametrize("content", ["[" * 100_000, "9" * 5000, '{"a": 1, "a": 2}'], ids=range(3))
def test_json_that_breaks_parsers_is_malformed(content: str) -> None:
    with ChatServer(lambda number, asked: {"content": content}) as server:
        (failure,) = client(server, attempts=1).complete(ASK[:1], [SamplingParams(schema='{"type": "object"}')])
    assert isinstance(failure, Failure)
    assert failure.reason == "malformed"


def test_usage_and_cost_cover_all_attempts() -> None:
    price = (2.0, 10.0)
    once = (10 * 2 + 5 * 10) / 1e6
    with ChatServer(lambda number, asked: {"finish": "length"} if number < 2 else None) as server:
        (reply,) = client(server, price=price).complete(ASK[:1], [SamplingParams()])
    assert reply == Completion("re: question 0", 30, 15, pytest.approx(3 * once))
    with ChatServer(lambda number, asked: {"finish": "length"} if number < 2 else {"refusal": "no"}) as server:
        (refused,) = client(server, price=price).complete(ASK[:1], [SamplingParams()])
        (failure,) = client(server, price=price, attempts=1).complete(ASK[:1], [SamplingParams()])
    assert refused == Failure("refusal", "no", 30, 15, pytest.approx(3 * once))
    assert failure == Failure("refusal", "no", 10, 5, pytest.approx(once))
    with ChatServer(lambda number, asked: {"finish": "length"}) as server:
        (cut,) = client(server, price=price, attempts=2).complete(ASK[:1], [SamplingParams()])
    assert cut == Failure("malformed", "cut off at the token limit", 20, 10, pytest.approx(2 * once))


DEEPSEEK = '{"error": {"message": "This response_format type is unavailable now", "type": "invalid_request_error"}}'
OLD_GPT = '{"error": {"message": "Invalid parameter: \'response_format\' of type \'json_schema\' is not supported."}}'


@pytest.mark.parametrize("words", [DEEPSEEK, OLD_GPT])
@pytest.mark.parametrize("taken", ["json_object", None])
def test_a_server_without_schemas_is_asked_for_json_and_at_last_for_any_text(
    words: str, taken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(number: int, body: dict[str, Any]) -> dict[str, Any]:
        asked = body.get("response_format", {}).get("type")
        return (
            {"content": "```json\n{}\n```" if not asked else "{}"} if asked == taken else {"status": 400, "body": words}
        )

    sampling = SamplingParams(schema='{"type": "object"}')
    with ChatServer(behave) as server:
        llm = client(server, concurrency=3)
        replies = llm.complete(ASK, sampling.each(ASK))
        before = len(server.requests)
        replies += llm.complete(ASK, sampling.each(ASK))
    assert {reply.text for reply in replies if isinstance(reply, Completion)} == {"{}" if taken else "```json\n{}\n```"}
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
def test_a_parameter_refused_in_other_words_is_left_out_too(words: str) -> None:
    with ChatServer(refusing("seed", words=words)) as server:
        (reply,) = client(server).complete(ASK[:1], [SamplingParams()])
    assert isinstance(reply, Completion)
    assert "seed" not in server.requests[-1]


def test_it_works_inside_a_running_event_loop() -> None:
    async def notebook(llm: EndpointLLM) -> list[Completion | Failure]:
        return llm.complete(ASK, SamplingParams().each(ASK))

    with ChatServer() as server:
        replies = asyncio.run(notebook(client(server)))
    assert [reply.text for reply in replies if isinstance(reply, Completion)] == [f"re: question {n}" for n in range(6)]


def test_requests_keep_to_the_rate_limit() -> None:
    """A busy machine may delay a request, but none comes too early."""
    with ChatServer() as server:
        began = time.monotonic()
        client(server, requests_per_minute=600).complete(ASK, SamplingParams().each(ASK))
    for number, came in enumerate(sorted(server.times)):
        assert came - began >= 0.1 * number


def test_the_token_limit_holds_across_calls_and_clients_of_a_model() -> None:
    """Two clients of one model, in turns: 6,000 tokens a minute are 100 a second, and a request takes about 52."""
    with ChatServer() as server:
        clients = [client(server, tokens_per_minute=6000) for _ in range(2)]
        began = time.monotonic()
        for each in clients * 2:
            each.complete(ASK[:1], [SamplingParams(max_tokens=50)])
    for number, came in enumerate(sorted(server.times)):
        assert came - began >= 0.5 * number


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
def test_under_many_faults_every_question_has_its_own_answer_or_a_failure(
    proposals: int, least: int, tmp_path: Path
) -> None:
    """30 % of the requests fail, in every way. The rate limit is kept, and no question is sent again once stored."""
    dice = random.Random(0)
    plan = [dice.choice(list(WAYS)) if dice.random() < 0.3 else None for _ in range(5000)]
    asked: list[list[Message]] = [[{"role": "user", "content": f"question {n}"}] for n in range(proposals)]
    rate = 15_000
    with ChatServer(lambda number, body: WAYS.get(plan[number] or "")) as server, Run(tmp_path / "run") as run:
        options = {
            "model": "model", "url": server.url, "concurrency": 64, "requests_per_minute": rate, "timeout": 2.0,
        }  # fmt: skip
        writer = Writer(Component("llm", "endpoint", options), batch_size=500)
        step = fakes.step(run, "evolve/1")
        began = time.monotonic()
        results = step.complete(writer, asked)
        given = Counter(plan[: len(server.requests)])
        assert step.complete(writer, asked) == results
    assert len(results) == proposals
    texts = {number: result.text for number, result in enumerate(results) if isinstance(result, Completion)}
    assert all(text == f"re: question {number}" for number, text in texts.items())
    failures = Counter(result.reason for result in results if isinstance(result, Failure))
    assert all(0 < failures[reason] <= given[reason] for reason in ("refusal", "refused request"))
    assert failures.keys() <= {
        "refusal",
        "refused request",
        "malformed",
        "connection",
        "timeout",
        "status 429",
        "status 500",
    }
    assert failures.total() <= given["refusal"] + given["refused request"] + 20  # others are tried again
    assert sum(given.values()) == len(server.requests) > 1.2 * proposals
    assert min(given[way] for way in WAYS) > least
    for number, came in enumerate(sorted(server.times)):
        assert came - began >= 0.999 * number * 60 / rate
