"""Videos that are stored as folders of numbered images, such as `clip/00001.jpg`, `clip/00002.jpg`, …

Guarantees: frame i is the image with the i-th number, and begins at i / fps, where fps is what the data states and
never a guess; a folder whose numbers have a gap, repeat or do not begin at 0 or 1 is refused, since its times would be
wrong; identity and digest change with any change of a frame. Other files in the folder are ignored.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from blake3 import blake3

from evidence.errors import UnreadableMedia
from rollout.frames.decoders import FAILURES, IMAGE_SUFFIXES, read_image

NUMBER = re.compile(r"(.*?)([0-9]+)")
# The status of each frame is read for each lease, in the driver's event loop, which 10,000 hold up for about 0.2 s.
MOST_FRAMES = 10_000
FPS = (0.001, 1000.0)  # frames further apart or closer are a slip; times are kept to a millisecond


def is_folder(path: str) -> bool:
    return os.path.isdir(path)


def frame_names(path: str) -> list[str]:
    """The names of the frames in order. Raises UnreadableMedia."""
    numbered: list[tuple[int, str]] = []
    prefixes: set[str] = set()
    try:
        for name in sorted(os.listdir(path)):
            if Path(name).suffix.lower() not in IMAGE_SUFFIXES or name.startswith("."):
                continue
            match = NUMBER.fullmatch(Path(name).stem)
            if match is None:
                raise UnreadableMedia(path, f"its image {name} has no number at the end of its name")
            prefixes.add(match[1])
            numbered.append((int(match[2]), name))
    except OSError as error:
        raise UnreadableMedia(path, error.strerror or type(error).__name__) from None
    if not numbered:
        raise UnreadableMedia(path, "the folder holds no image")
    if len(numbered) > MOST_FRAMES:
        raise UnreadableMedia(path, f"the folder holds {len(numbered)} images, more than {MOST_FRAMES}")
    if len(prefixes) > 1:
        first, second = sorted(prefixes)[:2]
        raise UnreadableMedia(path, f"its images are named {first!r} and {second!r} before the number; keep one series")
    numbered.sort()
    if numbered[0][0] > 1:
        raise UnreadableMedia(path, f"its frames begin with {numbered[0][1]}, not with number 0 or 1")
    for (number, name), (following, after) in pairwise(numbered):
        if following != number + 1:
            fault = "have the same number" if following == number else "have a gap between them"
            raise UnreadableMedia(path, f"its frames {name} and {after} {fault}")
    return [name for _, name in numbered]


def folder_identity(path: str) -> tuple[int, int, int, int]:
    """(a hash of all frames' names, inodes, sizes and times; their bytes; the latest mtime; the latest ctime). Raises
    UnreadableMedia, also for a frame that is empty or not a regular file."""
    hashed, size, mtime, ctime = blake3(), 0, 0, 0
    for name in frame_names(path):
        try:
            status = os.stat(os.path.join(path, name))
        except OSError as error:
            raise UnreadableMedia(path, f"its frame {name}: {error.strerror or type(error).__name__}") from None
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableMedia(path, f"its frame {name} is not a file")
        if not status.st_size:
            raise UnreadableMedia(path, f"its frame {name} is empty")
        identity = (name, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        hashed.update(repr(identity).encode())
        size, mtime, ctime = size + status.st_size, max(mtime, identity[3]), max(ctime, identity[4])
    return int.from_bytes(hashed.digest(8)), size, mtime, ctime


def folder_digest(path: str) -> str:
    """BLAKE3, hex, of the frames' digests in order: equal frames have an equal digest under whatever names. Raises
    UnreadableMedia."""
    whole = blake3(derive_key_context="SER: frames of a video in a folder")  # so that no file has the same digest
    for name in frame_names(path):
        try:
            whole.update(blake3(Path(path, name).read_bytes()).digest())
        except OSError as error:
            raise UnreadableMedia(path, f"its frame {name}: {error.strerror or type(error).__name__}") from None
    return whole.hexdigest()


def require_rate(path: str, fps: float | None) -> None:
    """Raises UnreadableMedia for a folder of frames of which the data states no rate, or none that can be right."""
    if fps is None:
        raise UnreadableMedia(path, "is a folder of frames, whose frame rate must be given as 'fps'")
    if not FPS[0] <= fps <= FPS[1]:
        raise UnreadableMedia(path, f"its 'fps' is {fps:g}, and must be from {FPS[0]:g} to {FPS[1]:g}")


def starts(count: int, fps: float) -> np.ndarray:
    """float64 [count], the start of each frame in seconds."""
    return np.arange(count) / fps


def read_frames(path: str, names: Sequence[str]) -> Iterator[np.ndarray]:
    """The frames, uint8 [H, W, 3] RGB, one after another. Raises one of FAILURES, whose message names the frame; also
    if its size is not that of the first."""
    first = None
    for name in names:
        try:
            frame = read_image(os.path.join(path, name))
        except MemoryError:
            raise
        except FAILURES as error:
            reason = str(error).replace(os.path.join(path, ""), "") or type(error).__name__
            raise ValueError(f"its frame {name} cannot be read: {reason}") from None
        first = first or (name, frame.shape)
        if frame.shape != first[1]:
            sizes = " and ".join(f"{n} ({shape[1]} x {shape[0]})" for n, shape in (first, (name, frame.shape)))
            raise ValueError(f"its frames {sizes} differ in size")
        yield frame
