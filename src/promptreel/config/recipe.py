"""The recipe: everything a run does, as typed and closed data. ``load`` reads it from files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field, model_validator

from promptreel.config.stages import STUDENTS, WRITERS, AnyStage, EvaluateStage, Stage, TrainingStage
from promptreel.config.tables import (
    ComponentTable,
    ObjectiveTable,
    PolicyTable,
    SystemTable,
    Table,
    WriterTable,
)
from promptreel.errors import UnknownName, did_you_mean
from promptreel.types import MAIN, Component


class Recipe(Table):
    name: str
    seed: int = Field(0, ge=0)
    """Root of every random choice of the run: noise, sampling, training."""
    profile: str
    """The video model that prompts are written for."""
    generator: ComponentTable
    generators: dict[str, ComponentTable] = Field(default_factory=dict)
    """Further generators by name, such as a cheap one for previews."""
    student: WriterTable
    teacher: WriterTable
    judge: ComponentTable
    """Judge of facts and harm, for the policy and the fidelity columns."""
    policy: PolicyTable = PolicyTable()
    rewards: dict[str, ComponentTable]
    objectives: dict[str, ObjectiveTable]
    systems: dict[str, SystemTable] = Field(default_factory=dict)
    """Systems that are evaluated beside the students."""
    engine: ComponentTable = ComponentTable(name="local")
    threads: int | None = Field(None, gt=0)
    """Threads of torch on the CPU; ``None`` takes all cores. Recorded, since sums depend on it."""
    stage: list[AnyStage]

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if MAIN in self.generators:
            raise ValueError(f"generators.{MAIN}: the recipe's own generator has this name; choose another")
        known = {"base": "base", **dict.fromkeys(self.systems, "system")}
        for stage in self.stage:
            if stage.name in (*known, "raw"):
                raise ValueError(f"two stages or systems are called {stage.name!r}; give each its own name")
            self._check_inputs(stage, known)
            known[stage.name] = stage.kind
        students = [name for name, kind in known.items() if kind in STUDENTS]
        for name, system in self.systems.items():
            if system.student and system.student not in students:
                raise ValueError(f"system {name!r} needs {system.student!r}{did_you_mean(system.student, students)}")
        self._check_benchmarks(["raw", *(name for name, kind in known.items() if kind in WRITERS)])
        return self

    def _check_inputs(self, stage: Stage, known: dict[str, str]) -> None:
        """Raise for an input or objective that does not exist, or an input of the wrong kind."""
        for needed, kinds in stage.needs:
            if known.get(needed) not in kinds:
                fitting = did_you_mean(needed, [name for name, kind in known.items() if kind in kinds])
                if needed in known:
                    unfit = f"{needed!r}, which is of kind {known[needed]!r}"
                    raise ValueError(f"stage {stage.name!r} cannot work with {unfit}{fitting}")
                raise ValueError(f"stage {stage.name!r} needs {needed!r}{fitting}")
        for name in stage.objectives:
            if name not in self.objectives:
                hint = did_you_mean(name, self.objectives)
                raise ValueError(f"stage {stage.name!r} needs the objective {name!r}{hint}")

    def _check_benchmarks(self, systems: Sequence[str]) -> None:
        """Raise for a baseline that does not exist, and for two benchmarks of one name."""
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

    def generator_component(self, name: str = MAIN) -> Component:
        """Return a generator of the recipe, with the profile of its video model among its options."""
        if name != MAIN and name not in self.generators:
            raise UnknownName("generator", name, [MAIN, *self.generators])
        table = self.generator if name == MAIN else self.generators[name]
        return Component("generator", table.name, {"profile": self.profile, **table.options})

    def engine_component(self) -> Component:
        """Return the engine, with the recipe's threads among its options."""
        threads = {"threads": self.threads} if self.threads else {}
        return Component("engine", self.engine.name, {**self.engine.options, **threads})

    def inputs(self, stage: Stage) -> list[str]:
        """Return the names of a stage's inputs; for a system that is a stage's student, the stage's name."""
        students = {name: system.student for name, system in self.systems.items()}
        return [students.get(name) or name for name in stage.inputs]

    def models(self) -> Iterator[tuple[str, ComponentTable, str]]:
        """Yield role, language model and format of everything that writes and is not trained in the run."""
        yield "student", self.student.llm, self.student.format
        yield "teacher", self.teacher.llm, self.teacher.format
        yield from ((name, system.llm, system.format) for name, system in self.systems.items() if system.llm)

    def stages(self, kind: type[Any]) -> Iterator[Any]:
        return (stage for stage in self.stage if isinstance(stage, kind))

    def trained(self) -> list[str]:
        """Return the names of the stages that train a student, in order."""
        return [stage.name for stage in self.stages(TrainingStage)]

    def named(self, name: str) -> AnyStage:
        """Return the stage of this name. Raises ``UnknownName``."""
        found = {stage.name: stage for stage in self.stage}
        if name not in found:
            raise UnknownName("stage", name, found)
        return found[name]

    def resolved(self) -> dict[str, Any]:
        return self.model_dump(mode="json")
