"""The ports. Everything outside the method implements one of these; the method knows nothing else.

LLM, Generator, Reward and Judge work on batches and return one result per item, in the order of the items. The
composition of a batch can change the values of its rows (padding, kernels). Callers therefore plan batches from the
recipe and the run's ledger, never from missing results, and store a batch whole.

``fingerprint`` is a string that differs whenever the results could: model, revision, options. It goes into the ids of
everything the component makes, and can be had without loading weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from promptreel.jobs import Finished, Job, Worker
from promptreel.moves import Ask
from promptreel.types import (
    Candidate,
    Clip,
    Completion,
    Failure,
    Message,
    Query,
    RenderRequest,
    SamplingParams,
    Scores,
    Verdict,
)

Modality = Literal["image", "video", "motion"]
"""Input of a reward model: single frames, whole clips, or the change between frames, which an image lacks."""


@runtime_checkable
class LLM(Protocol):
    """A chat model: the teacher, the student, a judge."""

    fingerprint: str

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        """Return one completion per conversation, drawn with its own parameters and seed.

        The same conversations in the same order with the same parameters give the same completions, where the model
        behind can promise it. A completion does not depend on the rows beside it, beyond rounding. A completion that
        could not be had is a ``Failure``. Raises only if no later batch could succeed either.
        """
        ...


@runtime_checkable
class Generator(Protocol):
    """A text-to-video or text-to-image model."""

    fingerprint: str
    batch_size: int
    """Number of requests it renders at once."""

    def render(
        self, requests: Sequence[RenderRequest], on_step: Callable[[int, int], None] | None = None
    ) -> list[Clip | Failure]:
        """Return one clip per request.

        The starting noise of a clip depends on its request's seed alone: requests with equal seeds are paired. A
        failed render is a ``Failure``. Raises only if no later render could succeed. ``on_step`` is called after each
        denoising step with the steps done and in all; it may raise to cancel.
        """
        ...


@runtime_checkable
class Reward(Protocol):
    """A reward model: it scores clips against the *original query*, so a prompt cannot win by matching itself.

    Class attributes declare everything that can be known without building it. Optional ones are ``ranges`` (dimension
    to lowest and highest value), ``modality``, ``licence``, ``prompt_tokens`` (tokens of a query that it reads),
    ``moving`` (dimensions that no image has), and a class method ``dimensions_of(options)`` where options name them.
    """

    dimensions: tuple[str, ...]
    """Names of its dimensions. In each, higher is better, on the model's native scale."""
    fingerprint: str

    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        """Return the dimensions of each clip; a dimension that cannot be judged is ``None``, never 0.

        Deterministic. The scores of a clip do not depend on the rest of the batch, beyond rounding.
        """
        ...


@runtime_checkable
class Explainer(Protocol):
    """A reward model that can describe a clip at no further cost. The description is stored with the scores."""

    def explain(self, query: Query, clip: Clip) -> str:
        """Describe the clip in one line."""
        ...


@runtime_checkable
class Judge(Protocol):
    """A reader of texts: which facts of the query a candidate keeps, and its harm.

    A judge of harm alone, without facts, has a class attribute ``explains = False``: recipes that need facts refuse it.
    """

    fingerprint: str

    def judge(self, candidates: Sequence[Candidate]) -> list[Verdict | None]:
        """Return a verdict on each candidate's text; ``None`` where none could be had, which no policy accepts.

        Raises ``QueryError`` for a query outside the judge's world.
        """
        ...


@runtime_checkable
class Search(Protocol):
    """A search for the best prompt of each query, as ask and tell: without disk, model or clock."""

    round: int
    """Number of the round at work; 0 measures the queries as typed."""

    def ask(self) -> Ask:
        """Return the next move; a false one when the search is over.

        Candidates written for its proposals are measured at once, unless their text was tried for the query before.
        """
        ...

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Take every candidate measured so far, with its reward; a rejected one has none.

        All rewards are given anew each time, since an objective may rank candidates against each other.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """Runs workers somewhere: in this process, in others, on other machines.

    Its constructor takes ``threads``, torch's CPU threads in each worker, if a recipe sets them.
    """

    def submit(
        self, factory: Callable[..., Worker], options: Mapping[str, Any], batches: Sequence[Sequence[Any]]
    ) -> Job:
        """Submit batches for workers that ``factory(**options)`` builds; results are taken by ``finished``.

        A worker loads its models once and may be kept for later jobs with the same factory and options. Items, options
        and results are picklable and small: ids and numbers, never frames. A worker that dies is replaced and its batch
        done again, so work is idempotent; a batch whose worker dies twice has an error.
        """
        ...

    def finished(self, *jobs: Job) -> Iterator[Finished]:
        """Yield the open batches of jobs as they finish, in any order."""
        ...

    def cancel(self, job: Job) -> None:
        """Drop the batches of a job that no worker has begun."""
        ...

    def release(self) -> None:
        """Forget all workers: the training that comes next needs their memory."""
        ...

    def close(self) -> None:
        """End all workers: the run is over."""
        ...
