"""A generator, a language model and a reward for Promptreel, none of which needs weights."""

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from promptreel import profiles
from promptreel.types import Clip, Failure, Message, Query, RenderRequest, Reply, Sampling, Scores, content_seed


class Stripes:
    """Stripes that move to the right: their colours come from the prompt, where they start from the seed."""

    batch_size = 8

    def __init__(self, profile: str, stripes: int = 4) -> None:
        self.profile, self.stripes = profiles.load(profile), stripes
        self.fingerprint = f"stripes:{profile}:{stripes}"

    def render(self, requests: Sequence[RenderRequest]) -> list[Clip | Failure]:
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
    """Repeats what it was told last and goes on with words that followed one another in the conversation."""

    def __init__(self, words: int = 3) -> None:
        self.words = words
        self.fingerprint = f"chain:{words}"

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        return [self._answer(*row) for row in zip(conversations, samplings, strict=True)]

    def _answer(self, conversation: list[Message], sampling: Sampling) -> Reply | Failure:
        words = " ".join(message["content"] for message in conversation).split()
        if not words:
            return Failure("reply", "nothing was said")
        draw, said = random.Random(sampling.seed), conversation[-1]["content"].split()
        for _ in range(self.words):
            after = [b for a, b in pairwise(words) if a == said[-1]]
            said.append(draw.choice(after or words))
        return Reply(" ".join(said), read=len(words), written=len(said))


class Contrast:
    """The spread of a clip's values; missing for a clip of one colour."""

    dimensions = ("contrast",)
    fingerprint = "contrast:1"

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        return [{"contrast": float(clip.frames.std()) or None} for _, clip in items]
