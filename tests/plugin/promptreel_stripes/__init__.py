"""A generator, a language model and a reward for Promptreel, none of which needs weights."""

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar

import numpy as np

from promptreel import profiles
from promptreel.fingerprint import content_seed
from promptreel.types import Clip, Completion, Failure, Message, Query, RenderRequest, SamplingParams, Scores


class Stripes:
    """A generator of stripes that move to the right: the prompt gives their colours, the seed their start."""

    batch_size = 8

    def __init__(self, profile: str, stripes: int = 4) -> None:
        self.profile, self.stripes = profiles.load(profile), stripes
        self.fingerprint = f"stripes:{profile}:{stripes}"

    def render(
        self, requests: Sequence[RenderRequest], on_step: Callable[[int, int], None] | None = None
    ) -> list[Clip | Failure]:
        return [
            Clip(request.clip_id(self.fingerprint), self._draw(request), self.profile.fps)
            if request.prompt.strip()
            else Failure("render", "nothing to draw")
            for request in requests
        ]

    def _draw(self, request: RenderRequest) -> np.ndarray:
        width, height = self.profile.size(request.aspect)
        palette = np.random.default_rng(content_seed(request.prompt)).integers(40, 256, (self.stripes, 3))
        start = np.random.default_rng(request.seed).integers(width)
        columns = np.arange(width) + start
        frames = [
            palette[(columns - time) * self.stripes // width % self.stripes] for time in range(self.profile.frames)
        ]
        return np.repeat(np.array(frames, np.uint8)[:, None], height, axis=1)


class Chain:
    """A language model that repeats the last message and goes on as a Markov chain of the conversation's words."""

    def __init__(self, words: int = 3) -> None:
        self.words = words
        self.fingerprint = f"chain:{words}"

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        return [self._answer(*row) for row in zip(conversations, sampling, strict=True)]

    def _answer(self, conversation: list[Message], params: SamplingParams) -> Completion | Failure:
        words = " ".join(message["content"] for message in conversation).split()
        if not words:
            return Failure("reply", "nothing was said")
        draw, said = random.Random(params.seed), conversation[-1]["content"].split()
        for _ in range(self.words):
            after = [b for a, b in pairwise(words) if a == said[-1]]
            said.append(draw.choice(after or words))
        return Completion(" ".join(said), prompt_tokens=len(words), completion_tokens=len(said))


class Contrast:
    """A reward model of contrast: the standard deviation of a clip's values, missing for a clip of one colour."""

    dimensions: ClassVar[tuple[str, ...]] = ("contrast",)
    ranges: ClassVar[dict[str, tuple[float, float]]] = {"contrast": (0.0, 127.5)}
    modality = "image"
    licence = "Apache-2.0"
    fingerprint = "contrast:1"

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        return [{"contrast": float(clip.frames.std()) or None} for _, clip in items]
