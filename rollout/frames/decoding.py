"""Decodes a media file into frames under a sampling contract, once for all consumers (promises 5 and 6).

Guarantees: the frames depend only on the file's bytes, the contract, the key times and the decoder, all of which are in
the key; the digest in the key is that of the decoded bytes; a file that cannot be decoded raises UnreadableMedia with a
reason, whichever error the decoder raised.

Changes are detected by the file's times, so a change through a memory map is detected only after the kernel has written
it back.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import stat
import time
from concurrent.futures import Executor, wait
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import psutil
from blake3 import blake3

from evidence.errors import BadInput, UnreadableMedia
from evidence.sampling import ALL, SamplingContract, Selection, frame_indices, frame_key, resized_size
from evidence.types import FrameInfo
from rollout.frames.decoders import FAILURES, IMAGE_SUFFIXES, VERSIONS, VIDEO, Track, read_image, read_track
from rollout.frames.frame_folder import (
    folder_digest,
    folder_identity,
    frame_names,
    is_folder,
    read_frames,
    require_rate,
    starts,
)

# Time and source line in a decoder's message. They are removed, so that a file always fails with the same reason.
DECODER_PLACE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")
# File times advance in ticks of up to 10 ms: two writes closer than that can have equal times.
TICK_NS = 20_000_000

# Inode, size, mtime and ctime of a file; of a folder, see folder_identity. Any write to it changes one of them.
Identity = tuple[int, int, int, int]


# Reasons for the loss of a decoder's process.
DIED = "the decoder died"
OUT_OF_MEMORY = "the decoder ran out of memory"


def took_longer(timeout_s: float) -> str:
    return f"the decoder took more than {timeout_s:g} s"


class DecoderFailed(UnreadableMedia):
    """One decoder cannot read the file; another may."""


class OutOfMemory(DecoderFailed, MemoryError):
    """The decoder reached the memory limit of its process (limit_memory), which should not be used further."""


@dataclass(frozen=True)
class MediaFile:
    """A file, its identity when its content was hashed, and the digest (BLAKE3, hex). folder: whether it is a folder of
    frames."""

    path: str
    identity: Identity
    digest: str
    folder: bool = False

    def shown(self, selected: Selection) -> Selection:
        """The selection without the frame rate, unless this is a folder: a file states its own."""
        return selected if self.folder else replace(selected, fps=None)


def identify(path: str) -> Identity:
    """The identity of a file or a folder of frames. Raises UnreadableMedia if it is neither, or is empty."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableMedia(path, "no such file") from None
    except OSError as error:
        raise UnreadableMedia(path, error.strerror or type(error).__name__) from None
    except UnicodeEncodeError as error:
        reason = f"this locale ({error.encoding}) cannot encode its name; set PYTHONUTF8=1"
        raise UnreadableMedia(path, reason) from None
    if stat.S_ISDIR(status.st_mode):
        return folder_identity(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableMedia(path, "no such file")
    if not status.st_size:
        raise UnreadableMedia(path, "the file is empty")
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def examine(path: str, meanwhile: Executor | None = None) -> MediaFile:
    """Hash a file, or those of a folder of frames. Raises UnreadableMedia, also if the file changes in the meantime.

    `meanwhile`: executor on which the table of times is read at the same time, for a file that this process decodes
    next.
    """
    identity = identify(path)
    if time.time_ns() - identity[-1] < TICK_NS:
        time.sleep(TICK_NS / 1e9)
        identity = identify(path)
    folder = is_folder(path)
    has_track = not folder and not _is_image(path)
    reading = [meanwhile.submit(_track, path, identity)] if meanwhile and has_track else []
    try:
        digest = folder_digest(path) if folder else _file_digest(path)
    except OSError as error:
        raise UnreadableMedia(path, error.strerror or type(error).__name__) from None
    finally:
        wait(reading)  # if it raised an error, decoding raises it again
    _require_unchanged(path, identity)
    return MediaFile(path, identity, digest, folder)


def _file_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, blake3).hexdigest()  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _track(path: str, identity: Identity) -> Track:
    return read_track(path)


def _require_unchanged(path: str, identity: Identity) -> None:
    if identify(path) != identity:
        raise UnreadableMedia(path, "the file changed while it was read")


def _is_image(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


class Turns:
    """The decoders to try on a file, one after another; `decoder` is the current one."""

    def __init__(self, path: str, first: str = "decord", folder: bool = False):
        """`first`: the decoder to try first on a video. `folder`: whether the video is a folder of frames."""
        self.path = path
        self.failures: list[DecoderFailed] = []
        of_images = folder or _is_image(path)
        self._decoders = ("pillow",) if of_images else (first, *(name for name in VIDEO if name != first))

    @property
    def decoder(self) -> str:
        return self._decoders[len(self.failures)]

    def failed(self, failure: DecoderFailed) -> None:
        """Move on to the next decoder. Raises UnreadableMedia, with all reasons, if all of them failed."""
        self.failures.append(failure)
        if len(self.failures) == len(self._decoders):
            reasons = dict.fromkeys(f.reason for f in self.failures)  # usually the same
            raise UnreadableMedia(self.path, "; ".join(reasons)) from None


def decode(path: str, contract: SamplingContract, selected: Selection = ALL) -> tuple[np.ndarray, FrameInfo]:
    """(frames, info) of a video, which may be a folder of frames, or of an image as a one-frame video, by the first
    decoder that can read it.

    frames: uint8 [n, height, width, 3], RGB; selected: of the video. Raises UnreadableMedia.
    Runs in this process without limits on time or memory, so use it only for files that are known to be good.
    """
    media = examine(path)
    turns = Turns(path, folder=media.folder)
    while True:
        try:
            return decode_with(turns.decoder, media, contract, selected)
        except DecoderFailed as failure:
            turns.failed(failure)


def decode_with(
    decoder: str, media: MediaFile, contract: SamplingContract, selected: Selection = ALL
) -> tuple[np.ndarray, FrameInfo]:
    """Like `decode`, with the decoder of that name, for a file that is already hashed. Raises DecoderFailed if another
    decoder is worth trying, else UnreadableMedia."""
    path, selected = media.path, media.shown(selected)
    identity = identify(path)
    if media.folder:
        require_rate(path, selected.fps)
    # Inode and times of the same file may differ on another node; only its content counts.
    if identity != media.identity and examine(path).digest != media.digest:
        raise UnreadableMedia(path, "the file changed while it was read")
    try:
        frames, times, duration, original = _read(decoder, path, identity, contract, selected)
    except BadInput as error:
        raise UnreadableMedia(path, str(error)) from None
    except FAILURES as error:
        _require_unchanged(path, identity)
        if isinstance(error, MemoryError):
            raise OutOfMemory(path, OUT_OF_MEMORY) from None
        raise DecoderFailed(path, _reason(error)) from None
    _require_unchanged(path, identity)
    info = FrameInfo(
        key=frame_key(media.digest, contract, VERSIONS[decoder], selected),
        times=tuple(round(float(t), 3) for t in times),
        size=(frames.shape[2], frames.shape[1]),
        original_size=original,
        duration=round(duration, 3),
    )
    return frames, info


def _reason(error: BaseException) -> str:
    lines = DECODER_PLACE.sub("", (getattr(error, "strerror", None) or str(error)).strip()).splitlines()
    return lines[-1] if lines else type(error).__name__


def _read(
    decoder: str, path: str, identity: Identity, contract: SamplingContract, selected: Selection
) -> tuple[np.ndarray, np.ndarray, float, tuple[int, int]]:
    """(frames, their times, duration, original size). At most one frame, or one batch, is in memory at full size."""
    pixel_aspect = 1.0
    if selected.fps is not None:  # a folder: MediaFile.shown
        names = frame_names(path)
        times = starts(len(names), selected.fps)
        indices = frame_indices(times, contract, selected)
        times, duration = times[indices], len(names) / selected.fps
        decoded = read_frames(path, [names[index] for index in indices])
    elif decoder == "pillow":
        times, duration, decoded = np.zeros(1), 0.0, iter([read_image(path)])
    else:
        track = _track(path, identity)
        indices = frame_indices(track.times, contract, selected)
        times, duration, decoded = track.times[indices], track.duration, VIDEO[decoder](path, track, indices.tolist())
        pixel_aspect = track.pixel_aspect
    first = next(decoded)
    original = first.shape[1], first.shape[0]
    width, height = resized_size(*_displayed(original, pixel_aspect), contract, len(times))
    frames = np.empty((len(times), height, width, 3), np.uint8)
    frames[0] = _resize(first, (width, height))
    for frame, target in zip(decoded, frames[1:]):
        target[:] = _resize(frame, (width, height))
    return frames, times, duration, original


def _displayed(stored: tuple[int, int], pixel_aspect: float) -> tuple[int, int]:
    """(width, height) at which a player shows a frame of `stored` size: the shorter side of its pixels is stretched."""
    width, height = stored
    return (round(width * pixel_aspect), height) if pixel_aspect > 1 else (width, round(height / pixel_aspect))


def _resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if frame.shape[1::-1] == size:
        return frame
    smaller = size[0] * size[1] < frame.shape[0] * frame.shape[1]
    try:
        return cv2.resize(frame, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
    except cv2.error as error:
        if error.code != cv2.Error.StsNoMem:
            raise
        raise MemoryError from None


def limit_memory(more_bytes: int) -> None:
    """Limit this process to `more_bytes` beyond its present data size. Larger allocations fail, as for a file that
    claims to be immense. For processes that only decode."""
    present = psutil.Process().memory_info().data
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (present + more_bytes, hard))
