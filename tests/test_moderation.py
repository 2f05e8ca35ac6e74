"""Moderation endpoints: only what is plainly called harmless is."""

import json
import traceback
from typing import Any

import pytest
from chat_server import ChatServer

from promptreel.errors import RunError, UserError
from promptreel.rewards.safety import Moderation
from promptreel.types import Query, Verdict

ITEMS = [(Query("a ball"), "a ball"), (Query("a box"), "a gory box")]


def moderated(*results: Any, **how: Any) -> list[Verdict | None]:
    body = json.dumps({"id": "x", "model": "m", "results": results})
    with ChatServer(lambda number, asked: {"body": body, **how}) as server:
        verdicts = Moderation("m", server.url).judge(ITEMS[: len(results) or 2])
        assert server.requests[0]["input"] == [text for _, text in ITEMS[: len(results) or 2]]
        return verdicts


@pytest.mark.parametrize(
    ("result", "unsafe"),
    [
        ({"flagged": False, "categories": {"hate": False, "violence/graphic": False}}, ()),
        ({"flagged": False, "categories": {"hate": False, "illicit": None}}, ()),
        ({"flagged": False, "categories": {}}, ()),
        ({"flagged": True, "categories": {"violence": True, "hate/threatening": True, "sexual": False}},
         ("hate/threatening", "violence")),
        ({"flagged": True, "categories": {}}, ("flagged",)),
        ({"flagged": True, "categories": {"hate": False}}, ("flagged",)),
        ({"flagged": True}, ("flagged",)),
        ({"flagged": False}, None),
        ({"flagged": False, "categories": None}, None),
        ({"flagged": False, "categories": {"hate": True}}, None),
        ({"flagged": False, "categories": {"hate": "yes"}}, None),
        ({"flagged": "no idea", "categories": {"hate": False}}, None),
        ({"flagged": 0, "categories": {}}, None),
        ({"flagged": None, "categories": {}}, None),
        ({"categories": {"hate": False}}, None),
        ({}, None),
        (None, None),
        ("safe", None),
    ],
    ids=str,
)  # fmt: skip
def test_a_moderation_is_read_by_the_letter(result: Any, unsafe: tuple[str, ...] | None) -> None:
    (verdict,) = moderated(result)
    assert verdict == (None if unsafe is None else Verdict((), unsafe))


@pytest.mark.parametrize(
    "how",
    [
        {"body": '{"error": {"message": "no"}}'}, {"body": "[]"}, {"body": "safe"}, {"body": "[" * 100_000},
        {"body": '{"results": [{"flagged": false, "categories": {}}]}'}, {"body": '{"results": {}}'},
        {"status": 400, "body": '{"error": {"message": "bad"}}'},
    ],
    ids=range(7),
)  # fmt: skip
def test_what_is_no_moderation_is_no_verdict(how: dict[str, Any]) -> None:
    assert moderated(**how) == [None, None]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_moderation_that_can_never_be_had_stops_at_once(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " sk-very-secret\n")
    body = '{"error": {"message": "Bearer sk-very-secret"}}'
    with pytest.raises(RunError, match=r"refuses model 'm': \d+ Bearer \*\*\*") as caught:
        moderated(status=status, body=body)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_no_moderation_is_asked_without_a_key_or_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        Moderation().judge(ITEMS)
    with pytest.raises(UserError, match="no URL of a server"):
        Moderation("m", "localhost:99999")
