"""Finds the media files of a benchmark by the names that its annotation gives them. Pure, apart from listing a folder.

Guarantees: a name leads to one file or to a reason why it does not; of several files that fit, none is guessed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path, PurePosixPath

VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".gif", ".mpg", ".mpeg", ".flv", ".wmv", ".ts")


class MediaFolder:
    """The files below a folder. suffixes: those that a name may leave out."""

    def __init__(self, root: Path, suffixes: tuple[str, ...] = VIDEOS):
        self.root, self.suffixes = root, suffixes
        self._by_stem: dict[str, list[PurePosixPath]] | None = None

    def find(self, name: str) -> Path:
        """The file of that name: the path below the folder, or else the only file whose path ends in it, where the name
        may lack the suffix. Raises FileNotFoundError, whose message is the reason."""
        relative = PurePosixPath(os.path.normpath(name.lstrip("/")))
        direct = self.root / relative
        if relative.parts[0] != ".." and direct.is_file():
            return direct
        fitting = [file for file in self._named(relative) if _ends_in(file, relative, self.suffixes)]
        if len(fitting) == 1:
            return self.root / fitting[0]
        if fitting:
            raise FileNotFoundError(f"{self.root} holds {fitting[0]} and {fitting[1]}; keep one of them")
        raise FileNotFoundError(f"no such file below {self.root}")

    def _named(self, name: PurePosixPath) -> list[PurePosixPath]:
        if self._by_stem is None:
            self._by_stem = defaultdict(list)
            for folder, _, files in os.walk(self.root, followlinks=True):
                for file in sorted(files):
                    path = PurePosixPath(Path(folder, file).relative_to(self.root))
                    for key in {path.name, path.stem if path.suffix.lower() in self.suffixes else path.name}:
                        self._by_stem[key].append(path)
        return sorted(set(self._by_stem[name.name]))


def _ends_in(file: PurePosixPath, name: PurePosixPath, suffixes: tuple[str, ...]) -> bool:
    """Whether the path of a file ends in the parts of a name, which may lack the suffix."""
    parts = (*name.parts[:-1], file.name)
    same = file.name == name.name or (file.stem == name.name and file.suffix.lower() in suffixes)
    return same and file.parts[-len(parts) :] == parts
