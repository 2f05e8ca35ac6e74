"""The user's cache: completions and verdicts paid for outside of any run, kept for the next time."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import platformdirs
from sqlalchemy.exc import SQLAlchemyError

from promptreel.errors import RunError
from promptreel.store.database import Database

log = logging.getLogger(__name__)

VARIABLE = "PROMPTREEL_CACHE"
"""Environment variable that names another directory."""


def user_cache() -> Database | None:
    """Open this user's cache; ``None``, with a warning, if it cannot be used."""
    directory = Path(os.environ.get(VARIABLE) or platformdirs.user_cache_dir("promptreel"))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return Database(f"sqlite:///{directory / 'rewrites.db'}")
    except (OSError, SQLAlchemyError, RunError) as error:
        log.warning("earlier answers are not remembered: the cache in %s cannot be used (%s)", directory, error)
        return None
