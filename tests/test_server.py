"""The server as its clients see it: the openai package, curl, and raw requests."""

import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from served import EchoLLM, asked_of, reset, served

from promptreel import registry
from promptreel.server.app import Limits
from promptreel.server.schemas import Answer, Choice
from promptreel.types import Candidate, Fact, Query, Verdict

QUERY = "a corgi surfing at dawn"


@pytest.fixture(scope="module", autouse=True)
def echo() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BUILT_IN["llm"], "local", "served:EchoLLM")
        yield


@pytest.fixture(autouse=True)
def fresh() -> None:
    reset()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    reset()
    with served() as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def user(text: Any) -> list[Any]:
    return [{"role": "user", "content": text}]


def post(
    url: str, body: bytes | dict[str, Any], headers: dict[str, str] | None = None, path: str = "/chat/completions"
) -> tuple[int, dict[str, Any], Any]:
    """Return status, JSON and headers of the answer to a raw request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = urllib.request.Request(url + path, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(sent, timeout=20) as answer:
            return answer.status, json.load(answer), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers


def test_the_openai_client_reads_an_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=user(QUERY))
    (choice,) = answer.choices
    assert asked_of(choice.message.content or "") == QUERY
    assert (choice.finish_reason, choice.message.role, answer.model) == ("stop", "assistant", "echo")
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 9, 16)
    assert answer.system_fingerprint
    assert choice.model_extra
    assert choice.model_extra["promptreel"]["token_limit"] == 512
    assert [model.id for model in client.models.list()] == ["echo"]
    assert client.models.retrieve("echo").owned_by == "promptreel"


def test_the_openai_client_reads_a_stream_that_says_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="echo", messages=user(QUERY), n=2, seed=4)
    texts = ["", ""]
    ends = []
    with client.chat.completions.create(
        model="echo", messages=user(QUERY), n=2, seed=4, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            ends += [choice.finish_reason] if choice.finish_reason else []
    assert texts == [choice.message.content for choice in whole.choices]
    assert ends == ["stop", "stop"]
    assert len(chunks) > 10
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_curl_reads_an_answer_and_a_stream(url: str) -> None:
    command = ["curl", "-sN", f"{url}/chat/completions", "-H", "Content-Type: application/json", "-d"]
    plain = subprocess.run([*command, json.dumps({"messages": user(QUERY)})], capture_output=True, text=True)
    assert asked_of(json.loads(plain.stdout)["choices"][0]["message"]["content"]) == QUERY
    streamed = subprocess.run(
        [*command, json.dumps({"messages": user(QUERY), "stream": True})], capture_output=True, text=True
    )
    *events, last = [line.removeprefix("data: ") for line in streamed.stdout.splitlines() if line]
    assert last == "[DONE]"
    words = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events]
    assert asked_of("".join(words)) == QUERY


def test_only_the_last_user_message_is_rewritten(client: openai.OpenAI) -> None:
    messages: list[Any] = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "a cat"},
        {"role": "assistant", "content": "A tabby cat."},
        {"role": "user", "content": [{"type": "text", "text": "two dogs"}, {"type": "text", "text": "in snow"}]},
    ]
    answer = client.chat.completions.create(model="echo", messages=messages)
    assert asked_of(answer.choices[0].message.content or "") == "two dogs in snow"
    assert EchoLLM.calls == [["two dogs in snow"]]


def test_seed_temperature_n_stop_and_max_tokens_do_as_documented(client: openai.OpenAI) -> None:
    def texts(**options: Any) -> list[str]:
        answer = client.chat.completions.create(model="echo", messages=user(QUERY), **options)
        return [choice.message.content or "" for choice in answer.choices]

    assert texts() == texts(seed=0)
    assert texts(seed=1) == texts(seed=1) != texts(seed=2)
    assert texts(temperature=0.25)[0].endswith("at 0.25")
    assert len(set(texts(n=3))) == 3
    assert texts(stop=" surfing") == ["a corgi"]
    assert texts(stop=["dawn", "corgi"]) == ["a "]
    cut = client.chat.completions.create(model="echo", messages=user(QUERY), max_completion_tokens=3)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("a corgi surfing", "length")
    # Fields that tools send and that have no meaning here, also as null, are ignored.
    assert texts(user="me", frequency_penalty=0.5, tools=[], extra_body={"top_k": 3, "seed": None}) == texts()


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b"{", 400, "invalid_json", "not JSON"),
        (b"", 422, "invalid_value", "required"),
        (b"[]", 422, "invalid_value", "dictionary"),
        (b'{"messages": ' + b"[" * 5000, 400, "invalid_request", "parsing"),
        ({}, 422, "invalid_value", "messages: Field required"),
        ({"messages": []}, 422, "invalid_value", "at least 1 item"),
        ({"messages": "a cat"}, 422, "invalid_value", "messages: Input should be a valid list"),
        ({"messages": [{"role": "system", "content": "x"}]}, 400, "no_query", "'user'"),
        ({"messages": user("")}, 400, "invalid_query", "asks for nothing"),
        ({"messages": user(None)}, 400, "invalid_query", "asks for nothing"),
        ({"messages": user("word " * 10_000)}, 400, "invalid_query", "10000 words; at most 2000"),
        ({"messages": user([{"type": "image_url", "image_url": {"url": "x"}}])}, 400, "no_text", "only text"),
        ({"messages": user(QUERY), "model": "ecko"}, 404, "model_not_found", "did you mean 'echo'"),
        ({"messages": user(QUERY), "n": 0}, 422, "invalid_value", "n: Input"),
        ({"messages": user(QUERY), "n": 9}, 422, "invalid_value", "n: Input"),
        ({"messages": user(QUERY), "n": 2, "temperature": 0}, 400, "invalid_value", "n = 1"),
        ({"messages": user(QUERY), "temperature": 2.5}, 422, "invalid_value", "temperature"),
        ({"messages": user(QUERY), "temperature": float("nan")}, 422, "invalid_value", "temperature"),
        ({"messages": user(QUERY), "max_tokens": -1}, 422, "invalid_value", "max_tokens"),
        ({"messages": user(QUERY), "stop": list("abcde")}, 422, "invalid_value", "stop"),
        ({"messages": user(QUERY), "tools": [{"type": "function"}]}, 400, "unsupported_parameter", "'tools'"),
        ({"messages": user(QUERY), "logprobs": True}, 400, "unsupported_parameter", "'logprobs'"),
        ({"messages": user(QUERY), "response_format": {"type": "json_object"}}, 400, "unsupported_parameter", "plain"),
        ({"messages": user("mute")}, 502, "no_rewrite", "no reply came"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_request_gets_the_reason(url: str, body: Any, status: int, code: str, said: str) -> None:
    got, answer, _ = post(url, body)
    error = answer["error"]
    assert (got, error["code"]) == (status, code), error
    assert said in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert post(url, {"messages": user(QUERY)})[0] == 200


def test_other_paths_methods_and_types_get_the_same_shape(url: str) -> None:
    assert post(url, {}, path="/completions")[:1] == (404,)
    assert post(url, {}, path="/models")[1]["error"]["message"] == "Method Not Allowed"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert post(url, {"messages": user(QUERY)}, form)[1]["error"]["code"] == "invalid_content_type"
    with urllib.request.urlopen(url.removesuffix("/v1") + "/health") as answer:
        assert json.load(answer) == {"status": "ok", "open": 0}


def test_text_that_is_no_unicode_does_no_harm(url: str) -> None:
    status, answer, _ = post(url, b'{"messages": [{"role": "user", "content": "a cat \\ud800 and a dog"}]}')
    assert status in (200, 400, 422), answer


@pytest.mark.parametrize("size", [300_000, 6_000_000])
def test_a_large_request_is_refused_before_it_is_read(client: openai.OpenAI, size: int) -> None:
    with pytest.raises(openai.APIStatusError) as error:
        client.chat.completions.create(model="echo", messages=user("x" * size))
    assert error.value.status_code == 413
    assert "262144 bytes" in error.value.message
    assert not EchoLLM.calls


def test_a_large_request_without_a_length_is_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b'{"messages": "' + b"x" * 1_000_000)
    command = ["curl", "-s", f"{url}/chat/completions", "-H", "Content-Type: application/json"]
    command += ["-H", "Transfer-Encoding: chunked", "--data-binary", f"@{tmp_path / 'big'}"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(answer.stdout)["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_a_request_that_arrives_too_slowly_is_refused(size: int) -> None:
    import socket

    with served(limits=Limits(arrival=0.3)) as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port))) as slow:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: {size}\r\n\r\n{{".encode())
            slow.settimeout(10)
            answer = slow.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408" if size == 100 else b"HTTP/1.1 413"), answer
        assert post(url, {"messages": user(QUERY)})[0] == 200


def test_requests_without_the_token_are_refused() -> None:
    with served(token="open-sesame") as url:
        for given in (None, "wrong", "open-sesam", "open-sesame2", "öffne"):
            headers = {"Authorization": f"Bearer {given}".encode()} if given else {}
            status, answer, sent = post(url, {"messages": user(QUERY)}, headers)  # type: ignore[arg-type]
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
            assert sent["WWW-Authenticate"] == "Bearer"
        assert not EchoLLM.calls
        with pytest.raises(openai.AuthenticationError), openai.OpenAI(base_url=url, api_key="wrong") as client:
            client.models.list()
        with openai.OpenAI(base_url=url, api_key="open-sesame") as client:
            answer_ = client.chat.completions.create(model="echo", messages=user(QUERY))
        assert asked_of(answer_.choices[0].message.content or "") == QUERY
        with urllib.request.urlopen(url.removesuffix("/v1") + "/health") as healthy:
            assert healthy.status == 200


def test_a_query_that_the_policy_does_not_admit_is_refused() -> None:
    with served(profile="tiny", safety="refuse") as url:
        status, answer, _ = post(url, {"messages": user("a bloody red ball")})
        assert (status, answer["error"]["code"]) == (400, "content_policy_violation")
        assert "is refused" in answer["error"]["message"]
        assert post(url, {"messages": user("a red ball")})[0] == 200


def test_an_answer_reports_length_removed_parts_and_problems() -> None:
    verdict = Verdict((Fact("gore", "lost", "it is harmful", harmful=True), Fact("a cat", "lost")), invented=("a hat",))
    judged = Candidate(Query("a gory cat"), "A dog in a hat.", verdict=verdict, tokens=6)
    unjudged = Candidate(Query("a gory cat"), "A dog.", tokens=3)
    choices = [Choice(judged, "A dog", finished=True), Choice(unjudged, "A dog.", finished=False)]
    answer = Answer(
        id="1",
        created=2,
        model="echo",
        fingerprint="fp",
        choices=choices,
        token_limit=77,
        prompt_tokens=7,
        completion_tokens=9,
    )
    first, second = answer.body()["choices"]
    assert (first["message"]["content"], first["finish_reason"], second["finish_reason"]) == ("A dog", "stop", "length")
    assert first["promptreel"] == {
        "tokens": 6,
        "token_limit": 77,
        "removed": ["gore (it is harmful)"],
        "problems": ["lost: a cat", "invented: a hat"],
    }
    assert second["promptreel"] == {"tokens": 3, "token_limit": 77, "removed": [], "problems": []}
    sent = [json.loads(event.removeprefix("data: ")) for event in list(answer.events(usage=True))[:-1]]
    streamed = [choice for event in sent for choice in event["choices"] if choice["finish_reason"]]
    assert [choice["promptreel"] for choice in streamed] == [first["promptreel"], second["promptreel"]]
    assert sent[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
