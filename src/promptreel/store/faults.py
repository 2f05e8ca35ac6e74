"""What the machine does to a run, in words: a disk that is full, a database that is held or damaged."""

from __future__ import annotations

import errno
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from promptreel.errors import RunError

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL_WORDS = ("no space left on device", "database or disk is full", "disk quota exceeded")
"""How libraries say it that pass on no number: SQLite, and the writer of safetensors."""


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk is full."""
    words = str(error).lower()
    return (isinstance(error, OSError) and error.errno in FULL) or any(said in words for said in FULL_WORDS)


def explain(error: BaseException, directory: Path) -> RunError | None:
    """What a person must know of an error that the disk or the database of a run raised; ``None`` for others."""
    if is_full(error):
        return RunError(f"the disk of {directory} is full; what was stored is whole: make room, and the same "
                        "command goes on from here")  # fmt: skip
    if isinstance(error, OSError) and error.errno in FORBIDDEN:
        return RunError(f"cannot write {error.filename or directory}: {error.strerror}")
    if not isinstance(error, DatabaseError):
        return None
    words = str(error.orig)
    if "locked" in words:
        return RunError(f"another program holds the database of {directory}; close it, and the same command goes on")
    if "malformed" in words or "not a database" in words:
        return damaged(directory, words)
    return RunError(f"the database of {directory} failed: {words}")


def damaged(directory: Path, words: str) -> RunError:
    return RunError(f"the database of {directory} is damaged ({words}); put a copy of it back, or begin a new run "
                    "with another --out")  # fmt: skip
