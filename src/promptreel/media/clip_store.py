"""The clip store: lossless media, named by the content ids of clips."""

from __future__ import annotations

from pathlib import Path

from promptreel.errors import RunError, UserError
from promptreel.media import frames
from promptreel.types import Clip


class ClipStore:
    """Clips behind a URL, today a local directory: a path, or ``file://``. Picklable; codecs load with the first clip.

    Workers, reports and previews know clips by their ids and never see a path.
    """

    def __init__(self, url: str) -> None:
        rest = url.removeprefix("file://")
        if "://" in rest:
            raise UserError(f"clips cannot be kept at {url!r}: give a local directory")
        self.url = url
        self._directory = Path(rest)

    def __contains__(self, clip: str) -> bool:
        return self._path(clip).exists()

    def write(self, clip: Clip) -> None:
        """Write a clip whole: readers see all of it or nothing."""
        frames.write_whole(self._path(clip.id), frames.encode_lossless(clip.frames, clip.fps))

    def read(self, clip: str, fps: float = 0.0) -> Clip:
        """Return a clip as stored. Raises ``RunError`` if it is missing or damaged."""
        path = self._path(clip)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RunError(f"cannot read the clip {path.name}: {error.strerror}") from error
        return Clip(clip, frames.decode(data, path.name), fps)

    def remove(self, clip: str) -> None:
        """Remove a damaged clip, so that it can be written again."""
        self._path(clip).unlink(missing_ok=True)

    def _path(self, clip: str) -> Path:
        return self._directory / clip[:2] / f"{clip}.mkv"
