"""Training data in TRL's conversational format, rendered by the one renderer; exports write the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from promptreel.execution.writer import Writer
from promptreel.types import Example, Message, Pair

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, list[Message]]


def sft_rows(writer: Writer, examples: Sequence[Example]) -> list[Row]:
    """Return rows with ``prompt`` and ``completion``; the loss falls on the completion only."""
    return [
        {"prompt": writer.ask("rewrite", query=example.query.text), "completion": _reply(example.text)}
        for example in examples
    ]


def dpo_rows(writer: Writer, pairs: Sequence[Pair]) -> list[Row]:
    """Return rows with ``prompt``, ``chosen`` and ``rejected``."""
    return [
        {
            "prompt": writer.ask("rewrite", query=pair.query.text),
            "chosen": _reply(pair.chosen),
            "rejected": _reply(pair.rejected),
        }
        for pair in pairs
    ]


def to_dataset(rows: Iterable[dict[str, Any]]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def _reply(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]
