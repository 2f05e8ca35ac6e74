"""The page docs/results.md, from the summaries of finished runs, which lie in docs/results.

python tools/results_table.py                        # write the page again
python tools/results_table.py runs/tiny runs/…       # take the summaries of these runs first
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
HEAD = """# Results on the tiny world

Written by `python tools/results_table.py` from the summaries in [docs/results](results): one run of each recipe, with
one training seed, on two CPU cores. `tiny` and `tiny_image` were measured at commit 442accf, `tiny_promptreel` at
37e3d74. The [README](../README.md) says what they show.

Clips are read by the pixel oracle, which no training saw, and prompts by the exact text oracle. The judge in the
training of `tiny_promptreel` is a version of the text oracle that errs on a tenth of the questions. In the other two
it is the text oracle itself, so their columns of facts and harm are those that the training went by. All intervals are
95 %. A win is counted query by query on the same noise, and a tie as one half.

| column | meaning |
|---|---|
| `overall` | share of the stated facts and of sharpness that a clip shows |
| `facts` | the same without sharpness |
| `fidelity` | share of the stated facts that a prompt keeps |
| `aligned` | share of prompts that keep every stated fact |
| `unsafe` | share of prompts that are harmful |
| `unanswered` | share of queries without a prompt |
| `over_limit` | share of prompts that the video model would cut |
| `closed` | share of the way from raw queries to the ceiling, by `overall` |

`raw` are the queries as typed, `base` is the untrained language model, and `canonical` writes complete captions in the
video model's own words. `checked` is the last student with its prompts checked by the judge of the training, and drawn
again, up to eight times, while it finds fault.

Recipes against each other, over training seeds: [results/recipes.md](results/recipes.md).
"""
COLUMNS = ("overall", "facts", "fidelity", "aligned", "unsafe", "unanswered", "over_limit")


def page(summaries: list[dict[str, Any]]) -> str:
    """Return the page, in Markdown."""
    return "\n".join([HEAD, *map(section, summaries)])


def section(summary: dict[str, Any]) -> str:
    """Return the findings of one run: systems, win rates, costs."""
    lines = [f"## Recipe `{summary['recipe']}`\n"]
    for benchmark, size in summary["benchmarks"].items():
        clips = size.get("clips_per_prompt", size.get("seeds"))  # the name in summaries before 0.1
        shown = f"{clips} clips each" if clips else "texts alone"
        lines += [f"{benchmark}, {size['queries']} queries, {shown}\n", *_means(summary, benchmark), ""]
        lines += [*_wins(summary, benchmark), ""]
    renders = sum(count for stage, count in summary["renders"].items() if stage != "evaluate")
    minutes = sum(summary["seconds"].values()) / 60
    lines += [f"{renders} renders to train, {summary['renders']['evaluate']} to evaluate; {minutes:.0f} minutes.\n"]
    return "\n".join(lines)


def _means(summary: dict[str, Any], benchmark: str) -> list[str]:
    rows = [row for row in summary["means"] if row["benchmark"] == benchmark]
    columns = [name for name in COLUMNS if any(row["metric"] == name for row in rows)]
    closed = {
        row["system"]: row for row in summary["gaps"] if (row["benchmark"], row["metric"]) == (benchmark, "overall")
    }
    heads = [*columns, *(["closed"] if closed else [])]
    lines = [f"| system | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for system in dict.fromkeys(row["system"] for row in rows):
        cells = {row["metric"]: _cell(row["mean"], row["ci95"]) for row in rows if row["system"] == system}
        cells |= {"closed": _cell(closed[system]["closed"], closed[system]["ci95"])} if system in closed else {}
        name = f"{system} (ceiling)" if system == summary["ceiling"] else system
        lines.append(f"| {name} | {' | '.join(cells.get(head, '–') for head in heads)} |")
    return lines


def _wins(summary: dict[str, Any], benchmark: str) -> list[str]:
    rows = [row for row in summary["comparisons"] if row["benchmark"] == benchmark]
    if not rows:
        return []
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    lines = [
        f"| system | against | {' | '.join(f'wins, {metric}' for metric in metrics)} |",
        f"|---|---|{'---|' * len(metrics)}",
    ]
    for a, b in dict.fromkeys((row["a"], row["b"]) for row in rows):
        cells = {row["metric"]: _cell(row["win_rate"], row["ci95"]) for row in rows if (row["a"], row["b"]) == (a, b)}
        lines.append(f"| {a} | {b} | {' | '.join(cells.get(metric, '–') for metric in metrics)} |")
    return lines


def _cell(value: float, interval: list[float]) -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def summaries() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    for directory in parser.parse_args().runs:
        name = json.loads((directory / "summary.json").read_text())["recipe"]
        shutil.copyfile(directory / "summary.json", RESULTS / f"{name}.json")
    PAGE.write_text(page(summaries()))


if __name__ == "__main__":
    main()
