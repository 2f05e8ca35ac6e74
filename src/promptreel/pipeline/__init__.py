"""A run: order, status, summary, export."""

from promptreel.pipeline.pipeline import Pipeline
from promptreel.pipeline.run import begun_recipe, run

__all__ = ["Pipeline", "begun_recipe", "run"]
