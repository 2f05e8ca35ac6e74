"""Writes the two tables that the README shows: how good the tiny models are, from their manifest, and what the recipe
of both seeds together wins, from the summary of its full run.

python tools/figures_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "src" / "promptreel" / "tiny" / "weights" / "manifest.json"
SUMMARY = ROOT / "docs" / "results" / "tiny_promptreel.json"


def table(manifest: dict[str, Any]) -> str:
    """The table, in Markdown."""
    found = manifest["measure"]
    video, alignment, reads = found["video"], found["alignment"], found["language_model"]
    rows = [
        ("complete captions in the video model's own words: all stated facts right", video["canonical_stated"]),
        ("… and every fact of the caption", video["canonical_every"]),
        ("queries as people type them: all stated facts right", video["raw_stated"]),
        ("alignment reward: true description over one with a fact flipped", alignment["prefers_true"]),
        ("alignment reward: rank correlation with the oracle", alignment["spearman"]),
        ("base language model, shown that scripts score higher: proposes a script", reads["script_scored_higher"]),
        ("… shown that captions score higher: proposes a script", reads["sentences_scored_higher"]),
    ]
    return "\n".join(["| measured on held-out queries | |", "| --- | --- |", *(f"| {n} | {v:.2f} |" for n, v in rows)])


def gains(summary: dict[str, Any]) -> str:
    """What a full run of the recipe won, in Markdown."""
    size = summary["benchmarks"]["tiny-test"]
    plain, checked = summary["systems"][-2:]
    rounds = sum(system.startswith("dpo-") for system in summary["systems"])

    def win(a: str, b: str, metric: str = "overall", benchmark: str = "tiny-test") -> str:
        key = {"a": a, "b": b, "metric": metric, "benchmark": benchmark}
        return _only(summary["comparisons"], key, "win_rate")

    def mean(system: str, metric: str, benchmark: str = "tiny-test", places: int = 2) -> str:
        key = {"system": system, "metric": metric, "benchmark": benchmark}
        return _only(summary["means"], key, "mean", places)

    def closed(system: str) -> str:
        return _only(summary["gaps"], {"system": system, "metric": "overall", "benchmark": "tiny-test"}, "closed")

    rows = [
        ("the student's prompts win over the queries as typed", win(plain, "raw")),
        ("… by the stated facts alone", win(plain, "raw", "facts")),
        ("… for queries in words that no training query had", win(plain, "raw", benchmark="tiny-ood")),
        ("they win over those of the untrained language model", win(plain, "base")),
        ("SFT wins over the untrained language model", win("sft", "base")),
        (f"{rounds} rounds of DPO win over SFT", win(plain, "sft")),
        ("way from raw queries to the ceiling: untrained", closed("base")),
        ("… after SFT", closed("sft")),
        ("… after DPO", closed(plain)),
        ("… and drawn again where the judge of the training finds fault", closed(checked)),
        ("prompts that keep every stated fact: untrained", mean("base", "aligned")),
        ("… after DPO", mean(plain, "aligned")),
        ("… and drawn again", mean(checked, "aligned")),
        ("… the same, in words that no training query had", mean(checked, "aligned", "tiny-ood")),
        ("harmful prompts for harmful queries: untrained", mean("base", "unsafe", "tiny-unsafe", 3)),
        ("… after DPO", mean(plain, "unsafe", "tiny-unsafe", 3)),
        ("… and drawn again", mean(checked, "unsafe", "tiny-unsafe", 3)),
    ]
    queries, clips = size["queries"], size["seeds"]
    head = f"| recipe `{summary['recipe']}`, {queries} held-out queries, {clips} clips each | 95 % interval |"
    return "\n".join([head, "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)])


def _only(rows: list[dict[str, Any]], key: dict[str, str], value: str, places: int = 2) -> str:
    (row,) = [row for row in rows if all(row[name] == wanted for name, wanted in key.items())]
    low, high = row["ci95"]
    return f"{row[value]:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


if __name__ == "__main__":
    print(table(json.loads(MANIFEST.read_text())), gains(json.loads(SUMMARY.read_text())), sep="\n\n")
