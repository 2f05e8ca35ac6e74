"""Everything done and paid for: the database, the clip store and the run directory."""

from promptreel.store.database import Database
from promptreel.store.records import Records
from promptreel.store.run import Run
from promptreel.store.summary import BenchmarkSize, Comparison, Findings, Gap, Mean, Summary
from promptreel.store.user_cache import user_cache

__all__ = [
    "BenchmarkSize",
    "Comparison",
    "Database",
    "Findings",
    "Gap",
    "Mean",
    "Records",
    "Run",
    "Summary",
    "user_cache",
]
