"""One row of a dataset file, with typed access to its keys; errors name the key.

Guarantees: null, absent and NaN as the value of a key are the same; every number is finite; every string can
be encoded as UTF-8; a media path, as it is written, stays below the media root, and through links too where links are
not followed, as do the files of a media folder; the row records which of its keys were read.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evidence.errors import BadInput
from evidence.types import Box

# Turns the path of a media file into the form in which a format's writer stores it.
Relative = Callable[[str], str]
# JSON may contain one half of an escaped surrogate pair, which is not a character.
SURROGATE = re.compile(r"[\ud800-\udfff]")


class Row:
    """`values`: the row at position `index` (from 0) of a file whose media are below `media_root`, a resolved path.
    follow_links: whether a media path below the root may be a link to a file elsewhere, as in the cache of a hub.

    The methods raise KeyError if a required key is missing, and ValueError if a value is not of the required kind.
    """

    def __init__(self, values: dict[str, Any], index: int, media_root: Path, follow_links: bool = True):
        self.values, self.index, self.media_root, self.follow_links = values, index, media_root, follow_links
        self._read: set[str] = set()

    @property
    def unread(self) -> list[str]:
        """Keys that have a value and were not read."""
        return [key for key, value in self.values.items() if not is_null(value) and key not in self._read]

    def value(self, key: str) -> Any:
        self._read.add(key)
        value = self.values.get(key)
        _require_characters(value, key)
        return value

    def needed(self, key: str) -> Any:
        value = self.value(key)
        if is_null(value):
            raise KeyError(key)
        return value

    def text(self, key: str) -> str:
        """A string that is not empty; a finite number is converted."""
        value = self.needed(key)
        kept = (
            isinstance(value, str | int | float) and not isinstance(value, bool) and value not in (math.inf, -math.inf)
        )
        if not kept or not str(value).strip():
            raise ValueError(f"the key '{key}' must be a text that is not empty, not {value!r:.40}")
        return str(value)

    def id(self, key: str) -> str:
        """A text as in `text`, or the row's position if it is null."""
        return str(self.index) if is_null(self.value(key)) else self.text(key)

    def answer(self, key: str) -> str:
        """The reference answer, a text as in `text`; empty if it is null."""
        return "" if is_null(self.value(key)) else self.text(key)

    def optional_text(self, key: str) -> str | None:
        """A string, or None if it is absent or empty."""
        return _of_type(self.value(key), str, key, "a text") or None

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.sequence(key)
        if not all(isinstance(text, str) for text in value):
            raise ValueError(f"the key '{key}' must be a list of texts, not {value!r:.40}")
        return tuple(value)

    def sequence(self, key: str) -> list[Any]:
        return _of_type(self.value(key), list, key, "a list") or []

    def mapping(self, key: str) -> dict[str, Any]:
        return _of_type(self.value(key), dict, key, "an object") or {}

    def inner(self, value: Any, what: str) -> Row:
        """An object inside this row. `what` begins the message of the ValueError."""
        if not isinstance(value, dict):
            raise ValueError(f"{what}, not {value!r:.40}")
        return Row(value, self.index, self.media_root, self.follow_links)

    def number(self, key: str) -> float:
        return number(self.needed(key), f"the key '{key}'")

    def optional_amount(self, key: str) -> float | None:
        """A number of 0 or more, or None. A placeholder like -1 for an unknown duration would count as short."""
        value = self.value(key)
        if is_null(value):
            return None
        if (amount := number(value, f"the key '{key}'")) < 0:
            raise ValueError(f"the key '{key}' must be 0 or more, or null if it is unknown, not {value!r:.40}")
        return amount

    def span(self, key: str) -> tuple[float, float]:
        """[start, end] in seconds."""
        return span(self.needed(key), f"the key '{key}'")

    def part(self, key: str) -> tuple[float, float] | None:
        """[start, end] in seconds of a part of a video, or None."""
        if is_null(value := self.value(key)):
            return None
        start, end = span(value, f"the key '{key}'")
        if not 0 <= start < end:
            raise ValueError(f"the key '{key}' must be [start, end] with 0 <= start < end, not {value!r:.40}")
        return start, end

    def size(self, key: str) -> tuple[int, int] | None:
        """[width, height], or None if it is absent or empty."""
        value = self.sequence(key)
        if value and len(value) != 2:
            raise ValueError(f"the key '{key}' must be [width, height], not {value!r:.40}")
        if not value:
            return None
        width, height = (number(side, f"the key '{key}'") for side in value)
        if min(width, height) < 1 or not (width.is_integer() and height.is_integer()):
            raise ValueError(f"the key '{key}' must be [width, height] in whole pixels, not {value!r:.40}")
        return int(width), int(height)

    def media(self, key: str) -> str | None:
        """The absolute path of the media file named by the key, relative to the media root; None if absent or empty."""
        path = _of_type(self.value(key), str, key, "a path")
        return self.below_root(path, key) if path else None

    def video_or_image(self, video: str, image: str) -> tuple[str | None, str | None]:
        """The paths named by the two keys, of which exactly one is None."""
        paths = self.media(video), self.media(image)
        if None not in paths:
            raise ValueError(f"the keys '{video}' and '{image}' both name a file; give only one of them")
        if paths == (None, None):
            raise KeyError(video)
        return paths

    def below_root(self, path: str, key: str) -> str:
        """The absolute form of `path`, relative to the media root, under the name by which it is written: a link's own
        name decides what kind of file it is. Raises ValueError unless it is below the root."""
        target = resolved(self.media_root / path, f"the {key}")
        written = os.path.normpath(path)
        if os.path.isabs(written):  # the root is resolved, so the folder must be
            folder = resolved(Path(written).parent, f"the {key}")
            written = os.path.relpath(folder / Path(written).name, self.media_root)
        if written == ".":
            raise ValueError(f"the {key} {path!r} is the media root {self.media_root} itself; name a file below it")
        if Path(written).parts[0] == "..":
            raise ValueError(
                f"the {key} {path!r} leaves the media root {self.media_root}; move the file below it, or name another"
            )
        if not self.follow_links and not all(map(self._is_below_root, (target, *_links_in(target)))):
            raise ValueError(
                f"the {key} {path!r} is or holds a link that leaves the media root {self.media_root}, and links are "
                "forbidden (follow_links=false, --no-links); put the file itself there, or name another root"
            )
        return str(self.media_root / written)

    def _is_below_root(self, target: Path) -> bool:
        return target.is_relative_to(self.media_root)


def resolved(path: Path, what: str) -> Path:
    """The absolute path without links. Raises BadInput if a link cannot be followed, such as a link to itself."""
    try:
        return path.resolve()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"{what} {str(path)!r} cannot be encoded by this locale ({error.encoding}); set PYTHONUTF8=1"
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"{what} {str(path)!r} cannot be followed ({error}); fix its links or name another") from None


def _links_in(folder: Path) -> list[Path]:
    """The targets of the links in a folder of frames; none for a file."""
    if not folder.is_dir():
        return []
    try:
        return [resolved(Path(entry.path), "the frame") for entry in os.scandir(folder) if entry.is_symlink()]
    except OSError as error:
        raise BadInput(f"the folder {folder} cannot be read ({error.strerror}); name one that can be") from None


def is_null(value: Any) -> bool:
    """Whether a value is missing: null, or NaN, which pandas writes for it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: Any, what: str) -> float:
    """A finite number, which may be written as a string."""
    try:
        parsed = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        parsed = math.nan
    if not math.isfinite(parsed):
        raise ValueError(f"{what} must be a number, not {value!r:.40}")
    return parsed


def span(value: Any, what: str) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"{what} must be [start, end] in seconds, not {value!r:.40}")
    start, end = (number(side, what) for side in value)
    return start, end


def box(value: Any) -> Box:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"a box must be four numbers, not {value!r:.60}")
    x1, y1, x2, y2 = (number(side, "a box") for side in value)
    return (x1, y1, x2, y2)


def _require_characters(value: Any, key: str) -> None:
    """Raises ValueError if a string in the value contains a lone surrogate. Iterative, since a value may be nested as
    deeply as the JSON parser allows."""
    todo = [value]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            todo += [*item, *item.values()]
        elif isinstance(item, list):
            todo += item
        elif isinstance(item, str) and (half := SURROGATE.search(item)):
            raise ValueError(
                f"the key '{key}' contains {half[0]!r}, half a character (a lone surrogate); write the whole character"
            )


def _of_type(value: Any, kind: type, key: str, wanted: str) -> Any:
    if is_null(value):
        return None
    if not isinstance(value, kind):
        raise ValueError(f"the key '{key}' must be {wanted}, not {value!r:.40}")
    return value
