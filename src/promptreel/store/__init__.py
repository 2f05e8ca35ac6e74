"""What was done and paid for: the run database, the clip cache and the run directory."""

from promptreel.store.clips import ClipCache
from promptreel.store.database import Database
from promptreel.store.personal import personal_cache
from promptreel.store.run import Run

__all__ = ["ClipCache", "Database", "Run", "personal_cache"]
