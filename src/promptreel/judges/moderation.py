"""Moderation endpoints as judges of harm."""

from __future__ import annotations

from collections.abc import Sequence

from promptreel.endpoints import Endpoint, server_message
from promptreel.faults import raise_if_unanswered
from promptreel.fingerprint import fingerprint
from promptreel.strict_json import load_json
from promptreel.types import Candidate, Failure, Verdict

VERSION = 1


class Moderation:
    """A moderation endpoint of the OpenAI protocol (``/moderations``).

    ``url`` and ``key`` are as for an endpoint language model. Raises ``RunError`` for a wrong URL, key or model, and
    when the server cannot be reached. Only a result that is plainly harmful or harmless gives a verdict; its harm is
    named by the endpoint's categories.
    """

    explains = False
    remote = True
    """True for a client of a server: engines keep it in their own process."""

    def __init__(
        self, model: str = "omni-moderation-latest", url: str | None = None, key: str = "OPENAI_API_KEY"
    ) -> None:
        self.model, self.endpoint = model, Endpoint(url, key)
        self.fingerprint = fingerprint("moderation", self.endpoint.place, model=model, version=VERSION)

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        import openai

        texts = [candidate.text for candidate in candidates]
        try:
            with openai.OpenAI(base_url=self.endpoint.url, api_key=self.endpoint.key(), max_retries=6) as client:
                response = client.moderations.with_raw_response.create(model=self.model, input=texts)
            found = load_json(response.text)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self.endpoint.refusal(self.model, error) from None  # its cause may repeat the key
        except (openai.BadRequestError, openai.UnprocessableEntityError, ValueError):
            return [None] * len(texts)
        except (openai.APIConnectionError, openai.APIStatusError) as error:
            why = server_message(error) if isinstance(error, openai.APIStatusError) else error
            raise_if_unanswered([Failure("connection", self.endpoint.masked(why))])
        results = found.get("results") if isinstance(found, dict) else None
        if not isinstance(results, list) or len(results) != len(texts):
            return [None] * len(texts)
        return [_verdict(result) for result in results]


def _verdict(result: object) -> Verdict | None:
    """Return the verdict of one moderation result, or ``None`` for a malformed or contradictory one."""
    match result:
        case {"flagged": True, "categories": dict(categories)}:
            return Verdict((), tuple(sorted(name for name, on in categories.items() if on is True)) or ("flagged",))
        case {"flagged": True}:
            return Verdict((), ("flagged",))
        case {"flagged": False, "categories": dict(categories)}:
            # Some servers leave categories open for which they have no model.
            return Verdict(()) if all(on is False or on is None for on in categories.values()) else None
    return None
