"""The clip cache: lossless files named by the content id of their clip."""

from __future__ import annotations

from pathlib import Path

from promptreel.types import Clip


class ClipCache:
    """Codecs are imported when a clip is: a store without clips needs no extra."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, clip_id: str) -> Path:
        return self.directory / clip_id[:2] / f"{clip_id}.mkv"

    def __contains__(self, clip_id: str) -> bool:
        return self.path(clip_id).exists()

    def write(self, clip: Clip) -> None:
        from promptreel import media

        media.write_lossless(self.path(clip.id), clip.frames, clip.fps)

    def read(self, clip_id: str, fps: float = 0.0) -> Clip:
        """The clip as stored. Raises ``RunError`` when its file is missing or damaged."""
        from promptreel import media

        return Clip(clip_id, media.read(self.path(clip_id)), fps)
