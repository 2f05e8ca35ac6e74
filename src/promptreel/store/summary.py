"""The summary of a run: its result as typed data, written as ``summary.json``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Comparison(_Part):
    """Win rate of system ``a`` over system ``b``; a tie counts one half."""

    benchmark: str
    a: str
    b: str
    metric: str
    judge: str
    """Name of the reward model that measured the metric."""
    win_rate: float
    ci95: tuple[float, float]
    queries: int


class Mean(_Part):
    """Mean of a metric over the queries of a benchmark, for one system."""

    benchmark: str
    system: str
    metric: str
    mean: float
    ci95: tuple[float, float]
    queries: int


class Gap(_Part):
    """Share of the way from raw queries (0) to the ceiling (1) that a system goes."""

    benchmark: str
    system: str
    metric: str
    closed: float
    ci95: tuple[float, float]


class BenchmarkSize(_Part):
    queries: int
    clips_per_prompt: int
    not_rendered: dict[str, int] = {}
    """By system, prompts that the policy withheld."""
    left_out: dict[str, int] = {}
    """Queries left out, by reason."""


class Findings(_Part):
    """The results of an evaluation."""

    benchmarks: dict[str, BenchmarkSize] = {}
    comparisons: tuple[Comparison, ...] = ()
    means: tuple[Mean, ...] = ()
    gaps: tuple[Gap, ...] = ()

    def __add__(self, other: Findings) -> Findings:
        return Findings(
            benchmarks={**self.benchmarks, **other.benchmarks},
            comparisons=self.comparisons + other.comparisons,
            means=self.means + other.means,
            gaps=self.gaps + other.gaps,
        )

    def to_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=False)


class Summary(Findings):
    """The result of a run so far."""

    recipe: str
    finished: bool
    systems: tuple[str, ...]
    ceiling: str | None
    stages: dict[str, dict[str, Any]] = {}
    """Output of each stage that was begun, evaluations aside; its keys are the stage kind's."""
    renders: dict[str, int] = {}
    """Clips paid for, by stage."""
    seconds: dict[str, float] = {}
    failures: dict[str, int] = {}
    """Results that could not be had, by reason."""
