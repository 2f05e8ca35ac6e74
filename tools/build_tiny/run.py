"""Resumable training loops: a checkpoint every so many steps, a log line, and the time they took."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from build_tiny.optim import Schedule


class Progress:
    """Iterates over the steps of a training that are left, saving a checkpoint every ``every`` steps."""

    def __init__(self, out: Path, model: nn.Module, schedule: Schedule, steps: int, every: int = 250) -> None:
        self.out, self.model, self.schedule, self.steps, self.every = out, model, schedule, steps, every
        self.checkpoint = out / "checkpoint.pt"
        self.seconds, self.start = 0.0, 0
        self.recent: dict[str, list[float]] = defaultdict(list)
        self.last: dict[str, float] = {}
        out.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint, weights_only=True)
            model.load_state_dict(saved["model"])
            schedule.load_state_dict(saved["schedule"])
            self.start, self.seconds = saved["step"], saved["seconds"]

    def __iter__(self) -> Iterator[int]:
        began = time.monotonic() - self.seconds
        for step in range(self.start, self.steps):
            yield step
            self.seconds = time.monotonic() - began
            if (step + 1) % self.every == 0 or step + 1 == self.steps:
                self.last = {name: sum(values) / len(values) for name, values in self.recent.items()}
                self.recent.clear()
                line = {"step": step + 1, "seconds": round(self.seconds), **self.last}
                with (self.out / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
                self._save(step + 1)

    def _save(self, step: int) -> None:
        state = {
            "model": self.model.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": step,
            "seconds": self.seconds,
        }
        temporary = self.checkpoint.with_suffix(".part")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def log(self, **values: float) -> None:
        for name, value in values.items():
            self.recent[name].append(float(value))

    def summary(self) -> dict[str, float]:
        return {"steps": self.steps, "seconds": round(self.seconds), **self.last}
