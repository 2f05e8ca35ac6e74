"""The clips and scenes that the video models and the alignment reward are trained on."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from promptreel.tiny.world import FRAMES, SIZE, Scene, random_scene, render

CLIPS = 32000
HELD_OUT = 1000
"""The last clips are never trained on; quality is measured on them."""
POOR = 0.4
"""Share of blurred, grainy and flickering clips."""


def _one(key: tuple[int, int]) -> tuple[Scene, np.ndarray]:
    rng = np.random.default_rng(key)
    scene = random_scene(rng, quality="poor" if rng.random() < POOR else "sharp")
    return scene, render(scene, int(rng.integers(2**31)))


def clips(work: Path, seed: int, count: int = CLIPS) -> tuple[np.ndarray, list[Scene]]:
    """Clips ``(count, 9, 64, 64, 3)`` uint8 mapped from disk, and their scenes; rendered on first use."""
    work.mkdir(parents=True, exist_ok=True)
    array, facts = work / "clips.npy", work / "scenes.json"
    if not facts.exists():
        out = np.lib.format.open_memmap(array, mode="w+", dtype=np.uint8, shape=(count, FRAMES, SIZE, SIZE, 3))
        scenes = []
        keys = [(seed, index) for index in range(count)]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for index, (scene, clip) in enumerate(pool.map(_one, keys, chunksize=64)):
                out[index] = clip
                scenes.append(scene.facts)
        out.flush()
        facts.write_text(json.dumps(scenes))
    scenes = [Scene(**{"speed": None, **scene}) for scene in json.loads(facts.read_text())]
    return np.load(array, mmap_mode="r"), scenes


@torch.no_grad()
def latents(vae: AutoencoderKLWan, work: Path, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents of all clips ``(N, C, 3, 4, 4)`` and of their middle frames ``(N, C, 1, 4, 4)``; made on first use."""
    data, _ = clips(work, seed)
    path = work / "latents.pt"
    if not path.exists():
        videos, images = [], []
        for at in range(0, len(data), 50):
            pixels = torch.tensor(data[at : at + 50]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            videos.append(vae.encode(pixels).latent_dist.mode().half())
            images.append(vae.encode(pixels[:, :, 4:5]).latent_dist.mode().half())
        temporary = path.with_suffix(".part")
        torch.save([torch.cat(videos), torch.cat(images)], temporary)
        temporary.replace(path)
    videos, images = torch.load(path, weights_only=True)
    return videos, images
