"""Finds the media files of a benchmark by the names that its annotation gives them. Pure, apart from listing a folder.

Guarantees: a name leads to one file, or else to one folder of frames, or to a reason why it does not; of several that
fit, none is guessed.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path, PurePosixPath

VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".gif", ".mpg", ".mpeg", ".flv", ".wmv", ".ts")

_ByName = defaultdict[str, list[PurePosixPath]]


class MediaFolder:
    """The files below a folder. suffixes: those that a name may leave out."""

    def __init__(self, root: Path, suffixes: tuple[str, ...] = VIDEOS):
        self.root, self.suffixes = root, suffixes
        self._index: tuple[_ByName, _ByName] | None = None

    def find(self, name: str) -> Path:
        """The file of that name: the path below the folder, or else the only file whose path ends in it, where the name
        may lack the suffix; without one, the only folder with files whose path ends in it. Raises FileNotFoundError,
        whose message is the reason."""
        relative = PurePosixPath(os.path.normpath(name.lstrip("/")))
        direct = self.root / relative
        if relative.parts[:1] != ("..",) and direct.is_file():
            return direct
        files, folders = self._indexed()
        fitting = [file for file in files[relative.name] if _ends_in(file, relative, self.suffixes)]
        fitting = fitting or [folder for folder in folders[relative.name] if _ends_in(folder, relative, ())]
        if len(fitting) == 1:
            return self.root / fitting[0]
        if fitting:
            raise FileNotFoundError(f"{self.root} holds {fitting[0]} and {fitting[1]}; keep one of them")
        raise FileNotFoundError(f"no such file below {self.root}")

    def _indexed(self) -> tuple[_ByName, _ByName]:
        """The files by their names with and without suffix, and the folders that hold files by theirs."""
        if self._index is None:
            by_stem, by_folder = self._index = defaultdict(list), defaultdict(list)
            for folder, subfolders, files in os.walk(self.root, followlinks=True):
                subfolders.sort()
                place = PurePosixPath(Path(folder).relative_to(self.root))
                if files:
                    by_folder[place.name].append(place)
                for path in (place / file for file in sorted(files)):
                    for key in {path.name, path.stem if path.suffix.lower() in self.suffixes else path.name}:
                        by_stem[key].append(path)
        return self._index


def _ends_in(file: PurePosixPath, name: PurePosixPath, suffixes: tuple[str, ...]) -> bool:
    """Whether the path of a file ends in the parts of a name, which may lack the suffix."""
    parts = (*name.parts[:-1], file.name)
    same = file.name == name.name or (file.stem == name.name and file.suffix.lower() in suffixes)
    return same and file.parts[-len(parts) :] == parts
