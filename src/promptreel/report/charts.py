"""Charts of the page, as SVG that takes the page's colours and fonts."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import numpy as np

from promptreel.extras import importing

with importing("drawing the report"):
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Placeholder for the colour of the page's text, which the browser chooses."""
ACCENTS = ("#8a8f98", "#c2884a", "#3f9b72", "#4f7fd0", "#a662c9", "#cf5c78")
"""Colours that are readable on white and on black."""


def rounds(best: Sequence[float]) -> str:
    """Draw the mean reward of the best candidate so far, after each round of evolution."""
    figure, axes = _blank()
    axes.plot(range(len(best)), best, marker="o", color=ACCENTS[3])
    axes.set_xticks(range(len(best)))
    axes.set_xlabel("round (0 is the query as typed)")
    axes.set_ylabel("mean reward of the best so far")
    return _svg(figure)


def distributions(values: Mapping[str, Sequence[float]], label: str) -> str:
    """Draw the distribution of a metric over the queries for each system, from top to bottom.

    Systems without the metric are left out.
    """
    values = {system: found for system, found in values.items() if found}
    figure, axes = _blank(height=0.5 + 0.55 * len(values))
    pooled = np.concatenate([np.asarray(list(found), float) for found in values.values()])
    edges = np.linspace(pooled.min(), pooled.max() + 1e-9, 25)
    for row, (found, colour) in enumerate(zip(values.values(), _cycle(len(values)), strict=True)):
        heights, _ = np.histogram(found, edges)
        base = -float(row)
        heights = heights / max(heights.max(), 1) * 0.8
        axes.bar(edges[:-1], heights, np.diff(edges), bottom=base, align="edge", color=colour, linewidth=0)
        axes.plot([np.mean(found)] * 2, [base, base + 0.85], color=INK, linewidth=1.2)
    axes.set_yticks([-row + 0.3 for row in range(len(values))], list(values))
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{label} (the line is the mean)")
    return _svg(figure)


def _cycle(count: int) -> list[str]:
    return [ACCENTS[index % len(ACCENTS)] for index in range(count)]


def _blank(height: float = 2.4) -> tuple[Figure, Axes]:
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(6.2, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("bottom", "left"))
            spine.set_color(INK)
        axes.tick_params(colors=INK)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
    return figure, axes


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "promptreel"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    drawing = out.getvalue()
    drawing = drawing[drawing.index("<svg") :].replace(INK, "currentColor")
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'class="chart" role="img"', drawing, count=1)
