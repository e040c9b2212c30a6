"""Decoding gives exact times and pixels, and a reason for every file that cannot be decoded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from evidence.errors import UnreadableMedia
from evidence.sampling import SamplingContract, Selection, frame_key
from rollout.frames.decoders import VERSIONS, VIDEO
from rollout.frames.decoding import DecoderFailed, decode, decode_with, examine, identify

CONTRACT = SamplingContract(frames=5, max_pixels=50_176, min_pixels=3136, multiple=28)
VIDEOS = Path(__file__).parents[4] / "shared/videos"


def write_clip(path: Path, count: int, fps: float = 4, size: tuple[int, int] = (112, 84)) -> Path:
    """Write a clip whose frame k is grey of level 10k."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
    for k in range(count):
        writer.write(np.full((size[1], size[0], 3), 10 * k, np.uint8))
    writer.release()
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableMedia) as refused:
        decode(str(path), CONTRACT)
    assert refused.value.path == str(path)
    assert refused.value.reason
    assert len(str(refused.value).splitlines()) == 1
    return refused.value.reason


def test_frames_their_times_and_the_duration_are_exact(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 17)
    frames, info = decode(str(path), CONTRACT)
    assert info.times == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert info.duration == 4.25
    assert info.original_size == info.size == (112, 84)
    assert frames.shape == (5, 84, 112, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 40, 80, 120, 160], atol=4)
    assert info.key == frame_key(blake3(path.read_bytes()).hexdigest(), CONTRACT, VERSIONS["decord"])


def test_decoding_twice_gives_the_same(tmp_path: Path) -> None:
    path = str(write_clip(tmp_path / "a.mp4", 17))
    (first, info), (second, again) = decode(path, CONTRACT), decode(path, CONTRACT)
    np.testing.assert_array_equal(first, second)
    assert info == again


def test_the_key_depends_on_the_content_and_not_on_the_name(tmp_path: Path) -> None:
    original = write_clip(tmp_path / "a.mp4", 5)
    copy = tmp_path / "b.mp4"
    copy.write_bytes(original.read_bytes())
    key = decode(str(original), CONTRACT)[1].key
    assert decode(str(copy), CONTRACT)[1].key == key
    assert decode(str(original), replace(CONTRACT, frames=4))[1].key != key
    assert decode(str(write_clip(copy, 6)), CONTRACT)[1].key != key


def test_a_frame_is_resized_to_the_contract(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 3, size=(640, 360))
    frames, info = decode(str(path), CONTRACT)
    assert info.original_size == (640, 360)
    assert frames.shape[1:3] == info.size[::-1] == (168, 280)


def test_a_video_of_one_frame(tmp_path: Path) -> None:
    frames, info = decode(str(write_clip(tmp_path / "one.mp4", 1)), CONTRACT)
    assert len(frames) == 1
    assert info.times == (0.0,)
    assert info.duration == 0.25


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_an_image_is_a_video_of_one_frame(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.PNG"
    Image.new("RGB", (112, 84), (204, 204, 204)).convert(mode).save(path)
    frames, info = decode(str(path), CONTRACT)
    np.testing.assert_array_equal(frames, np.full((1, 84, 112, 3), 204))
    assert info.times == (0.0,)
    assert info.duration == 0.0


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.mp4") == "no such file"
    assert refusal(tmp_path) == "the folder holds no image"


def test_a_file_without_permission_is_refused_with_that_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(tmp_path / ("x" * 300)) == "File name too long"

    def forbidden(path: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied", path)

    path = str(tmp_path / "a.mp4")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", forbidden)
        with pytest.raises(UnreadableMedia, match=r"a\.mp4: Permission denied"):
            identify(path)


@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_an_empty_file_and_a_text_file_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.touch()
    assert refusal(path) == "the file is empty"
    path.write_text("not\na video\n")
    refusal(path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 0.999), st.sampled_from(["a.mp4", "a.png"]))
def test_a_truncated_file_is_refused_or_read_like_the_whole(tmp_path: Path, share: float, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".mp4":
        write_clip(path, 9)
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (84, 112, 3), np.uint8)).save(path)
    whole, _ = decode(str(path), CONTRACT)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    try:  # without only its trailing metadata, a file is still readable
        frames, _ = decode(str(path), CONTRACT)
    except UnreadableMedia:
        return
    np.testing.assert_array_equal(frames, whole)


def test_the_reason_for_a_video_without_frames_has_no_time_or_source_line(tmp_path: Path) -> None:
    reason = refusal(write_clip(tmp_path / "none.mp4", 0))
    assert refusal(write_clip(tmp_path / "again.mp4", 0)) == reason
    assert ".cc" not in reason


def test_key_times_add_their_frames_and_change_the_key(tmp_path: Path) -> None:
    path = str(write_clip(tmp_path / "a.mp4", 20))
    plain, contract = decode(path, CONTRACT)[1], replace(CONTRACT, frames=2)
    frames, info = decode(path, contract, Selection((0.5, 1.26, 4.6, 99.0)))
    assert info.times == (0.0, 0.5, 1.25, 4.5, 4.75)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 20, 50, 180, 190], atol=4)
    fewer, one = decode(path, contract)[1], decode(path, contract, Selection((0.5,)))[1]
    assert len({plain.key, info.key, fewer.key, one.key}) == 4


def test_only_a_part_of_a_video_is_shown_and_changes_the_key(tmp_path: Path) -> None:
    path = str(write_clip(tmp_path / "a.mp4", 20))
    contract, part = replace(CONTRACT, frames=3), Selection(part=(1.0, 2.1))
    frames, info = decode(path, contract, part)
    assert info.times == (1.0, 1.5, 2.0)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [40, 60, 80], atol=4)
    assert info.key != decode(path, contract)[1].key


def test_all_frames_together_stay_within_total_pixels(tmp_path: Path) -> None:
    path = str(write_clip(tmp_path / "a.mp4", 25, size=(640, 360)))
    contract = replace(CONTRACT, total_pixels=5 * 28 * 28 * 10)
    frames, _ = decode(path, contract)
    assert frames[..., 0].size <= contract.total_pixels
    frames, _ = decode(path, contract, Selection((0.3, 0.8, 1.4)))
    assert len(frames) == 8
    assert frames[..., 0].size <= contract.total_pixels
    with pytest.raises(UnreadableMedia, match="total_pixels"):
        decode(path, replace(contract, total_pixels=5 * 3136), Selection(tuple(np.arange(0, 6.25, 0.25))))


def test_the_second_decoder_is_tried_after_the_first(
    tmp_path: Path, numbered: Callable[..., Path], read_numbers: Callable[..., list[int]]
) -> None:
    path = str(numbered(tmp_path / "a.mp4", "libx265", {"x265-params": "keyint=8:bframes=3:log-level=none"}))
    contract = SamplingContract(frames=6, max_pixels=100_352, min_pixels=784, multiple=2)
    with pytest.raises(DecoderFailed):
        decode_with("decord", examine(path), contract)
    frames, info = decode(path, contract)
    assert read_numbers(list(frames)) == [0, 8, 16, 23, 31, 39]
    assert info.key == frame_key(examine(path).digest, contract, VERSIONS["pyav"])


def test_equal_reasons_of_both_decoders_are_given_once(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(1000))
    assert ";" not in refusal(path)


@pytest.mark.parametrize("how", ["rewritten", "replaced", "removed"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    path = write_clip(tmp_path / "a.mp4", 17)
    other = write_clip(tmp_path / "b.mp4", 17, fps=8)
    other.write_bytes(other.read_bytes().ljust(path.stat().st_size, b"\0"))

    def change_after(*args: object) -> Iterator[np.ndarray]:
        yield from original(*args)
        if how == "rewritten":  # with the old times restored
            times = path.stat().st_atime_ns, path.stat().st_mtime_ns
            path.write_bytes(other.read_bytes())
            os.utime(path, ns=times)
        elif how == "replaced":
            os.replace(other, path)
        else:
            path.unlink()

    original = VIDEO["decord"]
    monkeypatch.setitem(VIDEO, "decord", change_after)
    assert refusal(path) == ("no such file" if how == "removed" else "the file changed while it was read")


def test_a_file_that_changed_since_it_was_hashed_is_refused_and_a_touched_one_is_not(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 17)
    media = examine(str(path))
    os.utime(path, (0, 0))
    assert decode_with("decord", media, CONTRACT)[1].times[-1] == 4
    write_clip(path, 16)
    with pytest.raises(UnreadableMedia, match="changed"):
        decode_with("decord", media, CONTRACT)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from(["libx264", "mpeg4"]))
def test_a_damaged_file_is_refused_or_decoded_with_correct_times(
    tmp_path: Path, numbered: Callable[..., Path], seed: int, codec: str
) -> None:
    path = numbered(tmp_path / "a.mp4", codec)
    times = decode(str(path), CONTRACT)[1].times
    rng = np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    at = int(rng.integers(len(content)))
    content[at : at + 40] = rng.bytes(len(content[at : at + 40]))
    path.write_bytes(content)
    try:
        frames, info = decode(str(path), CONTRACT)
    except UnreadableMedia:
        return
    assert frames.shape == (len(info.times), *info.size[::-1], 3)
    assert list(info.times) == sorted(info.times)
    if at < content.index(b"moov"):
        assert info.times == times


def test_real_footage() -> None:
    if not VIDEOS.is_dir():
        pytest.skip(f"{VIDEOS} does not exist")
    contract = SamplingContract(frames=8, multiple=28)
    for name, last in (("nasa_13013.mp4", 12.98), ("rotated_90.mov", 0.067)):
        media = examine(str(VIDEOS / name))
        frames, info = decode_with("decord", media, contract)
        again, same = decode_with("pyav", media, contract)
        np.testing.assert_array_equal(frames, again)
        assert info.times == same.times
        assert info.times[-1] == last
    assert info.original_size == (320, 568)
    assert decode(str(VIDEOS / "h265_video.mp4"), contract)[1].times == (0.0, 0.1, 0.3, 0.4, 0.5, 0.6, 0.8, 0.9)
    refusal(VIDEOS / "corrupted.mp4")


@pytest.mark.parametrize(
    ("mode", "side", "contract", "limit_mb"),
    [
        ("1", 9000, "SamplingContract(multiple=28)", 100),  # 243 MB as RGB
        (
            "RGB",
            100,
            "SamplingContract(frames=1, min_pixels=36_000_000, max_pixels=40_000_000, multiple=28)",
            160,
        ),  # enlarged
    ],
)
def test_an_immense_image_fails_if_memory_is_limited(
    tmp_path: Path, mode: str, side: int, contract: str, limit_mb: int
) -> None:
    path = tmp_path / "a.png"
    Image.new(mode, (side, side)).save(path)
    code = f"""
from evidence.errors import UnreadableMedia
from evidence.sampling import SamplingContract
from rollout.frames.decoding import OutOfMemory, decode, decode_with, examine, limit_memory
limit_memory({limit_mb} * 2**20)
try:
    decode({str(path)!r}, {contract})
except UnreadableMedia as error:
    print(error.reason)
try:
    decode_with("pillow", examine({str(path)!r}), {contract})
except OutOfMemory as error:
    print("as one decoder's failure")
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=100)
    assert done.stdout.splitlines() == ["the decoder ran out of memory", "as one decoder's failure"], done.stderr


def test_the_table_of_times_read_in_advance_belongs_to_the_decoded_bytes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 17)
    with ThreadPoolExecutor(1) as threads:
        assert decode_with("decord", examine(str(path), threads), CONTRACT)[1].times[-1] == 4
        write_clip(path, 17, fps=8)
        assert decode_with("decord", examine(str(path), threads), CONTRACT)[1].times[-1] == 2
        stale = examine(str(path), threads)
        write_clip(path, 17)
        with pytest.raises(UnreadableMedia, match="changed"):
            decode_with("decord", stale, CONTRACT)
        path.write_text("no video")
        with pytest.raises(DecoderFailed):
            decode_with("decord", examine(str(path), threads), CONTRACT)
