"""The ports. Everything outside the method implements one of these; the method knows nothing else.

All ports work on batches and return one result per item, in the order of the items. What a batch contains
can change what its rows come out as (padding, kernels), so callers plan batches from the recipe, never from
what happens to be missing, and store a batch whole.

``fingerprint`` is a string that differs whenever the results could: model, revision, options. It goes into
the ids of what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from promptreel.types import Clip, Failure, Message, Query, RenderRequest, Reply, Sampling, Scores, Verdict


@runtime_checkable
class LLM(Protocol):
    """A chat model: the teacher, the student, a judge."""

    fingerprint: str

    def complete(self, conversations: Sequence[list[Message]], samplings: Sequence[Sampling]) -> list[Reply | Failure]:
        """One reply for each conversation, drawn by its own sampling and seed.

        The same conversations in the same order with the same samplings give the same replies, where the model
        behind can promise it, and a reply does not depend on the rows beside it, beyond rounding. A reply that could
        not be had is a ``Failure``; it raises only when no later batch could succeed either.
        """
        ...


@runtime_checkable
class Generator(Protocol):
    """A text-to-video or text-to-image model."""

    fingerprint: str
    batch_size: int
    """How many requests it wants at once."""

    def render(self, requests: Sequence[RenderRequest]) -> list[Clip | Failure]:
        """One clip for each request.

        The starting noise of a clip depends on its request's seed alone: requests with equal seeds are
        paired. A render that failed is a ``Failure``; it raises only when no later render could succeed.
        """
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores clips against the *original query*: a rewrite cannot win by matching itself.

    A reward with dimensions that no image has names them in a class attribute ``moving``: recipes for images that
    blend them are refused.
    """

    fingerprint: str
    dimensions: tuple[str, ...]
    """Names of what it measures. In each, higher is better, on the reward's native scale."""

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        """The dimensions of each clip; a dimension that cannot be judged is ``None``, never 0.

        The scores of a clip do not depend on the rest of the batch beyond rounding. Deterministic.
        """
        ...


@runtime_checkable
class Explainer(Protocol):
    """A reward that can also say in words what it saw; reports show it."""

    def explain(self, query: Query, clip: Clip) -> str:
        """What was seen in the clip, in one line."""
        ...


@runtime_checkable
class Judge(Protocol):
    """Reads text only: which facts of the query does a rewrite keep, and is it harmful?

    A judge that sees only harm, and says nothing of facts, has a class attribute ``explains`` that is ``False``:
    recipes that need reasons refuse it.
    """

    fingerprint: str

    def judge(self, items: Sequence[tuple[Query, str]]) -> list[Verdict | None]:
        """A verdict for each rewrite; ``None`` where it could not be had, which passes no gate."""
        ...


Worker = Callable[[Sequence[Any]], list[Any]]
"""Holds its models; maps a batch to its results, one for each item."""


@runtime_checkable
class Engine(Protocol):
    """Runs workers somewhere: in this process, in others, on other machines."""

    def map(
        self,
        factory: Callable[..., Worker],
        options: Mapping[str, Any],
        items: Sequence[Any],
        batch_size: int,
    ) -> Iterator[list[Any]]:
        """The results of each batch of ``batch_size`` items, in order.

        ``factory(**options)`` builds a worker; it loads its models once and may be kept for later calls
        with the same factory and options. Items, options and results are picklable and small: paths and
        numbers, never frames. A worker that dies is replaced and its batch done again, so work is
        idempotent; one that dies again raises.
        """
        ...

    def release(self) -> None:
        """Forget all workers that are kept: what comes next, a training, needs the room."""
        ...
