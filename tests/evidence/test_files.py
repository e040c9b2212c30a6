"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import room

from evidence import files
from evidence.files import PART, whole_file, whole_folder, write_text


def write_half(path: Path) -> None:
    with whole_file(path) as part:
        part.write_text("half")
        raise OSError("the disk is full")


def fill_half(path: Path) -> None:
    with whole_folder(path) as part:
        (part / "third").touch()
        raise OSError("the disk is full")


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="full"):
        write_half(path)
    assert path.read_text() == "old"
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_folder_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("first", "second"):
        with whole_folder(path) as part:
            (part / content).write_text(content)
    assert os.listdir(path) == ["second"]
    with pytest.raises(OSError, match="full"):
        fill_half(path)
    assert os.listdir(path) == ["second"]
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    test_a_new_file_never_replaces_an_old_one(tmp_path)


def test_a_new_file_never_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with whole_file(path, new=True) as part:
        part.write_text("first")
    with pytest.raises(FileExistsError), whole_file(path, new=True) as part:
        part.write_text("second")
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_file_that_cannot_be_written_is_named_and_the_old_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")
    with room(1000), pytest.raises(OSError, match="File too large") as refused:
        write_text(path, "x" * 2000)
    assert refused.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(OSError, match="No space left") as refused:
        write_text(Path("/dev/full"), "x")
    assert refused.value.filename == "/dev/full"


def test_a_library_that_hides_the_full_disk_does_not_hide_it_from_the_user(tmp_path: Path) -> None:
    refusal = pytest.raises(OSError, match="File too large")
    with room(1000), refusal as refused, whole_folder(tmp_path / "model"):
        raise RuntimeError("unexpected pos 64 vs 0")
    assert refused.value.filename == str(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def sync(path: Path) -> None:
        synced.append(f"{path.relative_to(tmp_path)} {(tmp_path / 'model').exists()}")

    monkeypatch.setattr(files, "sync", sync)
    with whole_folder(tmp_path / "model") as part:
        (part / "inner").mkdir()
        (part / "inner" / "file").touch()
    written = [f"model{PART}/inner False", f"model{PART}/inner/file False", f"model{PART} False"]
    assert synced == [*written, ". True"]


def test_other_errors_of_a_folder_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="another"), whole_folder(tmp_path / "model"):
        raise RuntimeError("another reason")
    assert os.listdir(tmp_path) == []


def test_a_killed_writer_leaves_nothing_under_the_name_and_the_next_one_starts_clean(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from evidence.files import whole_folder
with whole_folder(Path(sys.argv[1])) as part:
    (part / "half").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "model"
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [f"model{PART}"]
    with whole_folder(path) as part:
        assert os.listdir(part) == []
    assert os.listdir(tmp_path) == ["model"]


def test_a_link_is_followed_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
