"""A run directory: the only place that chooses where in it something lies.

recipe.toml    as given           recipe.json   as resolved
run.db         the database       clips/        rendered media, lossless
models/<stage>/                   what from_pretrained reads; appears by rename when complete
summary.json   report.html        what was found, for machines and for people
run.lock       held by the process that works on the run
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from promptreel.errors import RunError
from promptreel.store.clips import ClipCache
from promptreel.store.database import Database
from promptreel.store.faults import damaged, explain

MANIFEST = "manifest.json"
"""In a published model: the size of each of its files, so that damage is seen before it is loaded."""


class Run:
    """An open run directory; close it, or use it as a context, which says disk and database faults in one line.

    One process at a time works on it. ``alone=False`` opens it to look at, also while another works.
    """

    def __init__(self, directory: Path, alone: bool = True) -> None:
        self.directory = directory
        self.clips = ClipCache(directory / "clips")
        self._lock: IO[str] | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(directory / "run.lock") if alone else None
            self.database = Database(f"sqlite:///{directory / 'run.db'}")
            if flaw := self.database.flaw():
                raise damaged(directory, flaw)
            if self.database.new and self.recipe() is not None:
                raise damaged(directory, "it is empty, and the run was begun")
        except BaseException as error:
            if self._lock:
                self._lock.close()
            if told := explain(error, directory):
                raise told from error
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()
        if error is not None and (told := explain(error, self.directory)):
            raise told from error

    def close(self) -> None:
        self.database.close()
        if self._lock:
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
        try:
            yield scratch
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        for extra in scratch.rglob("*.bin"):
            extra.unlink()  # training_args.bin and optimiser states are pickles
        sizes = _sizes(scratch)
        (scratch / MANIFEST).write_text(json.dumps(sizes, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        scratch.rename(final)

    def has_model(self, stage: str) -> bool:
        """Whether the model that a stage trained lies there with all that was published."""
        final = self.model(stage)
        try:
            published = json.loads((final / MANIFEST).read_text())
        except (FileNotFoundError, ValueError):
            return False
        found = _sizes(final)
        return all(found.get(name) == size for name, size in published.items())

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


def _sizes(directory: Path) -> dict[str, int]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in files}


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either as it was or complete."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _lock(path: Path) -> IO[str]:
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
