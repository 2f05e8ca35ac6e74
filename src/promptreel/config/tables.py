"""Tables of a recipe that several stages share, as typed and closed data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from promptreel.objective import Objective
from promptreel.policy import Invented, Policy, Safety
from promptreel.types import Component


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ComponentTable(BaseModel):
    """A component by name; every other key is an option of it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}

    def component(self, kind: str) -> Component:
        return Component(kind, self.name, self.options)


class SamplingTable(Table):
    temperature: float = Field(1.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, gt=0)


class AskingTable(Table):
    """The way a language model is asked, and its sampling."""

    format: str = "standard"
    """Name of the template files that it is asked with."""
    sampling: SamplingTable = SamplingTable()
    batch_size: int = Field(64, gt=0)


class WriterTable(AskingTable):
    """A language model in a role."""

    llm: ComponentTable


class SystemTable(AskingTable):
    """A system that is evaluated beside the students: another language model, or a student as it is used."""

    llm: ComponentTable | None = None
    student: str | None = None
    """``base`` or a training stage, instead of ``llm``; it is asked and samples as the recipe's student does."""
    attempts: int = Field(1, gt=0)
    """Draws for a query at most. With more than one, the system is as ``promptreel rewrite`` runs it: candidates are
    checked by the recipe's policy, and drawn again while none is accepted."""

    @model_validator(mode="after")
    def _one_model(self) -> SystemTable:
        if (self.llm is None) == (self.student is None):
            raise ValueError("give either llm, a language model, or student, a stage that trains one")
        return self


class QueriesTable(Table):
    """A slice of a source of queries. Slices of one source that do not overlap are disjoint in content."""

    source: str
    """A file, ``hub:OWNER/NAME[:SPLIT][#COLUMN]``, or the name of a data set such as ``tiny-train``."""
    near: float | None = Field(None, gt=0, le=1)
    """Least similarity (Jaccard, of pairs of adjacent words) at which a query counts as a duplicate of an earlier one
    and is dropped; 1 drops those with the same words. VPO drops by self-BLEU."""
    split: Literal["train", "dev", "test"] | None = None
    """Part of the source to take, by content: 80, 10 and 10 %."""
    skip: int = Field(0, ge=0)
    """Counted after near-duplicates and other splits are gone."""
    take: int | None = Field(None, gt=0)
    """``None`` takes all that is left; an endless source needs a number."""


class ObjectiveTable(Table):
    """A named objective: the weighted sum of score dimensions on their native scales."""

    weights: dict[str, float]
    floors: dict[str, float] = {}
    """Least value of a dimension. A candidate below any of these is never chosen."""

    def objective(self) -> Objective:
        return Objective(self.weights, self.floors)


class PolicyTable(Table):
    """The policy for texts and queries; see ``promptreel.policy``."""

    safety: Safety = "rewrite_to_safe"
    fidelity: float = Field(1.0, ge=0, le=1)
    invented: Invented = "reject"

    def policy(self) -> Policy:
        return Policy(self.safety, self.fidelity, self.invented)
