"""A run directory: the only place that chooses where in it something lies.

recipe.toml    as given           recipe.json   as resolved
run.db         the database       clips/        rendered media, lossless
run.id         the run's name in its database, and where that and the clips are, if elsewhere
models/<stage>/                   a trained student, for from_pretrained; appears by rename when complete
summary.json   report.html        the result, for machines and for people
run.lock       held by the process that works on the run
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from promptreel.errors import RunError, UserError
from promptreel.media import ClipStore
from promptreel.store.database import Database
from promptreel.store.dialect import absolute, folder_of
from promptreel.store.disk_errors import damaged, explain
from promptreel.store.records import Records
from promptreel.store.summary import Summary

RUN_ID = "run.id"
MANIFEST = "manifest.json"
"""In a published model: the size of each of its files, so that damage is seen before it is loaded."""
OURS = {"run.lock", "clips", "models"}
"""Possible remains of a run that was killed at its very beginning."""


class Run:
    """An open run directory. Close it, or use it as a context, which turns disk and database errors into one line.

    One process at a time works on it. ``writable=False`` opens it to look at, also while another process works: nothing
    in it changes. ``database`` is the URL of a database that several runs share, and ``clips`` that of their clip
    store, by default the folder ``clips`` beside the database's file. A run remembers both. By default each run has its
    own.
    """

    def __init__(
        self, directory: Path, writable: bool = True, database: str | None = None, clips: str | None = None
    ) -> None:
        self.directory = directory
        known = self._known()
        database, clips = database or known.get("database"), clips or known.get("clips")
        if database:
            database = absolute(database)
            clips = clips or str(folder_of(database) / "clips")
        self.clips = ClipStore(clips or str(directory / "clips"))
        self._lock: IO[str] | None = None
        own = directory / "run.db"
        if not writable and database is None and not own.exists():
            raise UserError(f"{directory} holds no run; begin one with  promptreel run RECIPE --out {directory}")
        try:
            if writable:
                directory.mkdir(parents=True, exist_ok=True)
                self._lock = _lock(directory / "run.lock")
            self.database = Database(database or f"sqlite:///{own}", writable)
            if flaw := self.database.flaw():
                raise damaged(directory, flaw)
            if self.database.new and database is None and self.recipe() is not None:
                raise damaged(directory, "it is empty, and the run was begun")
            if "id" not in known and writable:
                known = {"id": uuid.uuid4().hex[:12], "database": database, "clips": clips}
                write_text(directory / RUN_ID, json.dumps({key: value for key, value in known.items() if value}))
            self.records = Records(self.database, known.get("id") or "")
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

    def _known(self) -> dict[str, str | None]:
        """Return the run's name, and the URLs of its database and clips if they are elsewhere; empty for a new run."""
        path = self.directory / RUN_ID
        if not path.exists():
            return {}
        try:
            found: dict[str, str | None] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path} is damaged ({error}): put a copy of it back") from error
        return found

    def is_at_work(self) -> bool:
        """Return True if a process, perhaps this one, works on the run."""
        path = self.directory / "run.lock"
        if self._lock or not path.exists():
            return self._lock is not None
        try:
            _lock(path, "r").close()
        except RunError:
            return True
        return False

    def model(self, stage: str) -> Path:
        """Return the directory of the model that a stage trains, which exists once it is complete."""
        return self.directory / "models" / stage

    @contextmanager
    def publishing(self, stage: str) -> Iterator[Path]:
        """Give a scratch directory that becomes ``model(stage)`` when the block ends well.

        Remains of a killed training are removed first: it starts again from its start.
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
        """Return True if the model that a stage trained is there with all its files."""
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
        """Return the resolved recipe that this run was begun with; ``None`` if it was not begun."""
        path = self.directory / "recipe.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def recipe_text(self) -> str:
        """Return the recipe as it was given."""
        return (self.directory / "recipe.toml").read_text(encoding="utf-8")

    def write_summary(self, summary: Summary) -> None:
        text = json.dumps(summary.to_json(), indent=1, ensure_ascii=False)
        write_text(self.directory / "summary.json", text)

    def summary(self) -> Summary | None:
        """Return the summary as written last; ``None`` before the first."""
        path = self.directory / "summary.json"
        return Summary.model_validate_json(path.read_text(encoding="utf-8")) if path.exists() else None


def holds_other_things(directory: Path) -> bool:
    """Return True for a directory with files that are not a run's."""
    there = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    return there.isdisjoint({"run.db", RUN_ID}) and bool(there - OURS)


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


def _lock(path: Path, mode: str = "a+") -> IO[str]:
    """Hold the directory for this process until the returned file is closed or the process ends."""
    handle = path.open(mode)
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
