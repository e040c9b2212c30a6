"""A folder of frames is a video like any other: same times, same pixels, and a reason for everything wrong with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from frame_folders import write_frames
from PIL import Image

from evidence.errors import UnreadableMedia
from evidence.sampling import SamplingContract, Selection, frame_key
from rollout.frames import frame_folder
from rollout.frames.decoders import VERSIONS
from rollout.frames.decoding import decode, examine, identify

CONTRACT = SamplingContract(frames=5, max_pixels=50_176, min_pixels=3136, multiple=28)
THIRDS = Selection(fps=3.0)


def refusal(path: Path, selected: Selection = THIRDS) -> str:
    with pytest.raises(UnreadableMedia) as refused:
        decode(str(path), CONTRACT, selected)
    assert refused.value.path == str(path)
    assert str(path) not in refused.value.reason
    assert len(str(refused.value).splitlines()) == 1
    return refused.value.reason


def test_frames_their_times_and_the_duration_are_those_of_the_stated_rate(tmp_path: Path) -> None:
    path = str(write_frames(tmp_path / "a", 13))
    frames, info = decode(path, CONTRACT, THIRDS)
    assert info.times == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert info.duration == 4.333
    assert info.original_size == info.size == (112, 84)
    assert frames.shape == (5, 84, 112, 3)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [0, 30, 60, 90, 120], atol=2)
    assert info.key == frame_key(examine(path).digest, CONTRACT, VERSIONS["pillow"], THIRDS)
    slow = decode(path, CONTRACT, Selection(fps=1.5))[1]
    assert slow.times == (0.0, 2.0, 4.0, 6.0, 8.0)
    assert slow.key != info.key


def test_the_contract_chooses_frames_as_of_a_file(tmp_path: Path) -> None:
    path = str(write_frames(tmp_path / "a", 25, size=(640, 360)))
    each_second = replace(CONTRACT, fps=1.0, frames=20)
    frames, info = decode(path, each_second, THIRDS)
    assert info.times == tuple(map(float, range(9)))
    assert info.original_size == (640, 360)
    assert frames.shape[1:3] == info.size[::-1]
    assert info.size[0] * info.size[1] <= CONTRACT.max_pixels
    assert decode(path, each_second, replace(THIRDS, part=(2.0, 4.0)))[1].times == (2.0, 2.667, 3.333, 4.0)
    two = replace(CONTRACT, frames=2)
    assert decode(path, two, replace(THIRDS, key_times=(1.1,)))[1].times == (0.0, 1.0, 8.0)


@pytest.mark.parametrize("name", ["{:05d}.jpg", "{}.png", "img_{:03d}.JPEG", "v2-frame{}.webp"])
@pytest.mark.parametrize("first", [0, 1])
def test_frames_are_ordered_by_number_and_may_begin_at_0_or_1(tmp_path: Path, name: str, first: int) -> None:
    path = write_frames(tmp_path / "a", 12, first, name)  # unpadded, 10 would come before 2
    (path / "subtitles.srt").write_text("1")
    (path / "._00001.jpg").write_bytes(b"a resource fork")
    (path / "thumbs").mkdir()
    frames, info = decode(str(path), replace(CONTRACT, frames=12), THIRDS)
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), np.arange(12) * 10, atol=3)
    assert info.times[-1] == 3.667


def test_equal_frames_share_a_key_under_whatever_names(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", 5)
    copy = tmp_path / "b"
    copy.mkdir()
    for number in range(5):
        shutil.copy(path / f"{number + 1:05d}.jpg", copy / f"x{number}.jpg")
    assert decode(str(copy), CONTRACT, THIRDS)[1].key == decode(str(path), CONTRACT, THIRDS)[1].key


def overwrite(path: Path) -> None:
    """In place, with as many bytes and the time of before, as by a tool that keeps times."""
    frame = path / "00002.jpg"
    status, content = frame.stat(), frame.read_bytes()
    frame.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    os.utime(frame, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES: list[Callable[[Path], object]] = [
    overwrite,
    lambda path: (path / "00005.jpg").unlink(),
    lambda path: shutil.copy(path / "00001.jpg", path / "00006.jpg"),
    lambda path: shutil.copy(path / "00001.jpg", path / "00003.jpg"),
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_of_a_frame_changes_identity_and_digest(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = write_frames(tmp_path / "a", 5)
    before = examine(str(path))
    assert examine(str(path)) == before
    change(path)
    after = examine(str(path))
    assert after.identity != before.identity
    assert after.digest != before.digest


def test_swapped_frames_are_another_video(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", 5)
    before = examine(str(path))
    (path / "00001.jpg").rename(path / "x")
    (path / "00002.jpg").rename(path / "00001.jpg")
    (path / "x").rename(path / "00002.jpg")
    assert identify(str(path)) != before.identity
    assert examine(str(path)).digest != before.digest


def test_the_rate_of_a_file_is_its_own(tmp_path: Path) -> None:
    Image.new("RGB", (112, 84)).save(tmp_path / "a.png")
    path = str(tmp_path / "a.png")
    assert decode(path, CONTRACT, THIRDS)[1] == decode(path, CONTRACT)[1]
    assert examine(path).shown(replace(THIRDS, part=(0.0, 1.0))) == Selection(part=(0.0, 1.0))


@pytest.mark.parametrize(
    ("fps", "words"),
    [
        (None, "is a folder of frames, whose frame rate must be given as 'fps'"),
        (0.0, "its 'fps' is 0, and must be from 0.001 to 1000"),
        (1e9, "its 'fps' is 1e+09, and must be from 0.001 to 1000"),
    ],
)
def test_without_a_rate_that_can_be_right_nothing_is_guessed(tmp_path: Path, fps: float | None, words: str) -> None:
    assert refusal(write_frames(tmp_path / "a", 5), Selection(fps=fps)) == words


def damage(path: Path, number: int, content: bytes) -> None:
    (path / f"{number:05d}.jpg").write_bytes(content)


FAULTS: dict[str, Callable[[Path], object]] = {
    "its frame 00003.jpg cannot be read: cannot identify image file": lambda path: damage(path, 3, b"no image"),
    "its frame 00003.jpg cannot be read: image file is truncated": lambda path: damage(
        path, 3, (path / "00003.jpg").read_bytes()[:-20]
    ),
    "its frame 00002.jpg is empty": lambda path: damage(path, 2, b""),
    "its frames 00001.jpg (112 x 84) and 00004.jpg (84 x 112) differ in size": lambda path: Image.new(
        "RGB", (84, 112)
    ).save(path / "00004.jpg"),
    "its frames 00002.jpg and 00004.jpg have a gap between them": lambda path: (path / "00003.jpg").unlink(),
    "its frames begin with 00002.jpg, not with number 0 or 1": lambda path: (path / "00001.jpg").unlink(),
    "its frames 00001.jpg and 1.png have the same number": lambda path: Image.new("RGB", (9, 9)).save(path / "1.png"),
    "its images are named '' and 'thumb' before the number": lambda path: Image.new("RGB", (9, 9)).save(
        path / "thumb1.png"
    ),
    "its image cover.jpg has no number": lambda path: Image.new("RGB", (9, 9)).save(path / "cover.jpg"),
    "its frame 00006.jpg is not a file": lambda path: (path / "00006.jpg").mkdir(),
    "its frame 00006.jpg: No such file": lambda path: (path / "00006.jpg").symlink_to("nowhere"),
    "the folder holds no image": lambda path: [file.unlink() for file in path.iterdir()],
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_is_wrong_with_a_folder_is_named(tmp_path: Path, words: str) -> None:
    path = write_frames(tmp_path / "a", 5)
    FAULTS[words](path)
    assert refusal(path).startswith(words)


def test_a_pipe_among_the_frames_is_not_waited_for(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", 5)
    os.mkfifo(path / "00006.jpg")
    assert refusal(path) == "its frame 00006.jpg is not a file"


def test_too_many_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_frames(tmp_path / "a", 5)
    monkeypatch.setattr(frame_folder, "MOST_FRAMES", 5)
    decode(str(path), CONTRACT, THIRDS)
    monkeypatch.setattr(frame_folder, "MOST_FRAMES", 4)
    assert refusal(path) == "the folder holds 5 images, more than 4"


def test_the_identity_has_bytes_and_latest_times_in_the_places_of_a_files(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", 3)
    os.utime(path / "00002.jpg", ns=(0, 2 * 10**18))
    stats = [file.stat() for file in path.iterdir()]
    assert identify(str(path))[1:] == (
        sum(status.st_size for status in stats),
        2 * 10**18,
        max(status.st_ctime_ns for status in stats),
    )


def test_no_file_has_the_digest_of_a_folder(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", 3)
    file = tmp_path / "digests"
    file.write_bytes(b"".join(blake3(frame.read_bytes()).digest() for frame in sorted(path.iterdir())))
    assert examine(str(file)).digest != examine(str(path)).digest


@pytest.mark.parametrize("fps", [0.001, 1000.0])
def test_the_bounds_of_a_rate_can_be_right(tmp_path: Path, fps: float) -> None:
    path = str(write_frames(tmp_path / "a", 2))
    assert decode(path, CONTRACT, Selection(fps=fps))[1].times == (0.0, 1 / fps)


def test_three_series_are_refused_like_two(tmp_path: Path) -> None:
    for name in ("a{}.jpg", "b{}.jpg", "c{}.jpg"):
        path = write_frames(tmp_path / "a", 2, name=name)
    assert refusal(path) == "its images are named 'a' and 'b' before the number; keep one series"


def test_what_vanishes_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a", 2)
    (path / "00003.jpg").symlink_to("nowhere")
    for read, at, reason in (
        (frame_folder.frame_names, tmp_path / "none", "No such file or directory"),
        (frame_folder.folder_digest, path, "its frame 00003.jpg: No such file or directory"),
    ):
        with pytest.raises(UnreadableMedia) as refused:
            read(str(at))
        assert (refused.value.path, refused.value.reason) == (str(at), reason)
