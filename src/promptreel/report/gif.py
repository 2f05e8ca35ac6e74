"""A moving picture of a run, for a README: queries as typed on the left, as rewritten on the right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptreel import media
from promptreel.config import EvaluateStage, Recipe
from promptreel.errors import RunError
from promptreel.extras import importing
from promptreel.media.frames import write_whole
from promptreel.report import gallery
from promptreel.report.page import final_system, headline_of
from promptreel.store import Run
from promptreel.types import Clip

with importing("drawing the picture"):
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

QUANTILES = (0.9, 0.7, 0.5)
"""Quantiles of the gains over all queries that are shown: a good case, a better one than most, a typical one."""
FRAMES = 24
"""Frames at most; longer clips are sampled."""
SECONDS = 4.0
"""Greatest length of a loop."""
LIMIT = 500_000
"""Greatest size of the picture in bytes: clips are drawn smaller until it fits."""
SIZES = (176, 144, 112, 80, 56)
"""Widths of a clip in pixels, tried in order."""
GROUND, INK, SOFT = (20, 23, 29), (230, 233, 239), (150, 160, 176)
"""Colours (RGB, 0..255) of the ground, the titles and the prompts."""
EDGE = 12
"""Margin around clips and texts, in pixels."""
LINE = 17
"""Height of a line of text in pixels."""
LINES = 6
"""Lines for which a row has room at least."""


@dataclass(frozen=True)
class Shown:
    """A prompt and its clip in the picture."""

    text: str
    clip: Clip


def write(run: Run, recipe: Recipe) -> Path:
    """Write ``before-after.gif`` of a run into its directory. Raises ``RunError`` if it has no clips to compare."""
    rows, final = _rows(run, recipe)
    path = run.directory / "before-after.gif"
    for size in SIZES:
        encoded = _drawn(rows, final, size)
        if len(encoded) <= LIMIT:
            break
    write_whole(path, encoded)
    return path


def _rows(run: Run, recipe: Recipe) -> tuple[list[tuple[Shown, Shown]], str]:
    """Return prompts and clips, before and after, of a few queries of the first benchmark that has both."""
    for stage in recipe.stages(EvaluateStage):
        for benchmark in stage.benchmarks:
            stored, final = run.records.evaluation(benchmark), final_system(recipe, stage)
            first = stage.systems[0]
            if first == final or first not in stored or final not in stored:
                continue
            before, after = stored[first], stored[final]
            gained = gallery.gains(before, after, headline_of(stage, stored))
            ranked = sorted(gained, key=lambda query: (gained[query], query.id))
            chosen = dict.fromkeys(ranked[int(share * (len(ranked) - 1))] for share in QUANTILES) if ranked else {}
            found = []
            for query in chosen:
                left, right = gallery.paired_clips(run, [before[query], after[query]])
                if left and right:
                    found.append((Shown(before[query].text, left), Shown(after[query].text, right)))
            if found:
                return found, final
    raise RunError(f"{run.directory} has no clips to compare yet: let the run finish its evaluation first")


def _drawn(rows: Sequence[tuple[Shown, Shown]], final: str, size: int) -> bytes:
    """Return the animation as GIF: a row for each query, with two clips and their prompts."""
    clips = [[media.sample(s.clip.frames, min(len(s.clip.frames), FRAMES)) for s in row] for row in rows]
    height = max(round(size * frames.shape[1] / frames.shape[2]) for row in clips for frames in row)
    step, head = max(height, LINES * LINE) + EDGE, 40
    text_width = max(size, 150)
    half = EDGE + size + EDGE + text_width
    base = Image.new("RGB", (2 * half + EDGE, head + step * len(rows)), GROUND)
    drawing = ImageDraw.Draw(base)
    for column, title in enumerate(("as typed", f"as rewritten ({final})")):
        drawing.text((EDGE + column * half, 12), title, INK, _font(15, bold=True))
    for number, row in enumerate(rows):
        for column, shown in enumerate(row):
            at = (EDGE + column * half + size + EDGE, head + number * step)
            drawing.multiline_text(at, _wrapped(shown.text, text_width, step - EDGE), SOFT, _font(13), spacing=4)
    count = max(len(frames) for row in clips for frames in row)
    pictures = []
    for index in range(count):
        picture = base.copy()
        for number, pair in enumerate(clips):
            for column, frames in enumerate(pair):
                frame = Image.fromarray(frames[min(index, len(frames) - 1)])
                smooth = Image.Resampling.NEAREST if frame.width <= 128 else Image.Resampling.LANCZOS
                shape = (size, round(size * frame.height / frame.width))
                picture.paste(frame.resize(shape, smooth), (EDGE + column * half, head + number * step))
        pictures.append(picture)
    longest = max(len(shown.clip.frames) / shown.clip.fps for row in rows for shown in row)
    return _gif(pictures, 1000 * min(longest, SECONDS))


def _gif(pictures: Sequence[Image.Image], milliseconds: float) -> bytes:
    """Return a GIF with one palette for all frames, so that still parts do not flicker and are stored once."""
    together = Image.fromarray(
        np.concatenate([np.asarray(p)[::2, ::2] for p in pictures[:: max(1, len(pictures) // 8)]])
    )
    palette = together.quantize(255, Image.Quantize.MEDIANCUT)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    out = io.BytesIO()
    frames[0].save(
        out,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=max(20, round(milliseconds / len(frames), -1)),
        loop=0,
        optimize=False,
    )
    return out.getvalue()


def _wrapped(text: str, width: int, height: int) -> str:
    """Return the text in lines of at most ``width`` pixels, cut with an ellipsis to ``height`` pixels."""
    font, lines = _font(13), [""]
    for word in text.split()[:200]:
        while font.getlength(word) > width:
            word = word[: len(word) // 2]
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    fits = height // LINE
    return "\n".join(lines if len(lines) <= fits else [*lines[: fits - 1], f"{lines[fits - 1]} …"])


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path(), "fonts", "ttf", name)), size)
