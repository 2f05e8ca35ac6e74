"""Guards: language models that classify texts as harmful or harmless.

A guard reads no facts, so a policy that asks for fidelity needs more: ``guarded`` joins a guard with a judge of facts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from promptreel import prompts
from promptreel.errors import ReplyError, UnknownName
from promptreel.faults import raise_if_unanswered
from promptreel.fingerprint import fingerprint
from promptreel.protocols import LLM
from promptreel.types import Candidate, Completion, SamplingParams, Verdict

VERSION = 1
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_QWEN3GUARD = re.compile(
    r"Safety: (?P<level>Safe|Controversial|Unsafe)[ \t]*\n"
    r"Categories: (?P<categories>[^\n]+)"
    r"(?:\nRefusal: (?:Yes|No))?"
)
_LLAMA_GUARD = re.compile(r"safe|(?P<unsafe>unsafe)(?:\s*\n(?P<codes>S\d{1,2}(?:, ?S\d{1,2})*))?")


class GuardModel:
    """A guard language model, asked through its own chat template.

    ``family`` is the form of its answers:

    - ``qwen3guard``: ``Safety: Safe|Controversial|Unsafe`` and ``Categories: …``, followed for replies by
      ``Refusal: Yes|No`` (Qwen/Qwen3Guard-Gen-*, github QwenLM/Qwen3Guard README). With ``strict``, controversial
      counts as unsafe.
    - ``llama-guard``: ``safe``, or ``unsafe`` and a line of codes S1 to S14 (meta-llama/Llama-Guard-3-*,
      Llama-Guard-4-12B, PurpleLlama model cards).

    A thought before the answer is ignored. Any other answer is no verdict. Raises ``UnknownName`` for the family, and
    ``RunError`` when the server of the model cannot be reached.
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

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        conversations = [prompts.render("guard", "standard", text=candidate.text) for candidate in candidates]
        replies = self.llm.complete(conversations, SamplingParams(0.0, max_tokens=64).each(conversations))
        raise_if_unanswered(replies)
        verdicts: list[Verdict | None] = []
        for reply in replies:
            try:
                verdicts.append(Verdict((), self._parse(_answer(reply))) if isinstance(reply, Completion) else None)
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


def _answer(reply: Completion) -> str:
    """Return the answer in a guard's reply, without a thought before it."""
    return _THOUGHT.sub("", reply.text).strip()
