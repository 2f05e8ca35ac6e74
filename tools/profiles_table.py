"""Write docs/profiles.md from the profiles: python tools/profiles_table.py > docs/profiles.md."""

from promptreel import profiles
from promptreel.profiles import Profile

HEAD = """\
# Profiles

What is known of each video and image model, as Promptreel uses it. `tools/profiles_table.py` writes this page from
`src/promptreel/profiles/`; a test compares them.

A recipe names one (`profile = "wan2.2-5b"`), and `[generator]` overrides it: `steps`, `guidance`, `frames`, `height`,
`width`, `dtype`, `offload` (`none`, `model`, `sequential`), `tiling`, `slicing`, `compile`, `batch_size`, `scheduler`,
`call` (further arguments of the pipeline's call), `adapters` (LoRA weights, added to the profile's), `variant`,
`model`. `profile` may be the path of a TOML file of your own.

**Reads** is the number of tokens after which the model's text encoder cuts a prompt. Prompts are counted with the
model's own tokenizer; where it cannot be had, the count is called an estimate. **Sizes** are width × height: the
first is the model's own, the others are used for queries that ask for an aspect ratio (`--ar 9:16`). **Avoids** says
whether a negative prompt is used.

All of them give the same clip for the same seed on one machine, whatever else is in the batch, but for rounding.
"""


def page() -> str:
    """Return the page as Markdown."""
    known = [profiles.load(name) for name in profiles.names()]
    videos = [profile for profile in known if profile.frames > 1]
    images = [profile for profile in known if profile.frames == 1]
    return "\n".join(
        [HEAD, "## Video", "", *_table(videos), "", "## Images", "", *_table(images), "", *_variants(known)]
    )


def _table(rows: list[Profile]) -> list[str]:
    """Return the lines of a table of profiles."""
    head = ["profile", "model", "pipeline", "reads", "sizes", "frames", "steps, guidance", "avoids", "licence"]
    lines = [_row(head), _row(["---"] * len(head))]
    for profile in rows:
        sizes = dict.fromkeys([profile.size(), *profile.sizes.values()])
        frames = f"{profile.frames} at {profile.fps:g}/s" if profile.frames > 1 else "1"
        lines.append(
            _row(
                [
                    f"`{profile.name}`",
                    _model(profile.model),
                    f"`{profile.pipeline}`" if profile.pipeline else "",
                    f"{profile.token_limit} (`{profile.tokenizer}`)",
                    ", ".join(f"{width}×{height}" for width, height in sizes),
                    frames,
                    f"{profile.steps}, {profile.guidance:g}",
                    "no" if profile.negative_prompt is None else "yes",
                    profile.licence + ("" if profile.deterministic else "; **not deterministic**"),
                ]
            )
        )
    return lines


def _variants(known: list[Profile]) -> list[str]:
    """Return the lines of the table of all variants, under a heading."""
    head = ["variant", "what runs", "steps, guidance"]
    lines = ["## Variants", "", _row(head), _row(["---"] * len(head))]
    for profile in known:
        for name, variant in profile.variants.items():
            chosen = profile.variant(name)
            adapters = dict.fromkeys(adapter.model for adapter in variant.adapters)
            runs = " + ".join(_model(model) for model in [chosen.model, *adapters])
            lines.append(_row([f"`{profile.name}`, `{name}`", runs, f"{chosen.steps}, {chosen.guidance:g}"]))
    return [*lines, ""]


def _model(name: str) -> str:
    """Return a hub id as code, or ``comes along`` for a path: such a model comes with the package."""
    return "comes along" if name.startswith("/") or "\\" in name else f"`{name}`"


def _row(cells: list[str]) -> str:
    """Return a table row of Markdown."""
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(page(), end="")
