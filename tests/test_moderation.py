"""Moderation endpoints: only a result that is plainly harmless passes."""

import json
import traceback
from typing import Any

import pytest
from chat_server import ChatServer

from promptreel.errors import RunError, UserError
from promptreel.judges.moderation import Moderation
from promptreel.types import Candidate, Query, Verdict

CANDIDATES = [Candidate(Query("a ball"), "a ball"), Candidate(Query("a box"), "a gory box")]


def moderated(*results: Any, **how: Any) -> list[Verdict | None]:
    body = json.dumps({"id": "x", "model": "m", "results": results})
    with ChatServer(lambda number, asked: {"body": body, **how}) as server:
        candidates = CANDIDATES[: len(results) or 2]
        verdicts = Moderation("m", server.url).judge(candidates)
        assert server.requests[0]["input"] == [candidate.text for candidate in candidates]
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
def test_a_moderation_result_is_read_strictly(result: Any, unsafe: tuple[str, ...] | None) -> None:
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
def test_a_malformed_response_is_no_verdict(how: dict[str, Any]) -> None:
    assert moderated(**how) == [None, None]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_url_or_model_raises_at_once(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " sk-very-secret\n")
    body = '{"error": {"message": "Bearer sk-very-secret"}}'
    with pytest.raises(RunError, match=r"refuses model 'm': \d+ Bearer \*\*\*") as caught:
        moderated(status=status, body=body)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_key_or_a_malformed_url_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        Moderation().judge(CANDIDATES)
    with pytest.raises(UserError, match="no URL of a server"):
        Moderation("m", "localhost:99999")
