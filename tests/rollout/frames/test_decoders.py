"""Both decoders return the requested frames, at their times and upright, or raise an error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from rollout.frames.decoders import FAILURES, VIDEO, read_image, read_track

QUIET = "log-level=none"
CODECS = {
    "h264": ("libx264", {"g": "12", "bf": "3"}),
    "h264 short groups": ("libx264", {"g": "3", "bf": "2"}),
    "h264 open groups": ("libx264", {"g": "12", "bf": "3", "x264-params": "open-gop=1:b-adapt=0"}),
    "h265": ("libx265", {"x265-params": f"keyint=8:bframes=3:{QUIET}"}),
    "mpeg4": ("mpeg4", {"g": "10"}),
    "mpeg4 b": ("mpeg4", {"g": "10", "bf": "2"}),
}
DECORD_READS = {(suffix, codec) for suffix in ("mp4", "mkv") for codec in CODECS if codec not in ("h265", "mpeg4 b")}
REQUESTS = ([0], [39], [7, 8, 9], [0, 13, 26, 39], [11, 12, 35], [3, 20, 21, 37])
Numbered, Read = Callable[..., Path], Callable[..., list[int]]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("codec", CODECS)
def test_each_frame_is_the_requested_one(
    tmp_path: Path, numbered: Numbered, read_numbers: Read, suffix: str, codec: str
) -> None:
    if suffix == "avi" and codec != "mpeg4":
        pytest.skip("AVI stores no times: FFmpeg guesses them if frames are stored in another order")
    path = str(numbered(tmp_path / f"a.{suffix}", *CODECS[codec]))
    track = read_track(path)
    np.testing.assert_allclose(track.times, np.arange(40) * 0.04, atol=1e-9 if suffix != "mkv" else 6e-4)
    for indices in REQUESTS:
        assert read_numbers(list(VIDEO["pyav"](path, track, indices))) == indices
        if (suffix, codec) in DECORD_READS:
            assert read_numbers(list(VIDEO["decord"](path, track, indices))) == indices
        else:  # decord would silently return other frames
            with pytest.raises(ValueError, match="decord seeks wrongly"):
                list(VIDEO["decord"](path, track, indices))


@pytest.mark.parametrize("name", VIDEO)
def test_a_variable_frame_rate(tmp_path: Path, numbered: Numbered, read_numbers: Read, name: str) -> None:
    pts = [0, 10, 15, 20, 150, 153, 400, 401, 402, 1000]
    path = str(numbered(tmp_path / "a.mp4", pts=pts))
    track = read_track(path)
    np.testing.assert_allclose(track.times, np.array(pts) / 100, atol=1e-9)
    assert track.duration > 10
    assert read_numbers(list(VIDEO[name](path, track, [2, 4, 6, 9]))) == [2, 4, 6, 9]


def test_time_0_is_the_first_frame(tmp_path: Path, numbered: Numbered) -> None:
    track = read_track(str(numbered(tmp_path / "a.ts", pts=range(200, 240, 4))))
    assert track.times[0] == 0
    np.testing.assert_allclose(track.times, np.arange(10) * 0.04, atol=1e-9)
    assert track.duration == pytest.approx(0.4, abs=0.04)


def rotate(path: Path, quarters: int) -> None:
    """Make players rotate the video clockwise, by the matrix in the track's header (ISO 14496-12, 8.3.2)."""
    cos, sin = [(1, 0), (0, 1), (-1, 0), (0, -1)][quarters]
    one = 0x10000
    matrix = struct.pack(">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 0x40000000)
    content = path.read_bytes()
    at = content.index(b"tkhd") + 44
    path.write_bytes(content[:at] + matrix + content[at + 36 :])


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("name", VIDEO)
def test_a_rotated_video_is_upright(tmp_path: Path, numbered: Numbered, name: str, quarters: int) -> None:
    path = numbered(tmp_path / "a.mp4")
    track = read_track(str(path))
    flat = list(VIDEO["pyav"](str(path), track, [5, 30]))
    rotate(path, quarters)
    for before, after in zip(flat, VIDEO[name](str(path), read_track(str(path)), [5, 30])):
        np.testing.assert_array_equal(after, np.rot90(before, -quarters))


def test_an_image_is_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (40, 20), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by a quarter clockwise
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(str(tmp_path / "a.jpg")).shape == (40, 20, 3)


def test_a_file_with_sound_only_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="it has no video"):
        read_track(str(path))


def test_a_video_cut_between_two_packets_is_refused(tmp_path: Path, numbered: Numbered) -> None:
    path = numbered(tmp_path / "a.mp4", movflags="faststart")
    with av.open(str(path)) as container:
        ends = sorted(e.pos + e.size for e in container.streams.video[0].index_entries)
    content = path.read_bytes()
    for end in (ends[-2], ends[len(ends) // 2]):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="cut short"):
            read_track(str(path))


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_a_truncated_stream_is_read_up_to_the_cut(
    tmp_path: Path, numbered: Numbered, read_numbers: Read, suffix: str
) -> None:
    path = numbered(tmp_path / f"a.{suffix}", "libx264", {"g": "12"})
    content = path.read_bytes()
    read = 0
    for share in np.linspace(0.3, 0.98, 9):
        path.write_bytes(content[: int(share * len(content))])
        for decode in VIDEO.values():
            try:
                track = read_track(str(path))
                indices = list(range(0, len(track.times), 3))
                frames = list(decode(str(path), track, indices))
            except FAILURES:
                continue
            # The frames stored last need not be displayed last, so some are missing; the others have their times.
            assert read_numbers(frames) == [round(track.times[i] / 0.04) for i in indices]
            read += 1
    assert read
