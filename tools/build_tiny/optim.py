"""The optimiser and learning-rate schedule of all tiny trainings."""

from __future__ import annotations

import math

import torch
from torch import nn


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, for weights of two and more dimensions.

    After Keller Jordan, https://kellerjordan.github.io/posts/muon/ (five Newton-Schulz steps with the
    coefficients given there). ``torch.optim.Muon`` takes matrices only; convolutions are flattened here.
    """

    def __init__(self, params, lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                wide = update.shape[0] <= update.shape[1]
                x = update if wide else update.T
                x = x / (x.norm() + 1e-7)
                for _ in range(5):
                    square = x @ x.T
                    x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
                x = x if wide else x.T
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                weight.add_(x.reshape(weight.shape), alpha=-group["lr"] * scale)


class Schedule:
    """Muon for the hidden weights and AdamW for the rest, under one warm-up, plateau and cosine decay.

    Hidden weights are those of at least two dimensions with 16 or more inputs and outputs whose name has
    none of ``outer``: embeddings, first and last layers. Without ``muon`` AdamW has them all.
    """

    def __init__(
        self, modules: list[nn.Module], steps: int, muon: float | None, adam: float, outer: tuple[str, ...] = ("embed",)
    ) -> None:
        named = [(name, weight) for module in modules for name, weight in module.named_parameters()]
        named = [(name, weight) for name, weight in named if weight.requires_grad]
        hidden, rest = [], []
        for name, weight in named:
            inner = muon is not None and weight.ndim >= 2 and min(weight.shape[0], weight[0].numel()) >= 16
            (hidden if inner and not any(part in name for part in outer) else rest).append(weight)
        self.weights = [weight for _, weight in named]
        self.steps = steps
        self.optimisers: list[tuple[torch.optim.Optimizer, float]] = [
            (torch.optim.AdamW(rest, adam, betas=(0.9, 0.95), weight_decay=1e-4), adam)
        ]
        if muon is not None:
            self.optimisers.append((Muon(hidden, muon), muon))
        self.done = 0

    def step(self) -> None:
        """Apply the gradients at hand and clear them."""
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        share = min(1.0, (self.done + 1) / 100)
        decay = max(0.0, self.done / self.steps - 0.3) / 0.7
        share *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, decay)))
        for optimiser, top in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = top * share
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.done += 1

    def state_dict(self) -> dict:
        return {"done": self.done, "optimisers": [optimiser.state_dict() for optimiser, _ in self.optimisers]}

    def load_state_dict(self, state: dict) -> None:
        self.done = state["done"]
        for (optimiser, _), saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
