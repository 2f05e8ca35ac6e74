"""Faults of disk and database, in words: full, forbidden, held by another program, damaged."""

from __future__ import annotations

import errno
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from promptreel.errors import RunError
from promptreel.store.dialect import DAMAGED_WORDS, FULL_WORDS, HELD_WORDS

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_full(error: BaseException) -> bool:
    """Return True for the error of a full disk."""
    words = str(error).lower()
    return (isinstance(error, OSError) and error.errno in FULL) or any(said in words for said in FULL_WORDS)


def explain(error: BaseException, directory: Path) -> RunError | None:
    """Return the message for an error of a run's disk or database; ``None`` for other errors."""
    if is_full(error):
        return RunError(
            f"the disk of {directory} is full; what was stored is whole: make room, and the same command goes on "
            "from here"
        )
    if isinstance(error, OSError) and error.errno in FORBIDDEN:
        return RunError(f"cannot write {error.filename or directory}: {error.strerror}")
    if not isinstance(error, DatabaseError):
        return None
    words = str(error.orig)
    if any(said in words for said in HELD_WORDS):
        return RunError(f"another program holds the database of {directory}; close it, and the same command goes on")
    if any(said in words for said in DAMAGED_WORDS):
        return damaged(directory, words)
    return RunError(f"the database of {directory} failed: {words}")


def damaged(directory: Path, words: str) -> RunError:
    return RunError(
        f"the database of {directory} is damaged ({words}); put a copy of it back, or begin a new run with another "
        "--out"
    )
