"""Files of JSON lines on a disk that fills up and empties again, and after a writer that was killed."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from full_disk import room

from evidence.lines import AppendedLines, records


def line(number: int, length: int = 20) -> str:
    """A line of `length` bytes, its end included."""
    text = json.dumps({"n": number, "x": ""})
    return text[:-2] + "x" * (length - len(text) - 1) + text[-2:]


def numbers(path: Path) -> list[int]:
    """Of the lines in the file, all of which must be whole."""
    return [json.loads(text)["n"] for text in path.read_text().splitlines()]


def state(lines: AppendedLines) -> tuple[int, int, int]:
    return lines.failed, lines.waiting, lines.dropped


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.jsonl"


def test_lines_are_in_the_file_when_write_returns(path: Path) -> None:
    lines = AppendedLines(path)
    lines.write([line(1), line(2)])
    assert path.read_text() == line(1) + "\n" + line(2) + "\n"
    lines.write(['{"text": "ß\\n"}'])
    lines.sync()
    lines.close()
    AppendedLines(path).write([line(3)])
    assert list(records(path))[2:] == [{"text": "ß\n"}, {"n": 3, "x": "x" * (20 - 18)}]
    assert state(lines) == (0, 0, 0)


def test_what_finds_no_room_waits_in_order_and_nothing_of_it_stays_in_the_file(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = AppendedLines(path)
    with room(50):
        lines.write([line(1)])
        lines.write([line(2), line(3), line(4)])
        assert (numbers(path), path.stat().st_size) == ([1, 2], 40)
        assert state(lines) == (1, 2, 0)
        lines.write([line(5)])
        assert state(lines) == (2, 3, 0)
    lines.write([line(6)])
    assert numbers(path) == [1, 2, 3, 4, 5, 6]
    assert state(lines) == (2, 0, 0)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: cannot be written (File too large); its lines wait in memory for room",
        f"{path}: can be written again; lines lost meanwhile: 0",
    ]


def test_close_writes_what_waits_or_says_how_much_is_lost(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines, full = AppendedLines(path), AppendedLines(path.with_name("full"))
    with room(10):
        lines.write([line(1)])
        full.write([line(1), line(2)])
        full.close()
    lines.close()
    assert numbers(path) == [1]
    assert numbers(full.path) == []
    assert [r.getMessage() for r in caplog.records if "are lost" in r.getMessage()] == [
        f"{full.path}: 2 lines could not be written and are lost"
    ]


def test_the_oldest_of_too_many_waiting_lines_are_dropped_and_counted(path: Path) -> None:
    lines = AppendedLines(path, most_waiting_bytes=60)
    with room(0):
        for number in range(5):
            lines.write([line(number)])
            assert state(lines) == (number + 1, min(number + 1, 3), max(0, number - 2))
    lines.write([line(5)])
    assert numbers(path) == [2, 3, 4, 5]
    assert lines.dropped == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_part_that_cannot_be_taken_back_is_skipped_by_readers(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    lines = AppendedLines(path)
    lines.write([line(1)])

    class Failing:
        """The file on a disk that takes 5 bytes more and cuts off nothing."""

        def __init__(self) -> None:
            self.fileno, self.left = lines._file.fileno, 5

        def write(self, data: memoryview) -> int:
            if not self.left:
                raise OSError(number, os.strerror(number))
            written, self.left = os.write(self.fileno(), data[: self.left]), 0
            return written

        def truncate(self, size: int) -> None:
            raise OSError(number, os.strerror(number))

    with monkeypatch.context() as failing:
        failing.setattr(lines, "_file", Failing())
        lines.write([line(2)])
        assert state(lines) == (1, 1, 0)
        lines._file.left = 5  # type: ignore[attr-defined]
        lines.write([line(3)])
        assert path.read_text() == line(1) + "\n" + line(2)[:5] + "\n" + line(2)[:4]
    with monkeypatch.context() as append_only:
        append_only.setattr(lines, "_take_back", lambda: None)
        lines.write([])
    assert [record["n"] for record in records(path)] == [1, 2, 3]
    lines.keep(lambda record: True)
    assert numbers(path) == [1, 2, 3]


def test_a_device_without_room_ends_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.symlink_to("/dev/full")
    lines = AppendedLines(path)
    lines.write([line(1)])
    lines.write([line(2)])
    lines.close()
    assert state(lines)[:2] == (3, 2)
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize(
    "end", ["", line(3)[:7], line(3), '{"n": 3\n', "\0\0\0\n", "\0" * 100_000, '{"n": 3\n{"n": 4', "3\n", "\n"]
)
@pytest.mark.parametrize("begun", [0, 2])
def test_a_last_line_that_was_cut_off_is_removed_at_opening(path: Path, begun: int, end: str) -> None:
    path.write_text("".join(line(number) + "\n" for number in range(begun)) + end)
    AppendedLines(path).write([line(9)])
    assert numbers(path) == [*range(begun), 9]


def test_long_lines_are_found_whole_at_opening(path: Path) -> None:
    path.write_text(line(1, 200_000) + "\n" + line(2, 200_000) + "\n" + line(3, 200_000)[:-1])
    AppendedLines(path).close()
    assert numbers(path) == [1, 2]


def test_keep_drops_lines_also_those_that_wait(path: Path) -> None:
    lines = AppendedLines(path)
    lines.write(line(number) for number in range(6))
    with room(0):
        lines.write([line(6), line(7)])
    lines._try = lambda action: None  # type: ignore[method-assign]  # still no room, but for the new file
    lines.keep(lambda record: record["n"] % 2 == 0)
    del lines._try
    assert (numbers(path), lines.waiting) == ([0, 2, 4], 1)
    lines.write([line(9)])
    assert numbers(path) == [0, 2, 4, 6, 9]


def test_keep_without_room_leaves_the_file_as_it_was(path: Path) -> None:
    lines = AppendedLines(path)
    lines.write(line(number) for number in range(6))
    with room(30), pytest.raises(OSError, match="File too large"):
        lines.keep(lambda record: record["n"] > 2)
    lines.write([line(6)])
    assert numbers(path) == list(range(7))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_keep_needs_no_room_to_cut_off_the_last_lines(path: Path) -> None:
    lines = AppendedLines(path)
    lines.write(line(number) for number in range(6))
    with room(0):
        lines.keep(lambda record: record["n"] < 3)
    lines.write([line(9)])
    assert numbers(path) == [0, 1, 2, 9]


def test_keep_holds_one_line_in_memory(path: Path) -> None:
    path.write_text("".join(line(number, 1000) + "\n" for number in range(20_000)))
    lines = AppendedLines(path)
    tracemalloc.start()
    try:
        lines.keep(lambda record: record["n"] != 7)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert path.stat().st_size == 1000 * 19_999


def test_a_file_that_was_removed_is_created_again_but_not_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lines = AppendedLines(folder / "lines.jsonl")
    lines.write([line(1)])
    lines.path.unlink()
    lines.write([line(2)])
    assert numbers(lines.path) == [2]
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError) as raised:
        lines.write([line(3)])
    assert str(raised.value.filename) == str(lines.path)


def unwritable(path: Path) -> None:
    path.mkdir()


def without_folder(path: Path) -> None:
    path.parent.rmdir()


@pytest.mark.parametrize("spoil", [unwritable, without_folder])
def test_other_errors_name_the_file(path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(path)
    with pytest.raises(OSError, match=r"Is a directory|No such file") as raised:
        AppendedLines(path)
    assert str(raised.value.filename) == str(path)


def test_only_the_first_failure_of_a_row_is_announced(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    lines = AppendedLines(path)
    for _ in range(2):
        with room(0):
            for number in range(3):
                lines.write([line(number)])
        lines.write([])
    assert [record.getMessage().split(": ")[1][:10] for record in caplog.records] == ["cannot be ", "can be wri"] * 2


def test_sync_writes_the_lines_that_wait_for_room(path: Path) -> None:
    lines = AppendedLines(path)
    with room(30):
        lines.write([line(1), line(2)])
        assert not lines.sync()
    assert lines.sync()
    assert numbers(path) == [1, 2]
