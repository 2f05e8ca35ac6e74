"""Writes the figures of the tiny models, as measured into their manifest, as the table that the README shows.

python tools/figures_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "src" / "promptreel" / "tiny" / "weights" / "manifest.json"


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


if __name__ == "__main__":
    print(table(json.loads(MANIFEST.read_text())))
