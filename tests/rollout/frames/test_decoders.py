"""Both decoders return the requested frames, at their times and upright, or raise an error."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from evidence.sampling import SamplingContract
from rollout.frames.decoders import FAILURES, RULES, VERSIONS, VIDEO, read_image, read_track
from rollout.frames.decoding import decode_with, examine

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


def write_half_red(path: Path, codec: str, pixels: str, aspect: Fraction | None = None) -> Path:
    """Three frames of 96 x 64 whose left half is red; the right half is transparent, or black without alpha."""
    image = np.zeros((64, 96, 4), np.uint8)
    image[:, :48] = (200, 0, 0, 255)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for k in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="rgba")
            frame.pts = k
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("aspect", "size"), [(Fraction(2), (196, 56)), (Fraction(1, 2), (84, 140)), (None, (84, 56))])
@pytest.mark.parametrize("name", VIDEO)
def test_pixels_that_are_not_square_are_shown_as_players_show_them(
    tmp_path: Path, name: str, aspect: Fraction | None, size: tuple[int, int]
) -> None:
    path = write_half_red(tmp_path / "a.mp4", "libx264", "yuv420p", aspect)
    contract = SamplingContract(frames=2, max_pixels=50_176, min_pixels=784, multiple=28)
    frames, info = decode_with(name, examine(str(path)), contract)
    assert info.size == size
    assert info.original_size == (96, 64)  # of the stored pixels, in which labels may give boxes
    assert (frames[:, :, : size[0] // 2 - 4, 0] > 150).all()
    rotate(path, 1)
    upright = decode_with(name, examine(str(path)), contract)[1]
    assert (upright.size, upright.original_size) == (size[::-1], (64, 96))


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [("mov", "qtrle", "argb"), ("mov", "prores_ks", "yuva444p10le"), ("mkv", "ffv1", "bgra")],
)
def test_a_transparent_video_is_shown_on_white(tmp_path: Path, suffix: str, codec: str, pixels: str) -> None:
    path = str(write_half_red(tmp_path / f"a.{suffix}", codec, pixels))
    (frame,) = VIDEO["pyav"](path, read_track(path), [1])
    np.testing.assert_allclose(frame[:, :44], np.broadcast_to([200, 0, 0], (64, 44, 3)), atol=3)
    np.testing.assert_allclose(frame[:, 52:], 255, atol=2)
    with pytest.raises(ValueError, match="decord ignores transparency"):
        list(VIDEO["decord"](path, read_track(path), [1]))


def test_time_0_is_the_first_frame_also_if_the_sound_begins_before_it(tmp_path: Path) -> None:
    path = str(tmp_path / "a.mp4")
    with av.open(path, "w") as container:
        video, sound = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=8000, layout="mono")
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        for k in range(16):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 8000, 1024 * k
            container.mux(sound.encode(samples))
        for k in range(10, 20):  # one second late
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * k, np.uint8), format="rgb24")
            frame.pts = k
            container.mux(video.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    track = read_track(path)
    assert track.pts[0] * 10 // track.pts[1] == 9  # the container does say that the video begins late
    np.testing.assert_allclose(track.times, np.arange(10) / 10, atol=1e-9)
    assert track.duration == pytest.approx(1.0)


WHITE, RED = (255, 255, 255), (200, 0, 0)


def transparent_images() -> dict[str, Image.Image]:
    """4 x 2 pixels each: red on the left, transparent on the right (gray images: 200 on the left)."""
    rgba = np.zeros((2, 4, 4), np.uint8)
    rgba[:, :2] = (*RED, 255)
    color = Image.fromarray(rgba)
    palette = Image.fromarray((rgba[:, :, 3] == 0).astype(np.uint8), "P")
    palette.putpalette([*RED, 0, 0, 0])
    gray = Image.fromarray(np.where(rgba[:, :, 3] == 0, 7, 200).astype(np.uint8))
    deep = Image.fromarray(np.where(rgba[:, :, 3] == 0, 7, 200 * 257).astype(np.uint16))
    for image, index in ((palette, 1), (gray, 7), (deep, 7)):
        image.info["transparency"] = index
    return {"RGBA": color, "LA": color.convert("LA"), "P": palette, "L": gray, "I;16": deep}


@pytest.mark.parametrize("mode", transparent_images())
def test_a_transparent_image_is_shown_on_white(tmp_path: Path, mode: str) -> None:
    image = transparent_images()[mode]
    assert image.mode == mode
    image.save(tmp_path / "a.png", **{key: image.info[key] for key in image.info})
    frame = read_image(str(tmp_path / "a.png"))
    left = {"RGBA": RED, "P": RED, "LA": (60,) * 3}.get(mode, (200,) * 3)
    np.testing.assert_array_equal(frame, [[left, left, WHITE, WHITE]] * 2)


def test_half_transparent_pixels_are_mixed_with_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (0, 0, 0, 102)).save(tmp_path / "a.webp", lossless=True)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.webp")), np.full((2, 2, 3), 153))


def test_gray_of_16_bits_is_scaled_to_8(tmp_path: Path) -> None:
    values = np.array([[0, 257, 128 * 257, 65535, 300, 65534]], np.uint16)
    for number, gray in enumerate((values, values.astype(np.int32), values / np.float32(65535))):
        path = tmp_path / f"{number}.png"
        Image.fromarray(gray).save(path, "TIFF" if number else "PNG")  # PNG holds only the first of these types
        np.testing.assert_array_equal(read_image(str(path)), np.repeat([[[0], [1], [128], [255], [1], [255]]], 3, 2))


@pytest.mark.parametrize("values", [np.array([[0, 70_000]], np.int32), np.array([[0, 200]], np.float32)])
def test_gray_values_of_an_unknown_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "a.png", "TIFF")
    with pytest.raises(ValueError, match="its gray values are not between 0 and"):
        read_image(str(tmp_path / "a.png"))


def test_frame_keys_name_the_rules_by_which_pixels_are_shown() -> None:
    assert RULES > 1  # without these rules, 1 was not part of the key
    assert all(version.endswith(f", rules {RULES}") for version in VERSIONS.values())


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
