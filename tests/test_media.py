"""Encoding and decoding of clips: lossless ones bit for bit, and those that people look at."""

from pathlib import Path

import numpy as np
import pytest

from promptreel import media
from promptreel.errors import RunError


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(9, 64, 64, 3), (1, 64, 64, 3), (5, 33, 47, 3)], ids=str)
@pytest.mark.parametrize("fps", [8, 7.5, 24000 / 1001])
def test_a_lossless_clip_decodes_bit_for_bit(shape: tuple[int, ...], fps: float) -> None:
    frames = noise(*shape)
    decoded = media.decode(media.encode_lossless(frames, fps), "a.mkv")
    assert decoded.dtype == np.uint8
    assert (decoded == frames).all()


def test_a_clip_that_is_cut_short_is_refused() -> None:
    whole = media.encode_lossless(noise(9, 64, 64, 3), 8)
    with pytest.raises(RunError, match=r"the clip a\.mkv has \d frames of 9; delete it to have it rendered again"):
        media.decode(whole[: len(whole) // 2], "a.mkv")


@pytest.mark.parametrize("data", [b"", b"\0" * 500, b"not a video at all"], ids=range(3))
def test_data_that_is_no_clip_is_refused_on_one_line(data: bytes) -> None:
    with pytest.raises(
        RunError, match=r"cannot read the clip a\.mkv: .*; delete it to have it rendered again"
    ) as error:
        media.decode(data, "a.mkv")
    assert "\n" not in str(error.value)


def test_videos_and_pictures_are_enlarged_without_smoothing() -> None:
    cv2 = pytest.importorskip("cv2")
    frame = noise(16, 24, 3)
    picture = cv2.imdecode(np.frombuffer(media.encode_picture(frame, 3), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (picture == frame.repeat(3, axis=0).repeat(3, axis=1)).all()
    assert media.decode(media.encode_video(noise(3, 33, 47, 3), 8, scale=1), "a.mp4").shape == (3, 32, 46, 3)
    assert media.decode(media.encode_video(noise(3, 32, 48, 3), 8, scale=2), "a.mp4").shape == (3, 64, 96, 3)


def test_files_appear_when_they_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(3, 32, 48, 3)
    media.write_video(tmp_path / "new" / "a.mp4", frames, 8)
    media.write_picture(tmp_path / "a.png", frames[0], 2)
    assert media.decode((tmp_path / "new" / "a.mp4").read_bytes(), "a.mp4").shape == frames.shape
    assert (tmp_path / "a.png").read_bytes() == media.encode_picture(frames[0], 2)

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        media.write_picture(tmp_path / "b.png", frames[0])
    assert {path.name for path in tmp_path.iterdir()} == {"new", "a.png"}


def test_clips_stand_side_by_side_with_black_gaps() -> None:
    left, right = noise(2, 8, 6, 3), 255 - noise(2, 8, 6, 3)
    row = media.beside([left, right], 4)
    assert row.shape == (2, 8, 16, 3)
    assert (row[:, :, :6] == left).all()
    assert (row[:, :, 6:10] == 0).all()
    assert (row[:, :, 10:] == right).all()


def test_a_missing_clip_is_filled_a_shorter_one_stands_still_and_wide_ones_shrink() -> None:
    wide, short = noise(3, 32, 64, 3), noise(1, 10, 12, 3)
    row = media.beside([wide, short, None], 2, width=16, fill=128)
    assert row.shape == (3, 8 + 2, 16 + 2 + 12 + 2 + 16, 3)
    assert (row[:, :8, :16] == media.shrink(wide, 16)).all()
    assert (row[:, :, 18:30] == short).all()
    for empty in (row[:, 8:, :16], row[:, :, 16:18], row[:, :, 30:]):
        assert (empty == 128).all()
    with pytest.raises(ValueError, match="no clip"):
        media.beside([None, None], 2)


def test_sampled_frames_are_spread_from_the_first_to_the_last() -> None:
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    assert media.sample(frames, 4)[:, 0, 0, 0].tolist() == [0, 3, 5, 8]
    assert media.sample(frames[:1], 3)[:, 0, 0, 0].tolist() == [0, 0, 0]


def test_wide_clips_shrink_to_a_width_and_narrow_ones_stay() -> None:
    frames = noise(2, 32, 64, 3)
    assert media.shrink(frames, 16).shape == (2, 8, 16, 3)
    assert media.shrink(frames, 64) is frames
