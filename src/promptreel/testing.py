"""Components that keep to the contracts of the ports and cost nothing, for tests of code that uses the ports.

``register_fakes`` makes them available to recipes under the name ``fake``. They count their work in class attributes,
since engines build instances of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from promptreel import registry
from promptreel.types import (
    Candidate,
    Clip,
    Completion,
    Fact,
    Failure,
    Message,
    Query,
    RenderRequest,
    SamplingParams,
    Scores,
    Verdict,
)


class FakeGenerator:
    """A generator of gray clips of two frames, whose brightness depends on the length of the prompt and the seed.

    A prompt with "broken" fails. Each clip is one denoising step.
    """

    batch_size = 4
    rendered: ClassVar[Counter[str]] = Counter()
    """Renders of each prompt."""
    batches: ClassVar[list[list[RenderRequest]]] = []

    def __init__(self, profile: str = "tiny", name: str = "fake") -> None:
        self.fingerprint = f"generator-{name}"

    def render(
        self, requests: Sequence[RenderRequest], on_step: Callable[[int, int], None] | None = None
    ) -> list[Clip | Failure]:
        self.batches.append(list(requests))
        results: list[Clip | Failure] = []
        for number, request in enumerate(requests, 1):
            self.rendered[request.prompt] += 1
            if "broken" in request.prompt:
                results.append(Failure("render", "broken"))
            else:
                frames = np.full((2, 16, 16, 3), (len(request.prompt) * 7 + request.seed) % 256, np.uint8)
                results.append(Clip(request.clip_id(self.fingerprint), frames, 8.0))
            if on_step:
                on_step(number, len(requests))
        return results


class FakeReward:
    """A reward model with two dimensions: ``length``, the brightness of the clip, and ``never``, always missing.

    ``held_out`` gives another fingerprint with the same values: a reward model that no stage trains on.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("length", "never")
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"length": (0.0, 255.0)}
    scored: ClassVar[Counter[str]] = Counter()
    """Number of times that each clip was scored, by clip id."""

    def __init__(self, held_out: bool = False) -> None:
        self.fingerprint = f"reward-fake{held_out or ''}"

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        self.scored.update(clip.id for _, clip in items)
        return [{"length": float(clip.frames.mean()), "never": None} for _, clip in items]


class FakeJudge:
    """A judge to which every word of the query is a fact, and "gory" is harm.

    A text with "unreadable" has no verdict.
    """

    judged: ClassVar[Counter[str]] = Counter()
    """Verdicts asked for each text."""

    def __init__(self) -> None:
        self.fingerprint = "judge-fake"

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        self.judged.update(candidate.text for candidate in candidates)
        return [None if "unreadable" in candidate.text else self._verdict(candidate) for candidate in candidates]

    def _verdict(self, candidate: Candidate) -> Verdict:
        kept = candidate.text.split()
        facts = tuple(
            Fact(word, "kept" if word in kept else "lost", harmful=word == "gory")
            for word in candidate.query.text.split()
        )
        return Verdict(facts, ("gory",) if "gory" in candidate.text else ())


class FakeLLM:
    """A language model that answers with the last message, the number of the row and the seed: no two answers are
    alike.

    A message with "slow" gives a timeout.
    """

    asked: ClassVar[list[list[int]]] = []
    """Seeds of each call."""

    def __init__(self, model: str = "fake") -> None:
        self.fingerprint = f"llm-{model}"

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        self.asked.append([params.seed for params in sampling])
        completions: list[Completion | Failure] = []
        for row, (conversation, params) in enumerate(zip(conversations, sampling, strict=True)):
            message = conversation[-1]["content"]
            if "slow" in message:
                completions.append(Failure("timeout"))
            else:
                completions.append(Completion(f"{message} {'x' * row} s{params.seed % 97}", 3, 2, 0.1))
        return completions


def register_fakes() -> None:
    """Register the fakes under the name ``fake``, as generator, reward, judge and llm."""
    for kind, fake in FAKES.items():
        registry.register(kind, "fake", f"{fake.__module__}:{fake.__name__}")


def forget_counts() -> None:
    """Empty the counters of all fakes."""
    for counter in (FakeGenerator.rendered, FakeReward.scored, FakeJudge.judged):
        counter.clear()
    FakeGenerator.batches.clear()
    FakeLLM.asked.clear()


FAKES: dict[str, type] = {"generator": FakeGenerator, "reward": FakeReward, "judge": FakeJudge, "llm": FakeLLM}
"""The fakes by kind of component."""
