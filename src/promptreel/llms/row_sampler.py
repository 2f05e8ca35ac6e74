"""Sampling whose result for a row does not depend on the other rows of its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor

from promptreel.types import SamplingParams


class RowSampler(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """A logits processor that draws the next token of each row, and leaves only this token for a greedy search.

    Each row has its own ``SamplingParams``. Temperature and nucleus (``top_p``) are applied as ``transformers`` does.
    Then a uniform number, from a generator with the row's seed, is looked up in the cumulative distribution. There is
    one number per token, drawn on the CPU, so every device gets the same ones. ``prompt_length`` is the length of the
    padded prompts in tokens.
    """

    def __init__(self, sampling: Sequence[SamplingParams], prompt_length: int, device: torch.device) -> None:
        self.prompt_length = prompt_length
        self.greedy = torch.tensor([[s.temperature == 0] for s in sampling], device=device)
        self.temperature = torch.tensor([[s.temperature or 1.0] for s in sampling], device=device)
        self.top_p = torch.tensor([[s.top_p] for s in sampling], device=device)
        self.exact = torch.float32 if device.type == "mps" else torch.float64  # MPS has no double precision
        self.nucleus = any(s.top_p < 1 for s in sampling)
        longest = max(s.max_tokens for s in sampling)
        self.uniform = torch.stack(
            [
                torch.rand(longest, generator=torch.Generator().manual_seed(s.seed), dtype=torch.float64)
                for s in sampling
            ]
        ).to(device, self.exact)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores of shape (rows, vocabulary): 0 for the drawn token of each row, minus infinity elsewhere."""
        probabilities = torch.softmax(scores.float() / self.temperature, dim=-1)
        if self.nucleus:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            outside = ordered.cumsum(-1) - ordered >= self.top_p  # the likeliest token always stays
            probabilities = probabilities.masked_fill(torch.empty_like(outside).scatter(-1, order, outside), 0.0)
        cumulative = probabilities.to(self.exact).cumsum(-1)
        wanted = self.uniform[:, input_ids.shape[1] - self.prompt_length, None] * cumulative[:, -1:]
        drawn = torch.searchsorted(cumulative, wanted, right=True).clamp(max=scores.shape[-1] - 1)
        chosen = torch.where(self.greedy, scores.argmax(-1, keepdim=True), drawn)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen, 0.0)
