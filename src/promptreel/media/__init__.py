"""Media: frames in and out of bytes and files, and the store of clips."""

from promptreel.media.clip_store import ClipStore
from promptreel.media.frames import (
    beside,
    decode,
    encode_lossless,
    encode_picture,
    encode_video,
    sample,
    shrink,
    write_picture,
    write_video,
)

__all__ = [
    "ClipStore",
    "beside",
    "decode",
    "encode_lossless",
    "encode_picture",
    "encode_video",
    "sample",
    "shrink",
    "write_picture",
    "write_video",
]
