"""A language model in a role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from promptreel import prompts
from promptreel.errors import ReplyError
from promptreel.types import Completion, Component, Failure, Message, SamplingParams

CARD = "promptreel.json"
"""File beside a student's weights with the format and sampling that it is asked with."""
WARM = 0.7
"""Least temperature of a candidate that is drawn again."""


@dataclass(frozen=True)
class Writer:
    """A language model, the format it is asked in, and its sampling."""

    llm: Component
    format: str = "standard"
    sampling: SamplingParams = field(default_factory=SamplingParams)
    batch_size: int = 64
    profile: Mapping[str, Any] | None = None
    """Facts about the video model that its template may state."""
    attempts: int = 1
    """Draws for a query at most, while none is accepted by the policy."""

    @property
    def instructed(self) -> bool:
        """True for a model that follows instructions, rather than one trained on its own layout."""
        return self.format in prompts.INSTRUCTED

    def with_sampling(self, sampling: SamplingParams) -> Writer:
        return replace(self, sampling=sampling)

    def again(self) -> Writer:
        """Return the writer for another draw: nearly greedy, a model would repeat its mistake."""
        return replace(self, sampling=replace(self.sampling, temperature=max(self.sampling.temperature, WARM)))

    def ask(self, task: str, **fields: Any) -> list[Message]:
        """Return the conversation that asks this model for a task."""
        return prompts.render(task, self.format, profile=self.profile, **fields)


NO_PROMPT = "reply"
"""Failure reason of a reply that contains no prompt."""


def prompt_in(completion: Completion | Failure) -> str | Failure:
    """Return the prompt in a completion, or the failure."""
    if isinstance(completion, Failure):
        return completion
    try:
        return prompts.parse_rewrite(completion.text)
    except ReplyError as error:
        return Failure(NO_PROMPT, str(error))
