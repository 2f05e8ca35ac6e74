"""Comparison of two runs, value by value: ``python tools/golden.py OLD NEW``.

OLD and NEW are run directories, or JSON files that ``write`` made of one. Both layouts of the database (tables
``replies``, ``rewrites``, ``losses``, or ``completions``, ``candidates``, ``failures``) are read into one canonical
form of plain dicts, so a run of old code can be compared with one of new code. Times, batches, steps, environments and
run ids are not part of it. Exit code: 0 for equal runs, 1 for differences, 2 for wrong input.

Differences that are meant are named with ``--except TABLE:NAME``. NAME is compared with each part of a row's key
(``evaluations:checked``, ``candidates:evolve``), with its whole key, parts joined by ``/``, and with the field
(``evaluations:withheld``, ``summary:means``); ``*`` and ``?`` are wildcards. They are listed apart, and do not count.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

Form = dict[str, dict[str, Any]]
"""Canonical form of a run: table to nested dicts of rows, whose levels are the parts of a row's key (see ``KEYS``)."""

KEYS: dict[str, tuple[str, ...]] = {
    "queries": ("id",),
    "clips": ("id",),
    "scores": ("id",),
    "verdicts": ("id",),
    "completions": ("llm", "kind", "text", "tokens"),
    "candidates": ("stage", "query", "text"),
    "pairs": ("stage", "query", "chosen", "rejected"),
    "evaluations": ("benchmark", "system", "query"),
    "stages": ("name",),
    "failures": ("stage", "reason"),
    "summary": ("key",),
    "models": ("file",),
}
"""Parts of the key of each table's rows."""

RENAMED = {
    "dropped": "rejected",
    "passed at once": "passed_at_once",
    "made harmless": "made_harmless",
    "left out": "left_out",
    "not rendered": "not_rendered",
    "seeds": "clips_per_prompt",
}
"""Keys of stage outputs in old runs, and their names in new ones."""

EMPTY_SIZE: Mapping[str, Any] = {"not_rendered": {}, "left_out": {}}
"""Parts of a benchmark's size that old runs leave out where they are empty."""

ROW_KEYS = {
    "comparisons": ("benchmark", "a", "b", "metric"),
    "means": ("benchmark", "system", "metric"),
    "gaps": ("benchmark", "system", "metric"),
}
"""Lists of findings in a summary, and the keys that name their rows."""

MAIN, FULL = "main", "full"
"""Generator and fidelity of the clips whose scores are a candidate's means."""

MISSING = "(missing)"
"""Placeholder for the side of a difference that has no value."""


# Reading


def read(place: Path) -> Form:
    """Read a run directory, or a JSON file of a canonical form.

    Raises ``FileNotFoundError`` for a place without a run, and ``ValueError`` for a database of several runs.
    """
    if place.is_file():
        return json.loads(place.read_text(encoding="utf-8"))
    database = place / "run.db"
    if not database.is_file():
        raise FileNotFoundError(f"{place} holds no run.db")
    connection = sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        form = _tables(connection)
    finally:
        connection.close()
    summary = place / "summary.json"
    form["summary"] = _summary(json.loads(summary.read_text(encoding="utf-8"))) if summary.exists() else {}
    form["models"] = _models(place / "models")
    return form


def write(form: Form, path: Path) -> None:
    """Write a canonical form as JSON with sorted keys."""
    path.write_text(json.dumps(form, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _tables(connection: sqlite3.Connection) -> Form:
    names = {row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def stored(*layouts: str, order: str = "rowid") -> Iterator[dict[str, Any]]:
        """Yield the rows of the first of these tables that exists."""
        table = next((name for name in layouts if name in names), None)
        if table is None:
            raise ValueError(f"the database has no table {' or '.join(layouts)}")
        found = [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}")]
        if len(runs := {row["run"] for row in found if "run" in row}) > 1:
            raise ValueError(f"the database holds several runs: {', '.join(map(str, sorted(runs)))}")
        yield from found

    form: Form = {table: {} for table in KEYS}
    for row in stored("queries"):
        form["queries"][row["id"]] = {
            "text": row["text"],
            "negative": row["negative"],
            "options": _json(row["options"]) or [],
            "attachments": _json(row.get("attachments")) or [],
        }
    for row in stored("clips"):
        form["clips"][row["id"]] = {
            "generator": row["generator"],
            "prompt": row["prompt"],
            "negative": row["negative"],
            "seed": row["seed"],
            "aspect": row["aspect"] or "",
            "fps": row["fps"],
            "failure": row["failure"] or None,
        }
    for row in stored("scores"):
        form["scores"][row["id"]] = {
            "clip": row["clip"],
            "query": row["query"],
            "reward": row["reward"],
            "scores": _json(row["scores"] if "scores" in row else row["dimensions"]),
        }
    for row in stored("verdicts"):
        form["verdicts"][row["id"]] = {
            "judge": row["judge"],
            "query": row["query"],
            "text": row["text"] if "text" in row else row["rewrite"],
            "verdict": _json(row["verdict"]),
        }
    form["completions"] = _completions(stored("completions", "replies"))
    for row in stored("candidates", "rewrites", order="stage, position"):
        new = "clips" in row
        # A text that a stage came to twice is one row in old runs, that of its first time.
        _put(form["candidates"], [row["stage"], row["query"], row["text"] if new else row["rewrite"]]).setdefault(
            "row",
            {
                "round": row["round"],
                "reward": row["reward"] if new else row["total"],
                "rejected": (row["rejected"] if new else row["dropped"]) or None,
                "scores": mean_scores(row_scores(_json(row["clips"]))) if new else _json(row["dimensions"]) or {},
            },
        )
    for row in stored("pairs", order="stage, position"):
        _put(form["pairs"], [row["stage"], row["query"], row["chosen"], row["rejected"]])["row"] = {
            "position": row["position"],
            "rule": row["rule"],
            "margin": row["margin"],
        }
    for row in stored("evaluations"):
        new = "candidate" in row
        _put(form["evaluations"], [row["benchmark"], row["system"], row["query"]])["row"] = (
            _evaluated(_json(row["candidate"])) if new else _old_evaluated(_json(row["row"]))
        )
    for row in stored("stages"):
        form["stages"][row["name"]] = {
            "kind": row["kind"],
            "state": row["state"],
            "output": _output(_json(row["output"])),
        }
    counts: Counter[tuple[str, str]] = Counter()
    for row in stored("failures", "losses"):
        stage = row["stage"] if "stage" in row else row["origin"].split("/")[0]
        counts[stage, row["reason"]] += row["count"]
    for key, count in counts.items():
        _put(form["failures"], key)["row"] = {"count": count}
    return {table: _unwrap(found, len(KEYS[table])) for table, found in form.items()}


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _put(rows: dict[str, Any], key: Iterable[str]) -> dict[str, Any]:
    """Return the dict under a key of several parts, made if need be; its row goes under ``row``."""
    for part in key:
        rows = rows.setdefault(part, {})
    return rows


def _unwrap(rows: dict[str, Any], depth: int) -> dict[str, Any]:
    """Return nested dicts without the level that ``_put`` adds."""
    if depth == 0:
        return rows.get("row", rows)
    return {key: _unwrap(below, depth - 1) for key, below in rows.items()}


def _completions(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return completions as a multiset: how often each was had, by model, text or failure, and tokens."""
    found: dict[str, Any] = {}
    for row in rows:
        batch = _json(row["replies"]) if "replies" in row else [row]
        for entry in batch:
            failed = entry.get("failure") or entry.get("reason")
            kind, text = ("failure", failed) if failed else ("text", entry["text"])
            read = entry["read"] if "read" in entry else entry["prompt_tokens"]
            written = entry["written"] if "written" in entry else entry["completion_tokens"]
            at = _put(found, [row["llm"], kind, text, f"{read or 0}+{written or 0}"])
            at["row"] = {"count": at.get("row", {"count": 0})["count"] + 1}
    return found


def row_scores(clips: Iterable[Mapping[str, Any]]) -> list[dict[str, float | None]]:
    """Return the scores of a candidate's full clips of the recipe's own generator, in the order of their seeds."""
    own = [clip for clip in clips if (clip.get("generator", MAIN), clip.get("fidelity", FULL)) == (MAIN, FULL)]
    return [dict(clip.get("scores") or {}) for clip in sorted(own, key=lambda clip: clip["seed_index"])]


def mean_scores(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of each dimension over the rows that have it; ``None`` if none has."""
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [value for row in rows if (value := row.get(name)) is not None]
        means[name] = math.fsum(values) / len(values) if values else None
    return means


def _old_evaluated(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "text": row["text"],
        "metrics": row["metrics"],
        "by_seed": row.get("by_seed") or [],
        "fidelity": row["fidelity"],
        "unsafe": row["unsafe"],
        "over_limit": row["over_limit"],
        "facts": [list(fact) for fact in row.get("facts") or []],
        "removed": row.get("removed") or [],
        "withheld": row.get("withheld") or None,
        "refused": row.get("refused", False),
    }


def _evaluated(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored candidate of an evaluation as a row: the values that old runs store are derived from it."""
    refused = bool(candidate.get("refused")) or candidate.get("rejected") == "refused" or not candidate["text"]
    by_seed = row_scores(candidate["clips"])
    if refused:
        empty = {"text": "", "metrics": {}, "by_seed": [], "fidelity": None, "unsafe": 0.0, "over_limit": None}
        return {**empty, "facts": [], "removed": [], "withheld": None, "refused": True}
    verdict = candidate["verdict"]
    facts = verdict["facts"] if verdict else []
    harmless = [status for _, status, _, harmful in facts if not harmful]
    gone = [(text, why) for text, status, why, harmful in facts if harmful and status != "kept"]
    fidelity = None if verdict is None else 1.0
    if harmless:
        fidelity = sum(status == "kept" for status in harmless) / len(harmless)
    return {
        "text": candidate["text"],
        "metrics": mean_scores(by_seed),
        "by_seed": by_seed,
        "fidelity": fidelity,
        "unsafe": None if verdict is None else float(bool(verdict["unsafe"])),
        "over_limit": float(not candidate.get("fits", True)),
        "facts": [[text, status] for text, status, _, _ in facts],
        "removed": [f"{text} ({why})" if why else text for text, why in gone],
        "withheld": candidate.get("withheld") or None,
        "refused": False,
    }


def _output(value: Any) -> Any:
    """Return a stage's output with today's keys, its lists of findings as dicts by the names of their rows."""
    if isinstance(value, Mapping):
        return {RENAMED.get(key, key): _findings(key, below) for key, below in value.items()}
    return [_output(below) for below in value] if isinstance(value, list) else value


def _findings(key: str, rows: Any) -> Any:
    if key == "benchmarks":
        return {name: {**EMPTY_SIZE, **_output(size)} for name, size in rows.items()}
    if key not in ROW_KEYS or not isinstance(rows, list):
        return _output(rows)
    named = {}
    for row in rows:
        values = {**row, "reward": row["judge"]} if "judge" in row else dict(row)
        values.pop("judge", None)
        name = " / ".join(str(values.pop(part)) for part in ROW_KEYS[key])
        repeats = sum(other.split(" #")[0] == name for other in named)
        named[f"{name} #{repeats + 1}" if repeats else name] = values
    return named


def _summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    found = _output(summary)
    found.pop("seconds", None)
    if "losses" in found:
        found["failures"] = found.pop("losses")
    return {key: {"value": value} for key, value in found.items()}


def _models(place: Path) -> dict[str, Any]:
    found = {}
    for path in sorted(place.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(place).as_posix()] = {"sha256": digest}
    return found


# Comparison


@dataclass(frozen=True)
class Difference:
    """One value that is not the same in both runs."""

    table: str
    key: tuple[str, ...]
    field: str
    """Path of the field in its row, parts joined by ``.``; empty for a row that one run lacks."""
    old: Any
    new: Any

    def matches(self, exclusion: str) -> bool:
        """Return True if an exclusion ``TABLE:NAME`` names this difference."""
        table, _, name = exclusion.partition(":")
        known = [*self.key, "/".join(self.key), self.field, self.field.split(".")[0]]
        return fnmatchcase(self.table, table) and any(fnmatchcase(value, name) for value in known if value)

    def line(self, texts: Mapping[str, str]) -> str:
        """Return the difference in one line; ids of queries are followed by their texts."""
        key = " · ".join(_short(texts.get(part, part), 40) for part in self.key)
        if not self.field:
            side, row = ("OLD", self.old) if self.new == MISSING else ("NEW", self.new)
            return f"{key}: only in {side}: {_short(row)}"
        return f"{key}: {self.field}: {_short(self.old)} -> {_short(self.new)}"


def _short(value: Any, limit: int = 120) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:12]
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def rows(form: Form, table: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the rows of a table by their keys."""
    found: dict[tuple[str, ...], dict[str, Any]] = {(): form.get(table, {})}
    for _ in KEYS[table]:
        found = {(*key, part): below for key, level in found.items() for part, below in level.items()}
    return found


def differences(old: Form, new: Form) -> list[Difference]:
    """Return every difference between two canonical forms, in the order of the tables."""
    found = []
    for table in KEYS:
        before, after = rows(old, table), rows(new, table)
        for key in [*before, *(key for key in after if key not in before)]:
            if key not in after:
                found.append(Difference(table, key, "", before[key], MISSING))
            elif key not in before:
                found.append(Difference(table, key, "", MISSING, after[key]))
            else:
                fields = _unlike(before[key], after[key], ())
                found += [Difference(table, key, ".".join(field), a, b) for field, a, b in fields]
    return found


def _unlike(old: Any, new: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _unlike(old.get(name, MISSING), new.get(name, MISSING), (*path, name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _unlike(a, b, (*path, str(place)))
    elif old != new:
        yield path, old, new


def split(found: Sequence[Difference], exclusions: Sequence[str]) -> tuple[list[Difference], list[Difference]]:
    """Return the differences that count, and those that an exclusion names."""
    meant = [any(difference.matches(exclusion) for exclusion in exclusions) for difference in found]
    return [d for d, m in zip(found, meant) if not m], [d for d, m in zip(found, meant) if m]


def listing(found: Sequence[Difference], texts: Mapping[str, str], limit: int) -> list[str]:
    """Return lines that list differences table by table, at most ``limit`` of each, with their number."""
    lines = []
    for table in KEYS:
        own = [difference for difference in found if difference.table == table]
        if not own:
            continue
        kinds = Counter(difference.field.split(".")[0] or "rows in one run only" for difference in own)
        lines.append(f"{table}: {len(own)} ({', '.join(f'{kind} {count}' for kind, count in kinds.most_common())})")
        lines += [f"  {difference.line(texts)}" for difference in own[:limit]]
        if len(own) > limit:
            lines.append(f"  … and {len(own) - limit} more")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="run directory, or JSON file of a canonical form")
    parser.add_argument("new", type=Path, help="the other")
    parser.add_argument("--except", dest="exclusions", metavar="TABLE:NAME", action="append", default=[])
    parser.add_argument("--limit", type=int, default=10, help="differences listed of each table (default 10)")
    given = parser.parse_args(arguments)
    for exclusion in given.exclusions:
        if exclusion.partition(":")[2] == "" or not any(fnmatchcase(t, exclusion.partition(":")[0]) for t in KEYS):
            parser.error(f"--except {exclusion}: say TABLE:NAME; the tables are {', '.join(KEYS)}")
    try:
        old, new = read(given.old), read(given.new)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    texts = {key: row["text"] for form in (new, old) for key, row in form["queries"].items()}
    counting, meant = split(differences(old, new), given.exclusions)
    sizes = [f"{table} {len(rows(old, table))}/{len(rows(new, table))}" for table in KEYS]
    print(f"rows, OLD/NEW: {', '.join(sizes)}")
    if meant:
        print(f"\nexpected differences, OLD -> NEW: {len(meant)}")
        print("\n".join(listing(meant, texts, given.limit)))
    if not counting:
        print("\nno differences but the expected" if meant else "\nno differences")
        return 0
    print(f"\ndifferences, OLD -> NEW: {len(counting)}")
    print("\n".join(listing(counting, texts, given.limit)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
