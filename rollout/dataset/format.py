"""What a dataset format is: how it is told from others, and its rows from and to Samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evidence.types import Sample
from rollout.dataset.row import Row

# Gives a media file's path as it has to stand in the file that is written.
Relative = Callable[[str], str]


@dataclass(frozen=True)
class Format:
    """marks: a file is of this format if its first rows have, of each group, one key at least.

    read: raises KeyError or ValueError for a row that is not of the format. write: raises ValueError for a sample that
    lacks what the format needs; what the format has no place for is left out, which `lost` finds.
    media_folder: where its files keep their media, relative to themselves.
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
