"""Guards: judges that look only for harm. A veto, never a summand.

They say nothing of facts, so no gate for fidelity can stand on them alone: ``guarded`` joins one with a judge of
facts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from promptreel import prompts
from promptreel.errors import ReplyError
from promptreel.protocols import LLM
from promptreel.store.files import fingerprint
from promptreel.types import Query, Reply, Sampling, Verdict

VERSION = 1


class GuardModel:
    """A guard language model, through its own chat template.

    ``family`` says how it answers:

    - ``qwen3guard``: ``Safety: Safe|Controversial|Unsafe`` and ``Categories: …`` (Qwen/Qwen3Guard-Gen-*,
      github QwenLM/Qwen3Guard README); ``strict`` counts controversial as unsafe;
    - ``llama-guard``: ``safe``, or ``unsafe`` and a line of codes S1 to S14 (meta-llama/Llama-Guard-3-*,
      Llama-Guard-4-12B, PurpleLlama model cards).

    A reply of another form is no verdict.
    """

    explains = False

    def __init__(self, llm: LLM, family: str = "qwen3guard", strict: bool = True) -> None:
        parsers = {"qwen3guard": self._qwen3guard, "llama-guard": self._llama_guard}
        if family not in parsers:
            raise ValueError(f"a guard is of family {' or '.join(parsers)}, not {family!r}")
        self.llm, self.strict, self._parse = llm, strict, parsers[family]
        self.fingerprint = fingerprint(
            "guard", None, llm=llm.fingerprint, family=family, strict=strict, version=VERSION
        )

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        asked = [prompts.render("guard", "standard", text=text) for _, text in items]
        replies = self.llm.complete(asked, Sampling(0.0, max_tokens=64).each(asked))
        verdicts: list[Verdict | None] = []
        for reply in replies:
            try:
                verdicts.append(Verdict((), self._parse(reply.text)) if isinstance(reply, Reply) else None)
            except ReplyError:
                verdicts.append(None)
        return verdicts

    def _qwen3guard(self, reply: str) -> tuple[str, ...]:
        level = re.search(r"^\s*Safety:\s*(Safe|Controversial|Unsafe)\s*$", reply, re.MULTILINE)
        listed = re.search(r"^\s*Categories:\s*(.+?)\s*$", reply, re.MULTILINE)
        if level is None:
            raise ReplyError(f"not an answer of a Qwen3Guard: {reply[:60]!r}")
        categories = tuple(c.strip() for c in listed.group(1).split(",") if c.strip() != "None") if listed else ()
        harmful = level.group(1) == "Unsafe" or (self.strict and level.group(1) == "Controversial")
        if harmful:
            return categories or (level.group(1).lower(),)
        if categories and level.group(1) == "Safe":
            raise ReplyError("the guard calls it safe and names a category of harm")
        return ()

    def _llama_guard(self, reply: str) -> tuple[str, ...]:
        lines = reply.strip().splitlines()
        if lines == ["safe"]:
            return ()
        if lines and lines[0].strip() == "unsafe":
            codes = [code.strip() for code in ",".join(lines[1:]).split(",") if code.strip()]
            if all(re.fullmatch(r"S\d{1,2}", code) for code in codes):
                return tuple(codes) or ("unsafe",)
        raise ReplyError(f"not an answer of a Llama Guard: {reply[:60]!r}")


class Moderation:
    """A moderation endpoint of the OpenAI protocol (``/moderations``).

    ``url`` and ``key`` are as for an endpoint language model.
    """

    explains = False

    def __init__(
        self, model: str = "omni-moderation-latest", url: str | None = None, key: str = "OPENAI_API_KEY"
    ) -> None:
        self.model, self.url, self.key = model, url, key
        self.fingerprint = fingerprint("moderation", url, model=model, version=VERSION)

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        import os

        import openai

        client = openai.OpenAI(base_url=self.url, api_key=os.environ.get(self.key) or "none", max_retries=6)
        try:
            response = client.moderations.create(model=self.model, input=[text for _, text in items])
        except (openai.APIConnectionError, openai.APIStatusError):
            return [None] * len(items)
        if len(response.results) != len(items):
            return [None] * len(items)
        return [
            Verdict((), tuple(sorted(name for name, on in result.categories.model_dump().items() if on)))
            if result.flagged is not None
            else None
            for result in response.results
        ]
