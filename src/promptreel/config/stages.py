"""Stage kinds: one table each. Their work is in ``promptreel.stages``, one file per kind."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from promptreel.config.tables import ComponentTable, QueriesTable, SamplingTable, Table


class Stage(Table):
    name: str = ""
    """Defaults to the kind. Names are unique in a recipe; stages refer to each other by them."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        return {"name": data.get("kind"), **data} if isinstance(data, dict) else data

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        """Names of the inputs of this stage, each with the kinds that it may be of: kinds of earlier stages, ``base``
        and ``system``.
        """
        return []

    @property
    def inputs(self) -> list[str]:
        """Names of the earlier stages that this one reads."""
        return [name for name, _ in self.needs]

    @property
    def objectives(self) -> list[str]:
        """Names of the objectives that it rewards candidates by."""
        return []


STUDENTS = ("base", "sft", "dpo")
"""Kinds of trainable students."""
WRITERS = (*STUDENTS, "system")
"""Kinds of systems that write prompts."""


class EvolveStage(Stage):
    """Reward-guided prompt evolution (Prompt-A-Video, stage 1)."""

    kind: Literal["evolve"]
    queries: QueriesTable
    search: ComponentTable = ComponentTable(name="rounds")
    """A search strategy with its own options; ``rounds`` is the papers' schedule."""
    rounds: int = Field(4, ge=0)
    """Rounds after round 0, the raw query. The paper says 4, its code runs 8 (gpt_boost.py, iter_times)."""
    children: int = Field(3, gt=0)
    """Proposals for each query and round (gpt_boost.py)."""
    context: int = Field(3, gt=0)
    """Number of best candidates so far that the teacher sees (gpt_boost.py)."""
    clips_per_prompt: int = Field(1, gt=0)
    """All candidates of all queries share the same noise seeds."""
    objective: str

    @property
    def objectives(self) -> list[str]:
        return [self.objective]


class CritiqueStage(Stage):
    """Draft, verdict, refinement, until the verdict passes (VPO's principle-checked data and text-level pairs)."""

    kind: Literal["critique"]
    student: str = "base"
    """Name of the system that writes the drafts."""
    queries: QueriesTable
    candidates: int = Field(1, gt=0)
    """Drafts for each query."""
    rounds: int = Field(1, ge=0)
    """Refinements of a draft at most; VPO's code refines once (src/gpt4o_infer.py)."""
    per_query: int | None = Field(1, gt=0)
    """Pairs kept for each query; VPO keeps one (src/process_data.py)."""
    sampling: SamplingTable | None = None
    """``None`` drafts with the student's own sampling."""

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.student, WRITERS)]


class TrainingStage(Stage):
    """Training of a student, with LoRA; the adapter is merged, so that further trainings can follow."""

    student: str
    """``base`` or an earlier training stage."""
    trainer: dict[str, Any] = Field(default_factory=dict)
    """Passed to TRL's configuration (``SFTConfig``, ``DPOConfig``)."""
    lora: dict[str, Any] = Field(default_factory=dict)
    """Passed to ``peft.LoraConfig``."""


class SFTStage(TrainingStage):
    """Supervised training of the student on the best candidate of each query."""

    kind: Literal["sft"]
    data: str
    """The evolve stage whose best candidates are learned, or the critique stage whose accepted texts are."""
    student: str = "base"
    margin: float = 0.0
    """Least reward by which the best candidate must beat the raw query, on the evolve stage's objective."""

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.data, ("evolve", "critique")), (self.student, STUDENTS)]


class SampleStage(Stage):
    """Candidates of a student, rendered and scored."""

    kind: Literal["sample"]
    student: str
    queries: QueriesTable
    candidates: int = Field(4, gt=1)
    clips_per_prompt: int = Field(1, gt=0)
    sampling: SamplingTable | None = None
    """``None`` samples as the student does elsewhere."""
    objective: str

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.student, WRITERS)]

    @property
    def objectives(self) -> list[str]:
        return [self.objective]


class PairsStage(Stage):
    """Preference pairs from candidates, by a named rule."""

    kind: Literal["pairs"]
    samples: str
    """The sample stage whose candidates are compared, or the critique stage, by a rule that needs no clips."""
    rule: ComponentTable

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.samples, ("sample", "critique"))]


class DPOStage(TrainingStage):
    """Training of the student on preference pairs."""

    kind: Literal["dpo"]
    pairs: list[str] = Field(min_length=1)
    """Stages that make pairs: ``pairs`` and ``critique`` stages."""
    exclusive: bool = True
    """True if a query with pairs in one source loses those of the sources named after it, as in VPO."""

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.student, STUDENTS), *((name, ("pairs", "critique")) for name in self.pairs)]


class BenchmarkTable(Table):
    queries: QueriesTable
    clips_per_prompt: int = Field(2, ge=0)
    """With 0 only the texts are judged, and nothing is rendered."""


class EvaluateStage(Stage):
    """Comparison of systems on held-out queries, with paired noise and intervals."""

    kind: Literal["evaluate"]
    systems: list[str] = Field(min_length=1)
    """``raw``, ``base``, names of training stages, and names under ``systems`` of the recipe."""
    benchmarks: dict[str, BenchmarkTable]
    reward: ComponentTable
    """A reward model that no stage trains on."""
    judge: ComponentTable | None = None
    """Judge of the texts, for the columns of facts and harm, instead of the recipe's, by which training went."""
    metrics: list[str] = Field(min_length=1)
    """Dimensions of the reward model that are compared; the first is the headline."""
    ceiling: str | None = None
    """A system that shows the best result possible."""
    baselines: list[str] = Field(default_factory=lambda: ["raw", "base"])
    """Systems that every other one is compared with, beside the one before it."""

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(name, WRITERS) for name in self.all_systems if name != "raw"]

    @property
    def all_systems(self) -> list[str]:
        """The systems, with the ceiling last."""
        return [*self.systems, *([self.ceiling] if self.ceiling else [])]


AnyStage = Annotated[
    EvolveStage | CritiqueStage | SFTStage | SampleStage | PairsStage | DPOStage | EvaluateStage,
    Field(discriminator="kind"),
]
