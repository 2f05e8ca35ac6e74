"""A run directory: the only place that chooses where in it something lies.

recipe.toml    as given           recipe.json   as resolved
run.db         the database       clips/        rendered media, lossless
models/<stage>/                   what from_pretrained reads; appears by rename when complete
summary.json
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from promptreel.errors import RunError
from promptreel.store.clips import ClipCache
from promptreel.store.database import Database

StageState = Literal["new", "running", "done"]


class Run:
    """An open run directory. One process at a time; close it, or use it as a context."""

    def __init__(self, directory: Path, database_url: str | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._lock = _lock(directory / "run.lock")
        self.clips = ClipCache(directory / "clips")
        try:
            self.database = Database(database_url or f"sqlite:///{directory / 'run.db'}")
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()
        self._lock.close()

    def model(self, stage: str) -> Path:
        """Where the model that a stage trains lies once it is complete."""
        return self.directory / "models" / stage

    @contextmanager
    def publishing(self, stage: str) -> Iterator[Path]:
        """A scratch directory that becomes ``model(stage)`` when the block ends well.

        Leftovers of a killed training are removed first: it starts again from its start.
        """
        final = self.model(stage)
        scratch = final.with_name(f".{stage}.part")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
        for extra in scratch.rglob("*.bin"):
            extra.unlink()  # training_args.bin and optimiser states are pickles
        shutil.rmtree(final, ignore_errors=True)
        scratch.rename(final)

    def write_recipe(self, given: str, resolved: Mapping[str, Any]) -> None:
        write_text(self.directory / "recipe.toml", given)
        write_text(self.directory / "recipe.json", json.dumps(resolved, indent=1, ensure_ascii=False))

    def recipe(self) -> dict[str, Any] | None:
        """The resolved recipe that this run was begun with, if it was."""
        path = self.directory / "recipe.json"
        return json.loads(path.read_text()) if path.exists() else None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_text(self.directory / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False))

    def summary(self) -> dict[str, Any] | None:
        path = self.directory / "summary.json"
        return json.loads(path.read_text()) if path.exists() else None


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either as it was or complete."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _lock(path: Path) -> Any:
    """Hold the directory for this process until the returned file is closed or the process ends."""
    handle = path.open("a+")
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise RunError(f"another process works on {path.parent}; wait for it or choose another --out") from error
    return handle
