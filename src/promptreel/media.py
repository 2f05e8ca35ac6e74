"""Frames in and out of files: the only place that encodes, decodes or samples them."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from promptreel.errors import RunError, importing

with importing("reading and writing clips"):
    import av


FRAMES = "FRAMES"
"""The tag of a cached clip that says how many frames it was written with."""


def write_lossless(path: Path, frames: np.ndarray, fps: float) -> None:
    """Write frames ``(T, H, W, 3)`` uint8 so that they read back bit for bit (FFV1 in Matroska).

    The file appears under its name only when it is complete, and says how many frames it holds, since one that
    is cut short later still plays. The unused alpha plane spares a conversion of every frame, which costs more
    than the codec does.
    """
    alpha = np.full((*frames.shape[:3], 1), 255, np.uint8)
    pixels = np.concatenate([frames[..., ::-1], alpha], axis=-1)
    _write(path, pixels, "bgra", fps, codec="ffv1", coded="bgra", format="matroska", tags={FRAMES: str(len(frames))})


def write_video(path: Path, frames: np.ndarray, fps: float, scale: int = 1) -> None:
    """Write an H.264 video for people to look at, enlarged ``scale`` times without smoothing."""
    large = frames.repeat(scale, axis=1).repeat(scale, axis=2)
    large = large[:, : large.shape[1] // 2 * 2, : large.shape[2] // 2 * 2]
    _write(path, large, "rgb24", fps, "libx264", "yuv420p", "mp4", {"crf": "18", "preset": "veryfast"})


def write_picture(path: Path, frame: np.ndarray, scale: int = 1) -> None:
    """Write a PNG of a frame ``(H, W, 3)`` uint8 for people to look at, enlarged ``scale`` times without smoothing."""
    with importing("writing pictures"):
        import cv2
    path.parent.mkdir(parents=True, exist_ok=True)
    large = frame.repeat(scale, axis=0).repeat(scale, axis=1)
    path.write_bytes(cv2.imencode(".png", large[..., ::-1])[1].tobytes())


def shrink(frames: np.ndarray, width: int) -> np.ndarray:
    """Frames ``(T, H, W, 3)`` no wider than ``width`` pixels, of the same shape, averaging what falls together."""
    if frames.shape[2] <= width:
        return frames
    with importing("making clips smaller"):
        import cv2
    size = (width, max(1, round(frames.shape[1] * width / frames.shape[2])))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in np.ascontiguousarray(frames)])


def _write(
    path: Path,
    pixels: np.ndarray,
    layout: str,
    fps: float,
    codec: str,
    coded: str,
    format: str,
    options: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with av.open(str(temporary), "w", format=format) as container:
            container.metadata.update(tags or {})
            stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options=options or {})
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = pixels.shape[2], pixels.shape[1], coded
            stream.thread_count = 1
            for picture in np.ascontiguousarray(pixels):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format=layout)))
            container.mux(stream.encode(None))
    except BaseException:
        temporary.unlink(missing_ok=True)  # what a full disk needs least
        raise
    temporary.replace(path)


def read(path: Path) -> np.ndarray:
    """All frames of a video ``(T, H, W, 3)`` uint8. Raises ``RunError`` for a damaged file, or one cut short."""
    try:
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            frames = [_rgb(frame) for frame in container.decode(video=0)]
            whole = int(container.metadata.get(FRAMES, len(frames)))
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise RunError(f"cannot read the clip {path.name}: {error}; delete it to have it rendered again") from error
    if not frames or len(frames) != whole:
        raise RunError(f"the clip {path.name} has {len(frames)} frames of {whole}; delete it to have it rendered again")
    return np.stack(frames)


def _rgb(frame: av.VideoFrame) -> np.ndarray:
    native = frame.format.name == "bgra"
    pixels: np.ndarray = frame.to_ndarray() if native else frame.to_ndarray(format="rgb24")
    return pixels[..., 2::-1] if native else pixels


def sample(frames: np.ndarray, count: int) -> np.ndarray:
    """``count`` frames spread evenly from first to last; repeats frames of a clip that has fewer."""
    chosen: np.ndarray = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    return chosen
