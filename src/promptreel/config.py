"""The recipe: what a run does, as typed and closed data. ``recipes`` reads it from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from promptreel.errors import did_you_mean
from promptreel.types import Component


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ComponentTable(BaseModel):
    """A component by name; every other key is an option of it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    def component(self, kind: str) -> Component:
        return Component(kind, self.name, self.model_extra or {})


class SamplingTable(Table):
    temperature: float = Field(1.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, gt=0)


class AskingTable(Table):
    """How a language model is asked and how it draws."""

    format: str = "standard"
    """Which of the template files it is asked with."""
    sampling: SamplingTable = SamplingTable()
    batch_size: int = Field(64, gt=0)


class WriterTable(AskingTable):
    """A language model in a role."""

    llm: ComponentTable


class SystemTable(AskingTable):
    """What is evaluated beside the students: another language model, or a student whose rewrites are checked."""

    llm: ComponentTable | None = None
    student: str | None = None
    """``base`` or a training stage, instead of ``llm``; it is asked and draws as the recipe's student does."""
    attempts: int = Field(1, gt=0)
    """How often a rewrite is drawn for a query while the gate lets none through, as ``promptreel rewrite`` does."""

    @model_validator(mode="after")
    def _one_model(self) -> SystemTable:
        if (self.llm is None) == (self.student is None):
            raise ValueError("give either llm, a language model, or student, a stage that trains one")
        return self


class QueriesTable(Table):
    """Which queries of which source. Slices of one source that do not overlap are disjoint in content."""

    source: str
    """A file, ``hub:OWNER/NAME[:SPLIT][#COLUMN]``, or the name of a data set such as ``tiny-train``."""
    near: float | None = Field(None, gt=0, le=1)
    """Drops queries that are this similar to an earlier one (Jaccard, of pairs of adjacent words); 1 drops those
    with the same words. VPO drops by self-BLEU."""
    split: Literal["train", "dev", "test"] | None = None
    """Takes the queries whose content falls into this part: 80, 10 and 10 %, whatever the source."""
    skip: int = Field(0, ge=0)
    """Counted after near-duplicates and other splits are gone."""
    take: int | None = Field(None, gt=0)
    """``None`` takes all that is left; an endless source needs a number."""


class BlendTable(Table):
    """Scores to one number: the weighted sum of dimensions on their native scales."""

    weights: dict[str, float]
    floors: dict[str, float] = {}
    """A rewrite below any of these is never chosen."""


class GateTable(Table):
    """What a rewrite must pass, text only, before a render is paid for."""

    fidelity: float = Field(1.0, ge=0, le=1)
    """Least share of the query's facts that are kept; those that are harm do not count."""


class Stage(Table):
    name: str = ""
    """Defaults to the kind; names are unique in a recipe and are how stages refer to each other."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        return {"name": data.get("kind"), **data} if isinstance(data, dict) else data

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        """The names of what this stage reads, each with the kinds that it may be of: those of earlier stages, ``base``
        and ``system``.
        """
        return []

    @property
    def inputs(self) -> list[str]:
        """The names of the earlier stages that this one reads."""
        return [name for name, _ in self.needs]


STUDENTS = ("base", "sft", "dpo")
"""Kinds of what can be trained."""
WRITERS = (*STUDENTS, "system")
"""Kinds of what writes prompts."""


class EvolveStage(Stage):
    """Reward-guided prompt evolution (Prompt-A-Video, stage 1)."""

    kind: Literal["evolve"]
    queries: QueriesTable
    rounds: int = Field(4, ge=0)
    """After round 0, the raw query. The paper says 4, its code runs 8 (gpt_boost.py, iter_times)."""
    children: int = Field(3, gt=0)
    """Proposals for each query and round (gpt_boost.py)."""
    context: int = Field(3, gt=0)
    """How many of the best rewrites so far the teacher sees (gpt_boost.py)."""
    seeds: int = Field(1, gt=0)
    """Clips for each rewrite; all rewrites of all queries share the same seeds."""
    blend: str


class CritiqueStage(Stage):
    """Draft, verdict, refine, until the verdict passes (VPO's principle-checked data and text-level pairs)."""

    kind: Literal["critique"]
    student: str = "base"
    """Who drafts."""
    queries: QueriesTable
    candidates: int = Field(1, gt=0)
    """Drafts for each query."""
    rounds: int = Field(1, ge=0)
    """Refinements of a draft at most; VPO's code refines once (src/gpt4o_infer.py)."""
    per_query: int | None = Field(1, gt=0)
    """Pairs kept for each query; VPO keeps one (src/process_data.py)."""
    sampling: SamplingTable | None = None
    """``None`` drafts as the student does elsewhere."""

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.student, WRITERS)]


class SFTStage(Stage):
    """Train the student on the best rewrite of each query."""

    kind: Literal["sft"]
    data: str
    """The evolve stage whose best rewrites are learned, or the critique stage whose accepted texts are."""
    student: str = "base"
    margin: float = 0.0
    """How much the best rewrite must beat the raw query by, on the evolve stage's blend."""
    trainer: dict[str, Any] = {}
    """Passed to ``trl.SFTConfig``."""
    lora: dict[str, Any] = {}
    """Passed to ``peft.LoraConfig``."""

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.data, ("evolve", "critique")), (self.student, STUDENTS)]


class SampleStage(Stage):
    """Draw candidates from a student, render and score them."""

    kind: Literal["sample"]
    student: str
    queries: QueriesTable
    candidates: int = Field(4, gt=1)
    seeds: int = Field(1, gt=0)
    sampling: SamplingTable | None = None
    """``None`` draws as the student does elsewhere."""
    blend: str

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.student, WRITERS)]


class PairsStage(Stage):
    """Turn candidates into preference pairs by a named rule."""

    kind: Literal["pairs"]
    samples: str
    """The sample stage whose candidates are compared, or the critique stage, by a rule that needs no clips."""
    rule: ComponentTable

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.samples, ("sample", "critique"))]


class DPOStage(Stage):
    """Train the student on preference pairs; the adapter is merged, so that rounds can follow."""

    kind: Literal["dpo"]
    student: str
    pairs: list[str] = Field(min_length=1)
    """Stages that make pairs: ``pairs`` and ``critique`` stages."""
    exclusive: bool = True
    """Whether a query with pairs in one source loses those of the sources named after it, as in VPO."""
    trainer: dict[str, Any] = {}
    """Passed to ``trl.DPOConfig``."""
    lora: dict[str, Any] = {}
    """Passed to ``peft.LoraConfig``."""

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(self.student, STUDENTS), *((name, ("pairs", "critique")) for name in self.pairs)]


class BenchmarkTable(Table):
    queries: QueriesTable
    seeds: int = Field(2, ge=0)
    """Clips for each prompt; with 0 only the texts are judged, and nothing is rendered."""


class EvaluateStage(Stage):
    """Compare systems on held-out queries, with paired seeds and intervals."""

    kind: Literal["evaluate"]
    systems: list[str] = Field(min_length=1)
    """``raw``, ``base``, names of training stages, and names under ``systems`` of the recipe."""
    benchmarks: dict[str, BenchmarkTable]
    judge: ComponentTable
    """A reward that no stage trains on."""
    text_judge: ComponentTable | None = None
    """Reads the texts for the columns of facts and harm, where it should not be the recipe's judge, by which
    training went."""
    metrics: list[str] = Field(min_length=1)
    """Dimensions of the judge that are compared; the first is the headline."""
    ceiling: str | None = None
    """The system that shows how far up is."""
    baselines: list[str] = ["raw", "base"]
    """Systems that every other one is compared with, beside the one before it."""

    @property
    def needs(self) -> list[tuple[str, tuple[str, ...]]]:
        written = [name for name in self.systems if name != "raw"]
        return [(name, WRITERS) for name in [*written, *([self.ceiling] if self.ceiling else [])]]


AnyStage = Annotated[
    EvolveStage | CritiqueStage | SFTStage | SampleStage | PairsStage | DPOStage | EvaluateStage,
    Field(discriminator="kind"),
]


class Recipe(Table):
    name: str
    seed: int = Field(0, ge=0)
    profile: str
    """The video model that prompts are written for."""
    generator: ComponentTable
    student: WriterTable
    teacher: WriterTable
    judge: ComponentTable
    """Reads rewrites for facts and harm, for the gate and the fidelity columns."""
    gate: GateTable = GateTable()
    safety: Literal["rewrite_to_safe", "refuse", "off"] = "rewrite_to_safe"
    """What becomes of harm. ``rewrite_to_safe``: a query keeps its harmless facts, and no harmful text is rendered,
    be it a rewrite (VPO) or the query. ``refuse``: a harmful query is neither rewritten nor rendered, and counted.
    ``off``: harm is not judged."""
    rewards: dict[str, ComponentTable]
    blends: dict[str, BlendTable]
    systems: dict[str, SystemTable] = {}
    """What is evaluated beside the students."""
    engine: ComponentTable = ComponentTable(name="local")
    threads: int | None = Field(None, gt=0)
    """Of torch on the CPU; ``None`` takes all cores. Recorded, since sums depend on it."""
    stage: list[AnyStage]

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        known = {"base": "base", **dict.fromkeys(self.systems, "system")}
        for stage in self.stage:
            if stage.name in (*known, "raw"):
                raise ValueError(f"two stages or systems are called {stage.name!r}; give each its own name")
            for needed, kinds in stage.needs:
                if known.get(needed) not in kinds:
                    fitting = did_you_mean(needed, [name for name, kind in known.items() if kind in kinds])
                    if needed in known:
                        unfit = f"{needed!r}, which is of kind {known[needed]!r}"
                        raise ValueError(f"stage {stage.name!r} cannot work with {unfit}{fitting}")
                    raise ValueError(f"stage {stage.name!r} needs {needed!r}{fitting}")
            blend = getattr(stage, "blend", None)
            if blend is not None and blend not in self.blends:
                raise ValueError(f"stage {stage.name!r} needs the blend {blend!r}{did_you_mean(blend, self.blends)}")
            known[stage.name] = stage.kind
        students = [name for name, kind in known.items() if kind in STUDENTS]
        for name, system in self.systems.items():
            if system.student and system.student not in students:
                raise ValueError(f"system {name!r} needs {system.student!r}{did_you_mean(system.student, students)}")
        self._comparable(["raw", *(name for name, kind in known.items() if kind in WRITERS)])
        return self

    def _comparable(self, systems: Sequence[str]) -> None:
        """Raise for an evaluation that compares with what there is not, or would overwrite another."""
        measured: dict[str, str] = {}
        for stage in self.stages(EvaluateStage):
            for name in stage.baselines:
                if name not in systems:
                    raise ValueError(f"{stage.name}.baselines: no system {name!r}{did_you_mean(name, systems)}")
            for name in stage.benchmarks:
                if name in measured:
                    both = f"{measured[name]!r} and {stage.name!r}"
                    raise ValueError(f"stages {both} have a benchmark {name!r}; give each its own name")
                measured[name] = stage.name

    def inputs(self, stage: Stage) -> list[str]:
        """The names of what a stage reads; of a system that is a stage's student, that of the stage."""
        students = {name: system.student for name, system in self.systems.items()}
        return [students.get(name) or name for name in stage.inputs]

    def models(self) -> Iterator[tuple[str, ComponentTable, str]]:
        """The role, the language model, and the format it is asked in, of everything that writes and comes along."""
        yield "student", self.student.llm, self.student.format
        yield "teacher", self.teacher.llm, self.teacher.format
        yield from ((name, system.llm, system.format) for name, system in self.systems.items() if system.llm)

    def stages(self, kind: type[Any]) -> Iterator[Any]:
        return (stage for stage in self.stage if isinstance(stage, kind))

    def resolved(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
