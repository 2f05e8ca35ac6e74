"""The server under many clients at once: each gets its own answer, and none harms another."""

import json
import logging
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Any

import openai
import pytest
import torch
from served import EchoLLM, asked_of, reset, served

from promptreel import registry
from promptreel.llms.row_sampler import RowSampler
from promptreel.rewriting import Rewriter
from promptreel.rewriting.models import component_of
from promptreel.server.app import Limits
from promptreel.tiny import datasets
from promptreel.types import Completion, SamplingParams

log = logging.getLogger(__name__)

CLIENTS = 50
EACH = 2


@pytest.fixture(autouse=True)
def fresh() -> None:
    reset()


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILT_IN["llm"], "local", "served:EchoLLM")


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[openai.OpenAI]:
    """Yield one client for all threads, as in an application."""
    with served(**getattr(request, "param", {})) as url, openai.OpenAI(base_url=url, api_key="none") as opened:
        yield opened


def ask(client: openai.OpenAI, query: str, **options: Any) -> str:
    answer = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": query}], **options)
    if not options.get("stream"):
        return answer.choices[0].message.content or ""
    with answer:
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)


def in_a_crowd(clients: int, work: Callable[[int], Any]) -> list[Any]:
    """Return the result of ``work`` for each client; all begin together."""
    start = threading.Barrier(clients)

    def go(number: int) -> Any:
        start.wait(30)
        return work(number)

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(go, range(clients)))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def healthy(client: openai.OpenAI) -> dict[str, Any]:
    with urllib.request.urlopen(str(client.base_url).removesuffix("/v1/") + "/health", timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def test_fifty_clients_get_their_own_answers_and_the_model_few_calls(echo: None, client: openai.OpenAI) -> None:
    EchoLLM.seconds = 0.02

    def work(number: int) -> list[tuple[str, str]]:
        queries = [f"scene {number} take {take}" for take in range(EACH)]
        return [(query, ask(client, query, stream=number % 2 == 0)) for query in queries]

    answered = [pair for pairs in in_a_crowd(CLIENTS, work) for pair in pairs]
    assert [query for query, _ in answered] == [asked_of(answer) for _, answer in answered]
    assert len(answered) == CLIENTS * EACH
    assert len(EchoLLM.calls) < CLIENTS * EACH / 3
    assert max(len(call) for call in EchoLLM.calls) <= Limits().rows


def test_an_answer_is_the_same_alone_and_in_a_crowd(echo: None, client: openai.OpenAI) -> None:
    alone = ask(client, "a red ball", seed=7, temperature=0.5)
    crowd = in_a_crowd(8, lambda n: ask(client, "a red ball" if n == 3 else f"cat {n}", seed=7 if n == 3 else n))
    assert ask(client, "a red ball", seed=7) == crowd[3]
    assert ask(client, "a red ball", seed=7, temperature=0.5) == alone
    assert max(len(call) for call in EchoLLM.calls) > 1


def test_a_request_that_breaks_the_call_harms_no_other(echo: None, client: openai.OpenAI) -> None:
    def work(number: int) -> str:
        if number != 4:
            return asked_of(ask(client, f"cat {number}"))
        with pytest.raises(openai.InternalServerError) as error:
            ask(client.with_options(max_retries=0), "poison")
        return error.value.message

    *answers, broken = sorted(in_a_crowd(10, work), key=lambda answer: "failed" in answer)
    assert answers == [f"cat {number}" for number in range(10) if number != 4]
    assert "the server failed" in broken
    assert "this call broke" not in broken  # the cause is for the log alone


def test_clients_that_hang_up_are_forgotten_and_harm_no_other(echo: None, client: openai.OpenAI) -> None:
    EchoLLM.held.clear()
    address = (str(client.base_url.host), client.base_url.port or 0)
    body = b'{"messages": [{"role": "user", "content": "gone"}], "stream": true}'
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(ask, client, "first")
        until(lambda: len(EchoLLM.calls) == 1)  # the model is busy; further requests wait in line
        for _ in range(5):
            with closing(socket.create_connection(address)) as leaving:
                leaving.sendall(head.encode() + body)
                time.sleep(0.05)
        staying = [pool.submit(ask, client, f"staying {number}") for number in range(5)]
        time.sleep(0.3)
        EchoLLM.held.set()
        assert asked_of(first.result()) == "first"
        assert [asked_of(answer.result()) for answer in staying] == [f"staying {number}" for number in range(5)]
    assert "gone" not in {query for call in EchoLLM.calls for query in call}


@pytest.mark.parametrize("client", [{"limits": Limits(open=3)}], indirect=True)
def test_a_full_queue_tells_clients_to_come_back_later(echo: None, client: openai.OpenAI) -> None:
    EchoLLM.held.clear()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(ask, client, f"cat {number}") for number in range(3)]
        until(lambda: healthy(client)["open"] == 3)
        with pytest.raises(openai.RateLimitError) as error:
            ask(client.with_options(max_retries=0), "one too many")
        assert error.value.code == "queue_full"
        assert error.value.response.headers["Retry-After"] == "1"
        patient = pool.submit(ask, client, "patient")  # this client tries again by itself
        time.sleep(0.2)
        EchoLLM.held.set()
        assert [asked_of(answer.result()) for answer in waiting] == [f"cat {number}" for number in range(3)]
        assert asked_of(patient.result()) == "patient"


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
def test_rows_are_drawn_with_the_probabilities_of_the_model(temperature: float, top_p: float) -> None:
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(0)) * 2
    rows = [SamplingParams(temperature, top_p, 1, seed) for seed in range(4000)]
    kept = RowSampler(rows, 3, torch.device("cpu"))(torch.zeros(4000, 3, dtype=torch.long), logits.expand(4000, -1))
    found = torch.bincount(kept.argmax(-1), minlength=12) / 4000
    chances, order = torch.softmax(logits[0] / temperature, -1).sort(descending=True)
    chances[chances.cumsum(0) - chances >= top_p] = 0
    assert torch.allclose(found[order], chances / chances.sum(), atol=0.025)
    assert found[order][chances == 0].sum() == 0


def test_a_row_of_a_real_model_is_the_same_in_another_batch() -> None:
    model = registry.build(component_of("tiny-base"))
    asked = [[{"role": "user", "content": f"Rewrite for video: {text}"}] for text in ("a cat", "a big red ball", "x")]
    rows = [SamplingParams(0.7, 1.0, 30, 5), SamplingParams(0.0, 1.0, 12, 6), SamplingParams(1.0, 0.9, 20, 7)]
    together = model.complete(asked, rows)
    assert together == [model.complete([one], [row])[0] for one, row in zip(asked, rows, strict=True)]
    assert together[::-1] == model.complete(asked[::-1], rows[::-1])
    assert together[1:2] == model.complete(asked[1:2], [SamplingParams(0.0, 1.0, 12, 8)])  # greedy
    for reply, row in zip(together, rows, strict=True):
        assert isinstance(reply, Completion)
        assert reply.completion_tokens <= row.max_tokens
    assert model.complete(asked[:1], [SamplingParams(0.7, 1.0, 30, 6)]) != together[:1]


@pytest.mark.parametrize("client", [{"llm": "tiny-base", "profile": "tiny"}], indirect=True)
def test_served_rewrites_equal_those_of_the_rewriter(client: openai.OpenAI) -> None:
    for seed in (0, 7):
        written = Rewriter("tiny-base", "tiny", seed).candidates("a crimson ball heading east", 3)
        served = client.chat.completions.create(
            model="echo", messages=[{"role": "user", "content": "a crimson ball heading east"}], seed=seed, n=3
        )
        assert {choice.message.content for choice in served.choices} == {rewrite.text for rewrite in written}


@pytest.mark.slow
@pytest.mark.parametrize("client", [{"llm": "tiny-base", "profile": "tiny"}], indirect=True)
def test_a_crowd_of_fifty_is_served_faster_than_one_by_one(client: openai.OpenAI) -> None:
    queries: Sequence[str] = [query.text for query in islice(datasets.test(), CLIENTS)]
    ask(client, queries[0])
    begun = time.perf_counter()
    alone = [ask(client, query) for query in queries]
    one_by_one = len(queries) / (time.perf_counter() - begun)
    begun = time.perf_counter()
    answers = in_a_crowd(CLIENTS, lambda number: [ask(client, queries[(number + t) % CLIENTS]) for t in range(EACH)])
    crowd = CLIENTS * EACH / (time.perf_counter() - begun)
    same = [answers[n][t] == alone[(n + t) % CLIENTS] for n in range(CLIENTS) for t in range(EACH)]
    share = sum(same) / len(same)
    log.info("one by one %.1f/s, %d clients %.1f/s, the same words %.3f", one_by_one, CLIENTS, crowd, share)
    assert crowd >= 2 * one_by_one
    assert share >= 0.98  # rounding may turn a draw
