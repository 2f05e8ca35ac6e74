"""Content identity: ids, seeds and fingerprints that depend on nothing but their content."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

WHOLE = 64 * 2**20
"""Size in bytes up to which a file is hashed whole. Of a larger file, evenly spread blocks are hashed."""
BLOCKS, BLOCK = 256, 64 * 2**10


def content_id(*parts: Any) -> str:
    """Return the sha256, in hex, of strings, numbers, ``None``, lists and mappings of these."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def content_seed(*parts: Any) -> int:
    """Return a seed (0 to 2**32 - 1) derived from the parts alone."""
    return int(content_id(*parts)[:8], 16)


def fingerprint(kind: str, *models: str | None, **options: Any) -> str:
    """Return the fingerprint of a component: its kind, its models by content (paths) or name (hub ids), its options."""
    identities = [model and _identity(str(model)) for model in models]
    chosen = {name: value for name, value in options.items() if value is not None}
    return f"{kind}:{content_id(identities, chosen)[:24]}"


def _identity(model: str) -> str:
    path = Path(model)
    if not path.exists():
        return model
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return content_id([[str(p.relative_to(path)), _hash(p, p.stat().st_size, p.stat().st_mtime_ns)] for p in files])


@lru_cache(maxsize=4096)
def _hash(path: Path, size: int, modified: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            while block := file.read(2**20):
                digest.update(block)
        else:
            for index in range(BLOCKS):
                file.seek(index * (size - BLOCK) // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
