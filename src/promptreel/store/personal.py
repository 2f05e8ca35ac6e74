"""What a person has paid for outside of any run, kept for the next time they ask."""

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
"""The environment variable that names another directory."""


def personal_cache() -> Database | None:
    """Replies and verdicts of this user, by content; ``None``, with a warning, where nothing can be written."""
    directory = Path(os.environ.get(VARIABLE) or platformdirs.user_cache_dir("promptreel"))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return Database(f"sqlite:///{directory / 'rewrites.db'}")
    except (OSError, SQLAlchemyError, RunError) as error:
        log.warning("what was asked before is not remembered: %s cannot be used (%s)", directory, error)
        return None
