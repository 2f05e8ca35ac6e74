"""Frames to and from encoded media: the only place that encodes, decodes or samples them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from promptreel.errors import RunError
from promptreel.extras import importing

if TYPE_CHECKING:
    import av

FRAMES = "FRAMES"
"""Tag of a lossless clip that holds the number of frames it was written with."""


@dataclass(frozen=True)
class _Codec:
    """A codec and its settings, named as in FFmpeg."""

    name: str
    container: str
    layout: str
    """Pixel format of the frames to encode."""
    stored: str
    """Pixel format of the encoded video."""
    options: Mapping[str, str] = field(default_factory=dict)


_LOSSLESS = _Codec("ffv1", "matroska", "bgra", "bgra")
_H264 = _Codec("libx264", "mp4", "rgb24", "yuv420p", {"crf": "18", "preset": "veryfast"})


def encode_lossless(frames: np.ndarray, fps: float) -> bytes:
    """Encode frames ``(T, H, W, 3)`` uint8 so that they decode bit for bit (FFV1 in Matroska).

    The number of frames goes into a tag: a file that is cut short later still plays. The unused alpha plane spares a
    conversion of every frame, which costs more than the codec.
    """
    alpha = np.full((*frames.shape[:3], 1), 255, np.uint8)
    pixels = np.concatenate([frames[..., ::-1], alpha], axis=-1)
    return _encode(pixels, fps, _LOSSLESS, {FRAMES: str(len(frames))})


def encode_video(frames: np.ndarray, fps: float, scale: int = 1) -> bytes:
    """Encode frames ``(T, H, W, 3)`` uint8 as an H.264 MP4 for viewing, enlarged ``scale`` times without smoothing.

    An odd last row or column of pixels is cut.
    """
    large = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    large = large[:, : large.shape[1] // 2 * 2, : large.shape[2] // 2 * 2]
    return _encode(large, fps, _H264)


def encode_picture(frame: np.ndarray, scale: int = 1) -> bytes:
    """Encode a frame ``(H, W, 3)`` uint8 as a PNG, enlarged ``scale`` times without smoothing."""
    with importing("writing pictures"):
        import cv2
    large = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    png: bytes = cv2.imencode(".png", large[..., ::-1])[1].tobytes()
    return png


def write_video(path: Path, frames: np.ndarray, fps: float, scale: int = 1) -> None:
    """Write ``encode_video`` of frames ``(T, H, W, 3)`` uint8 to a file, which appears when it is complete."""
    write_whole(path, encode_video(frames, fps, scale))


def write_picture(path: Path, frame: np.ndarray, scale: int = 1) -> None:
    """Write ``encode_picture`` of a frame ``(H, W, 3)`` uint8 to a file, which appears when it is complete."""
    write_whole(path, encode_picture(frame, scale))


def decode(data: bytes, name: str) -> np.ndarray:
    """Return all frames of an encoded video as ``(T, H, W, 3)`` uint8. ``name`` is its name in messages.

    Raises ``RunError`` for damaged data, and for a lossless clip that is cut short.
    """
    with importing("reading and writing clips"):
        import av
    try:
        with av.open(BytesIO(data), "r") as container:
            container.streams.video[0].thread_count = 1
            frames = [_rgb(frame) for frame in container.decode(video=0)]
            written = int(container.metadata.get(FRAMES, len(frames)))
    except (av.FFmpegError, IndexError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunError(f"cannot read the clip {name}: {why}; delete it to have it rendered again") from error
    if not frames or len(frames) != written:
        raise RunError(f"the clip {name} has {len(frames)} frames of {written}; delete it to have it rendered again")
    return np.stack(frames)


def sample(frames: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` frames spread evenly from first to last; a shorter clip's frames are repeated."""
    chosen: np.ndarray = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    return chosen


def shrink(frames: np.ndarray, width: int) -> np.ndarray:
    """Return frames ``(T, H, W, 3)`` scaled down to a width in pixels, by area averages; narrower ones unchanged."""
    if frames.shape[2] <= width:
        return frames
    with importing("making clips smaller"):
        import cv2
    size = (width, max(1, round(frames.shape[1] * width / frames.shape[2])))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in np.ascontiguousarray(frames)])


def beside(clips: Sequence[np.ndarray | None], gap: int, width: int | None = None, fill: int = 0) -> np.ndarray:
    """Return clips ``(T, H, W, 3)`` in a row, with gaps of ``gap`` pixels between.

    Each clip is at most ``width`` pixels wide. A shorter clip stands still at its end. Gaps, missing clips and the
    space below a lower clip have the value ``fill`` (0..255). Raises ``ValueError`` if no clip is there.
    """
    there = next((frames for frames in clips if frames is not None), None)
    if there is None:
        raise ValueError("there is no clip to show")
    shown = [np.full_like(there, fill) if frames is None else frames for frames in clips]
    shown = [frames if width is None else shrink(frames, width) for frames in shown]
    length, height = max(len(frames) for frames in shown), max(frames.shape[1] for frames in shown)
    between = np.full((length, height, gap, 3), fill, np.uint8)
    parts = [part for frames in shown for part in (between, _padded(frames, length, height, fill))]
    joined: np.ndarray = np.concatenate(parts[1:], axis=2)
    return joined


def _padded(frames: np.ndarray, length: int, height: int, fill: int) -> np.ndarray:
    later = [(0, length - len(frames)), (0, 0), (0, 0), (0, 0)]
    lower = [(0, 0), (0, height - frames.shape[1]), (0, 0), (0, 0)]
    return np.pad(np.pad(frames, later, mode="edge"), lower, constant_values=fill)


def _encode(pixels: np.ndarray, fps: float, codec: _Codec, tags: Mapping[str, str] | None = None) -> bytes:
    with importing("reading and writing clips"):
        import av
    buffer = BytesIO()
    with av.open(buffer, "w", format=codec.container) as container:
        container.metadata.update(tags or {})
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream(codec.name, rate=rate, options=dict(codec.options))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = pixels.shape[2], pixels.shape[1], codec.stored
        stream.thread_count = 1
        for picture in np.ascontiguousarray(pixels):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=codec.layout)))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, and rename it when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # a full disk needs the room
        raise


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    native = frame.format.name == "bgra"
    pixels: np.ndarray = frame.to_ndarray() if native else frame.to_ndarray(format="rgb24")
    return pixels[..., 2::-1] if native else pixels
