"""Draws that belong to their row: what is beside it in a batch does not change what it comes out as."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from promptreel.types import Sampling


class OwnDraws(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Leaves one token of each row for a greedy search to find: the one that the row's own sampling draws.

    Temperature and nucleus (``top_p``) are applied as ``transformers`` does, then a uniform number, from a generator
    with the row's seed, is looked up in the cumulative distribution. One number a token, drawn on the CPU: the same
    on every device. ``read`` is the length of the padded input in tokens.
    """

    def __init__(self, samplings: Sequence[Sampling], read: int, device: torch.device) -> None:
        self.read = read
        self.greedy = torch.tensor([[s.temperature == 0] for s in samplings], device=device)
        self.temperature = torch.tensor([[s.temperature or 1.0] for s in samplings], device=device)
        self.top_p = torch.tensor([[s.top_p] for s in samplings], device=device)
        self.exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no double precision
        self.nucleus = any(s.top_p < 1 for s in samplings)
        longest = max(s.max_tokens for s in samplings)
        self.uniform = torch.stack(
            [
                torch.rand(longest, generator=torch.Generator().manual_seed(s.seed), dtype=torch.float64)
                for s in samplings
            ]
        ).to(device, self.exact)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chances = torch.softmax(scores.float() / self.temperature, dim=-1)
        if self.nucleus:
            ordered, order = chances.sort(dim=-1, descending=True, stable=True)
            outside = ordered.cumsum(-1) - ordered >= self.top_p  # the likeliest token always stays
            chances = chances.masked_fill(torch.empty_like(outside).scatter(-1, order, outside), 0.0)
        summed = chances.to(self.exact).cumsum(-1)
        wanted = self.uniform[:, input_ids.shape[1] - self.read, None] * summed[:, -1:]
        drawn = torch.searchsorted(summed, wanted, right=True).clamp(max=scores.shape[-1] - 1)
        chosen = torch.where(self.greedy, scores.argmax(-1, keepdim=True), drawn)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)
