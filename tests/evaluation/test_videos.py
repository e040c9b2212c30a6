"""Media files by the names of an annotation."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.videos import MediaFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("data/a.mp4", "star/b.webm", "sta/c.mp4", "other/c.mp4", "a.b.mp4", "d.srt", "sub/data/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("data/a.mp4", "data/a.mp4"),
        ("a.mp4", "data/a.mp4"),
        ("a", "data/a.mp4"),  # without its suffix
        ("/data/a", "data/a.mp4"),  # as read from a path below a root that is not known
        ("./data/a.mp4", "data/a.mp4"),
        ("a.b", "a.b.mp4"),  # what looks like a suffix is none
        ("b", "star/b.webm"),
        ("sta/c.mp4", "sta/c.mp4"),
        ("sta/c", "sta/c.mp4"),
    ],
)
def test_a_name_leads_to_its_file(folder: Path, name: str, file: str) -> None:
    assert MediaFolder(folder).find(name) == folder / file


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("clip", "tvqa/frames/clip"),
        ("frames/clip", "tvqa/frames/clip"),
        ("tvqa/frames/clip", "tvqa/frames/clip"),
        ("both", "both.mp4"),  # a file goes before a folder of frames
    ],
)
def test_a_name_may_lead_to_a_folder_of_frames(folder: Path, name: str, found: str) -> None:
    for file in ("tvqa/frames/clip/1.jpg", "both/1.jpg", "both.mp4"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    assert MediaFolder(folder).find(name) == folder / found


def test_links_to_folders_are_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "linked.mp4").touch()
    (folder / "link").symlink_to(elsewhere)
    assert MediaFolder(folder).find("linked") == folder / "link/linked.mp4"


def test_only_the_suffix_of_a_video_may_be_left_out(folder: Path) -> None:
    (folder / "f.txt").touch()
    (folder / "f.tar.mp4").touch()
    with pytest.raises(FileNotFoundError):
        MediaFolder(folder).find("f")
    assert MediaFolder(folder).find("f.tar") == folder / "f.tar.mp4"
    assert MediaFolder(folder, (".txt",)).find("f") == folder / "f.txt"
    assert MediaFolder(folder).find("X/../f.txt") == folder / "f.txt"


def test_of_several_folders_none_is_guessed(folder: Path) -> None:
    for file in ("x/clip/1.jpg", "y/clip/1.jpg"):
        (folder / file).parent.mkdir(parents=True)
        (folder / file).touch()
    with pytest.raises(FileNotFoundError, match="holds x/clip and y/clip; keep one of them"):
        MediaFolder(folder).find("clip")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("c", "holds other/c.mp4 and sta/c.mp4"),
        ("star/a", "no such file below"),
        ("d", "no such file below"),  # a file of another kind
        ("b.mp4", "no such file below"),
        ("../data/a.mp4", "no such file below"),
        (".", "no such file below"),
        ("sub", "no such file below"),  # a folder of folders
        ("data.mp4", "no such file below"),
    ],
)
def test_a_name_without_one_file_has_a_reason(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(FileNotFoundError, match=reason):
        MediaFolder(folder).find(name)
