"""Trains every tiny model from scratch, measures them, and puts weights and manifest into the package.

    make tiny          or          python -m build_tiny [--work DIR] [--seed N] [STEP …]

Steps in order: autoencoder, base, video, tags, alignment, publish, student, measure. Each goes on from its
last checkpoint when it was interrupted, so the same command can be given again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from build_tiny import alignment, autoencoder, language_model, measure, student, video_model

WEIGHTS = Path(__file__).parents[2] / "src" / "promptreel" / "tiny" / "weights"
MANIFEST = WEIGHTS / "manifest.json"
SHIPPED = ("video", "video-tags", "alignment", "base")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/tiny"), help="checkpoints and training data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("steps", nargs="*", metavar="STEP", help="all by default")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    data, out, seed = options.work / "data", options.work / "models", options.seed
    steps: dict[str, Callable[[], dict[str, float]]] = {
        "autoencoder": lambda: autoencoder.train(data, out / "autoencoder", seed),
        "base": lambda: language_model.train(out / "base", seed),
        "video": lambda: video_model.train(out / "autoencoder", data, out / "video", seed),
        "tags": lambda: video_model.train_tags(out / "video", data, out / "video-tags", seed),
        "alignment": lambda: alignment.train(out / "autoencoder", data, out / "alignment", seed),
        "publish": lambda: publish(out),
        "student": lambda: student.train(options.work / "run", WEIGHTS / "student"),
        "measure": measure.everything,
    }
    for name in options.steps or steps:
        note(name, {"seed": seed, **steps[name]()})


def publish(out: Path) -> dict[str, float]:
    """Copy what is shipped into the package: weights as safetensors, configurations, tokenizers."""
    size = 0
    for name in SHIPPED:
        shutil.rmtree(WEIGHTS / name, ignore_errors=True)
        shutil.copytree(out / name, WEIGHTS / name, ignore=shutil.ignore_patterns("*.pt", "*.part", "log.jsonl"))
    student.forget_places(WEIGHTS)
    for path in WEIGHTS.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            size += path.stat().st_size
    parameters = 0
    for path in WEIGHTS.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            parameters += sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    return {"bytes": size, "parameters": parameters}


def note(step: str, figures: dict[str, float]) -> None:
    """Write a step's figures into the manifest."""
    manifest = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    manifest[step] = figures
    MANIFEST.parent.mkdir(parents=True, exist_ok=True)
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n")
    print(step, figures, flush=True)


if __name__ == "__main__":
    main()
