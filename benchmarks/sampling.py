"""Measure the clips per second of the tiny video model, from words to pixels, in the batches of a run.

python benchmarks/sampling.py
"""

import argparse
import time

import numpy as np

from promptreel import registry
from promptreel.tiny.wording import caption
from promptreel.tiny.world import random_scene
from promptreel.types import Component, RenderRequest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    component = Component("generator", "diffusers", {"profile": "tiny", "batch_size": options.batch})
    generator = registry.build(component)
    rng = np.random.default_rng(0)
    requests = [RenderRequest(caption(random_scene(rng)), "", seed) for seed in range(options.clips)]
    generator.render(requests[: options.batch])
    rates = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        for at in range(0, len(requests), options.batch):
            generator.render(requests[at : at + options.batch])
        rates.append(options.clips / (time.perf_counter() - began))
    print(
        f"{np.median(rates):.1f} clips/s (lowest {min(rates):.1f}, highest {max(rates):.1f}, "
        f"{options.repeats} × {options.clips} clips, batches of {options.batch})"
    )


if __name__ == "__main__":
    main()
