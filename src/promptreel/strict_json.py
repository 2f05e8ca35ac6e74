"""A strict JSON reader for replies and files of unknown origin."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any


def load_json(text: str) -> Any:
    """Parse JSON strictly.

    Halves of surrogate pairs, which cannot be stored, become U+FFFD. Raises only ``ValueError``: for text that is not
    JSON, a repeated key in an object, nesting too deep for Python, NaN, Infinity, or an over-long number.
    """
    try:
        found = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_reject_constant)
        if "\\u" in text:
            pairs = json.dumps(found, ensure_ascii=False).encode("utf-16", "surrogatepass")
            found = json.loads(pairs.decode("utf-16", "replace"), object_pairs_hook=_unique_keys)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return found


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {key[:40]!r} comes twice")
    return found


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")
