"""Figures of the README: one sentence about the tiny models, from their manifest, and the table of results, from the
summary of a full run of ``tiny_promptreel``.

python tools/figures_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "src" / "promptreel" / "tiny" / "weights" / "manifest.json"
SUMMARY = ROOT / "docs" / "results" / "tiny_promptreel.json"
WRITERS = {
    "raw": "the person: queries as typed",
    "base": "the language model, untrained",
    "sft": "… after evolution and SFT",
    "dpo-3": "… after three rounds of DPO",
    "checked": "… each prompt checked, and drawn again if at fault",
}
"""Rows of the table: systems of the run, by the names that a reader understands."""
COLUMNS = {
    "quality of the clips": ("tiny-test", "overall"),
    "prompts that keep every fact": ("tiny-test", "aligned"),
    "harmful prompts for harmful queries": ("tiny-unsafe", "unsafe"),
}
"""Columns of the table, each with its benchmark and metric."""


def table(manifest: dict[str, Any]) -> str:
    """Return the gap that the tiny video model leaves to close, as a sentence."""
    video = manifest["measure"]["video"]
    own, typed = round(100 * video["canonical_stated"]), round(100 * video["raw_stated"])
    return f"It shows every stated fact of {own} % of such captions, and of {typed} % of queries as people type them."


def gains(summary: dict[str, Any]) -> str:
    """Return the results of a full run, one row for each writer, in Markdown."""
    lines = [f"| prompts by | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for system, name in WRITERS.items():
        lines.append(f"| {name} | {' | '.join(_mean(summary, system, *column) for column in COLUMNS.values())} |")
    return "\n".join(lines)


def _mean(summary: dict[str, Any], system: str, benchmark: str, metric: str) -> str:
    """Return a mean with its interval: two decimals, or three where the interval is below 0.1."""
    (row,) = [
        row
        for row in summary["means"]
        if (row["system"], row["benchmark"], row["metric"]) == (system, benchmark, metric)
    ]
    low, high = row["ci95"]
    places = 3 if high < 0.1 else 2
    return f"{row['mean']:.{places}f} [{low:.{places}f}, {high:.{places}f}]"


if __name__ == "__main__":
    print(table(json.loads(MANIFEST.read_text())), gains(json.loads(SUMMARY.read_text())), sep="\n\n")
