"""Named language models of the tiny world, whose weights come with the package."""

from __future__ import annotations

BASE = "package:promptreel.tiny/weights/base"
STUDENT = "package:promptreel.tiny/weights/student"

MODELS: dict[str, tuple[str, str | None]] = {
    "tiny-base": (BASE, None),
    "tiny-student": (BASE, STUDENT),
}
"""Name to the model's weights and the adapter on them, as ``package:`` paths; ``None`` without an adapter."""
