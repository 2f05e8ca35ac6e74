"""Recipes: their tables, and how they are read from files."""

from promptreel.config.load import load_recipe, parse_recipe, same
from promptreel.config.recipe import Recipe
from promptreel.config.stages import (
    AnyStage,
    BenchmarkTable,
    CritiqueStage,
    DPOStage,
    EvaluateStage,
    EvolveStage,
    PairsStage,
    SampleStage,
    SFTStage,
    Stage,
    TrainingStage,
)
from promptreel.config.tables import (
    AskingTable,
    ComponentTable,
    ObjectiveTable,
    PolicyTable,
    QueriesTable,
    SamplingTable,
    SystemTable,
    WriterTable,
)

__all__ = [
    "AnyStage",
    "AskingTable",
    "BenchmarkTable",
    "ComponentTable",
    "CritiqueStage",
    "DPOStage",
    "EvaluateStage",
    "EvolveStage",
    "ObjectiveTable",
    "PairsStage",
    "PolicyTable",
    "QueriesTable",
    "Recipe",
    "SFTStage",
    "SampleStage",
    "SamplingTable",
    "Stage",
    "SystemTable",
    "TrainingStage",
    "WriterTable",
    "load_recipe",
    "parse_recipe",
    "same",
]
