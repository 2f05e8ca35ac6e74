"""Training examples as TRL reads them: conversations rendered by the one renderer."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset

from promptreel.desk import Writer
from promptreel.types import Pair, Query


def sft_dataset(writer: Writer, examples: Sequence[tuple[Query, str]]) -> Dataset:
    """Prompt and completion columns; the loss falls on the completion only."""
    return Dataset.from_list(
        [
            {
                "prompt": writer.ask("rewrite", query=query.text),
                "completion": [{"role": "assistant", "content": text}],
            }
            for query, text in examples
        ]
    )


def dpo_dataset(writer: Writer, pairs: Sequence[Pair]) -> Dataset:
    """Prompt, chosen and rejected columns."""
    return Dataset.from_list(
        [
            {
                "prompt": writer.ask("rewrite", query=pair.query.text),
                "chosen": [{"role": "assistant", "content": pair.chosen}],
                "rejected": [{"role": "assistant", "content": pair.rejected}],
            }
            for pair in pairs
        ]
    )
