"""The table of known dataset formats, and detection of a file's format.

A format is one reader module, with functions that read a row into a Sample and write a Sample as a row, and one row of
FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from evidence.errors import BadInput
from evidence.types import Sample
from rollout.dataset import open_o3, ser, time_r1, video_r1, vstar
from rollout.dataset.row import Relative, Row, is_null


@dataclass(frozen=True)
class Format:
    """marks: a file is of this format if its first rows have at least one key of each group.

    read: raises KeyError or ValueError for a row that is not of the format. write: raises ValueError for a sample that
    lacks what the format needs; fields that the format cannot hold are left out, which convert.lost detects.
    media_folder: the folder of a file's media, relative to the file.
    """

    name: str
    marks: tuple[tuple[str, ...], ...]
    read: Callable[[Row], Sample]
    write: Callable[[Sample, Relative], dict[str, Any]]
    media_folder: str = "."

    def fits(self, keys: set[str]) -> bool:
        return all(keys.intersection(group) for group in self.marks)

    @property
    def described(self) -> str:
        return f"{self.name} ({', '.join(' or '.join(group) for group in self.marks)})"


FORMATS = {
    form.name: form
    for form in (
        Format("ser", (("video", "image"), ("question",)), ser.read, ser.write),
        Format("open-o3", (("video_path", "image_path"),), open_o3.read, open_o3.write),
        Format("video-r1", (("problem",), ("path",)), video_r1.read_video_r1, video_r1.write_video_r1),
        Format(
            "easyvideor1",
            (("problem",), ("videos", "images")),
            video_r1.read_easy_video_r1,
            video_r1.write_easy_video_r1,
        ),
        Format("time-r1", (("video",), ("sentence",)), time_r1.read_time_r1, time_r1.write_time_r1),
        Format("tvgbench", (("path",), ("question",)), time_r1.read_tvgbench, time_r1.write_tvgbench),
        Format("v-star", (("vid",),), vstar.read, vstar.write, media_folder="videos"),
    )
}


def named(name: str) -> Format:
    """The format of that name. Raises BadInput if there is none."""
    if name not in FORMATS:
        raise BadInput(f"format = {name}: must be one of {', '.join(FORMATS)}")
    return FORMATS[name]


def detect(rows: Iterable[dict[str, Any]]) -> Format:
    """The one format that fits the keys of `rows`. Raises BadInput, naming the keys, if none or several fit."""
    keys = {key for row in rows for key, value in row.items() if not is_null(value)}
    fitting = [form for form in FORMATS.values() if form.fits(keys)]
    if len(fitting) == 1:
        return fitting[0]
    seen = f"the keys {', '.join(sorted(keys))}" if keys else "no keys"
    if fitting:
        names = " and ".join(form.name for form in fitting)
        raise BadInput(f"its first rows have {seen}, which fit {names}; name the format")
    known = "; ".join(form.described for form in FORMATS.values())
    raise BadInput(f"its first rows have {seen}, which fit no known format; known are: {known}")
