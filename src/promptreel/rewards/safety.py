"""Guards: judges that look only for harm. A veto, never a summand.

They say nothing of facts, so no gate for fidelity can stand on them alone: ``guarded`` joins one with a judge of
facts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from promptreel import prompts
from promptreel.access import Access, check_answered, said
from promptreel.errors import ReplyError, UnknownName
from promptreel.protocols import LLM
from promptreel.store.files import fingerprint
from promptreel.types import Failure, Query, Reply, Sampling, Verdict, load_json

VERSION = 1
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_QWEN3GUARD = re.compile(
    r"Safety: (?P<level>Safe|Controversial|Unsafe)[ \t]*\n"
    r"Categories: (?P<categories>[^\n]+)"
    r"(?:\nRefusal: (?:Yes|No))?"
)
_LLAMA_GUARD = re.compile(r"safe|(?P<unsafe>unsafe)(?:\s*\n(?P<codes>S\d{1,2}(?:, ?S\d{1,2})*))?")


class GuardModel:
    """A guard language model, through its own chat template.

    ``family`` says how it answers:

    - ``qwen3guard``: ``Safety: Safe|Controversial|Unsafe`` and ``Categories: …``, and of replies ``Refusal: Yes|No``
      (Qwen/Qwen3Guard-Gen-*, github QwenLM/Qwen3Guard README); ``strict`` counts controversial as unsafe;
    - ``llama-guard``: ``safe``, or ``unsafe`` and a line of codes S1 to S14 (meta-llama/Llama-Guard-3-*,
      Llama-Guard-4-12B, PurpleLlama model cards).

    A reply of another form, but for a thought before it, is no verdict.
    """

    explains = False

    def __init__(self, llm: LLM, family: str = "qwen3guard", strict: bool = True) -> None:
        parsers = {"qwen3guard": self._qwen3guard, "llama-guard": self._llama_guard}
        if family not in parsers:
            raise UnknownName("family of guards", family, parsers)
        self.llm, self.strict, self._parse = llm, strict, parsers[family]
        self.fingerprint = fingerprint(
            "guard", None, llm=llm.fingerprint, family=family, strict=strict, version=VERSION
        )

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        asked = [prompts.render("guard", "standard", text=text) for _, text in items]
        replies = self.llm.complete(asked, Sampling(0.0, max_tokens=64).each(asked))
        check_answered(replies)
        verdicts: list[Verdict | None] = []
        for reply in replies:
            try:
                verdicts.append(Verdict((), self._parse(_answer(reply))) if isinstance(reply, Reply) else None)
            except ReplyError:
                verdicts.append(None)
        return verdicts

    def _qwen3guard(self, answer: str) -> tuple[str, ...]:
        read = _QWEN3GUARD.fullmatch(answer)
        if read is None:
            raise ReplyError(f"not an answer of a Qwen3Guard: {answer[:60]!r}")
        level = read["level"]
        categories = tuple(c for part in read["categories"].split(",") if (c := part.strip()) not in ("", "None"))
        if level == "Unsafe" or (self.strict and level == "Controversial"):
            return categories or (level.lower(),)
        if categories and level == "Safe":
            raise ReplyError("the guard calls it safe and names a category of harm")
        return ()

    def _llama_guard(self, answer: str) -> tuple[str, ...]:
        read = _LLAMA_GUARD.fullmatch(answer)
        if read is None:
            raise ReplyError(f"not an answer of a Llama Guard: {answer[:60]!r}")
        codes = tuple(code.strip() for code in (read["codes"] or "").split(",") if code)
        return codes or ((read["unsafe"],) if read["unsafe"] else ())


def _answer(reply: Reply) -> str:
    """What a guard says after what it may have thought."""
    return _THOUGHT.sub("", reply.text).strip()


class Moderation:
    """A moderation endpoint of the OpenAI protocol (``/moderations``).

    ``url`` and ``key`` are as for an endpoint language model: a wrong one, or a wrong model, raises. What is not
    plainly called harmful or harmless has no verdict.
    """

    explains = False

    def __init__(
        self, model: str = "omni-moderation-latest", url: str | None = None, key: str = "OPENAI_API_KEY"
    ) -> None:
        self.model, self.access = model, Access(url, key)
        self.fingerprint = fingerprint("moderation", self.access.place, model=model, version=VERSION)

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        import openai

        asked = [text for _, text in items]
        try:
            with openai.OpenAI(base_url=self.access.url, api_key=self.access.key(), max_retries=6) as client:
                response = client.moderations.with_raw_response.create(model=self.model, input=asked)
            found = load_json(response.text)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self.access.refusal(self.model, error) from None  # its cause may repeat the key
        except (openai.BadRequestError, openai.UnprocessableEntityError, ValueError):
            return [None] * len(items)
        except (openai.APIConnectionError, openai.APIStatusError) as error:
            why = said(error) if isinstance(error, openai.APIStatusError) else error
            check_answered([Failure("connection", self.access.told(why))])
        results = found.get("results") if isinstance(found, dict) else None
        if not isinstance(results, list) or len(results) != len(items):
            return [None] * len(items)
        return [_moderated(result) for result in results]


def _moderated(result: object) -> Verdict | None:
    """What one result of a moderation says, strictly."""
    match result:
        case {"flagged": True, "categories": dict(categories)}:
            return Verdict((), tuple(sorted(name for name, on in categories.items() if on is True)) or ("flagged",))
        case {"flagged": True}:
            return Verdict((), ("flagged",))
        case {"flagged": False, "categories": dict(categories)}:
            # Some servers leave open what they have no model for.
            return Verdict(()) if all(on is False or on is None for on in categories.values()) else None
    return None
