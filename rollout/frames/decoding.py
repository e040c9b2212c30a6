"""Frames: one decoding of a media file under a sampling contract, for every consumer (promises 5 and 6).

Guarantees: the result depends on nothing but the file's bytes, the contract, the key times and the decoder, all in the
key; the digest in the key is that of the bytes that were decoded; a file that cannot be decoded raises UnreadableMedia
with a reason, whatever the decoder said.

A change is seen by the file's times, so one through a memory map is seen only when the kernel has written it back.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import stat
import time
from collections.abc import Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import psutil
from blake3 import blake3

from evidence.errors import BadInput, UnreadableMedia
from evidence.sampling import SamplingContract, frame_indices, frame_key, resized_size
from evidence.types import FrameInfo
from rollout.frames.decoders import FAILURES, VERSIONS, VIDEO, Track, read_image, read_track

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
# When and where in its sources a decoder failed: no part of the reason, which has to be the same for the same file.
DECODER_PLACE = re.compile(r"\[\d\d:\d\d:\d\d\] \S+:\d+: ")
# File times advance in ticks of up to 10 ms: two writes closer than that can look like one.
TICK_NS = 20_000_000

# Number, size and times of a file: whatever is written to it, one of them changes.
Identity = tuple[int, int, int, int]


# How a decoder's process is lost.
DIED = "the decoder died"
OUT_OF_MEMORY = "the decoder ran out of memory"


def took_longer(timeout_s: float) -> str:
    return f"the decoder took more than {timeout_s:g} s"


class DecoderFailed(UnreadableMedia):
    """One decoder cannot read the file; another may."""


class OutOfMemory(DecoderFailed, MemoryError):
    """The decoder reached the limit of its process (limit_memory), which may be unfit for more."""


@dataclass(frozen=True)
class MediaFile:
    """A file as it was when its content was digested (BLAKE3, hex)."""

    path: str
    identity: Identity
    digest: str


def identify(path: str) -> Identity:
    """Raises UnreadableMedia for what is no file, or an empty one."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableMedia(path, "no such file") from None
    except OSError as error:
        raise UnreadableMedia(path, error.strerror or type(error).__name__) from None
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableMedia(path, "no such file")
    if not found.st_size:
        raise UnreadableMedia(path, "the file is empty")
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def examine(path: str, meanwhile: Executor | None = None) -> MediaFile:
    """The file with the digest of its bytes. Raises UnreadableMedia, also if it changes meanwhile.

    `meanwhile`: threads, one of which reads the table of times, as for a file that this process is to decode next.
    """
    identity = identify(path)
    if time.time_ns() - identity[-1] < TICK_NS:
        time.sleep(TICK_NS / 1e9)
        identity = identify(path)
    reading = [meanwhile.submit(_track, path, identity)] if meanwhile and not _is_image(path) else []
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, blake3).hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise UnreadableMedia(path, error.strerror or type(error).__name__) from None
    finally:
        wait(reading)  # what it raises, decoding raises again
    _require_unchanged(path, identity)
    return MediaFile(path, identity, digest)


@lru_cache(maxsize=1)
def _track(path: str, identity: Identity) -> Track:
    return read_track(path)


def _require_unchanged(path: str, identity: Identity) -> None:
    if identify(path) != identity:
        raise UnreadableMedia(path, "the file changed while it was read")


def _is_image(path: str) -> bool:
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


class Turns:
    """The decoders of a file, one after the other until one can: `decoder` is the one whose turn it is."""

    def __init__(self, path: str, first: str = "decord"):
        """`first` is for videos."""
        self.path = path
        self.failures: list[DecoderFailed] = []
        self._decoders = ("pillow",) if _is_image(path) else (first, *(name for name in VIDEO if name != first))

    @property
    def decoder(self) -> str:
        return self._decoders[len(self.failures)]

    def failed(self, failure: DecoderFailed) -> None:
        """On to the next one. Raises UnreadableMedia, the one outcome of a file that all of them failed on."""
        self.failures.append(failure)
        if len(self.failures) == len(self._decoders):
            reasons = dict.fromkeys(each.reason for each in self.failures)  # mostly they agree
            raise UnreadableMedia(self.path, "; ".join(reasons)) from None


def decode(path: str, contract: SamplingContract, key_times: Sequence[float] = ()) -> tuple[np.ndarray, FrameInfo]:
    """(frames, info) of a video, or of an image as a one-frame video, in this process, by the first decoder that can.

    frames: uint8 [n, height, width, 3], RGB; key_times: as in shown_key_times. Raises UnreadableMedia.
    For a file that is known to be good: nothing bounds its time or memory here.
    """
    media, turns = examine(path), Turns(path)
    while True:
        try:
            return decode_with(turns.decoder, media, contract, key_times)
        except DecoderFailed as failure:
            turns.failed(failure)


def decode_with(
    decoder: str, media: MediaFile, contract: SamplingContract, key_times: Sequence[float] = ()
) -> tuple[np.ndarray, FrameInfo]:
    """As `decode`, by the decoder of that name, of a file already digested. Raises DecoderFailed where another decoder
    is worth trying, else UnreadableMedia."""
    path = media.path
    identity = identify(path)
    # Another node may see the same file under another number or time: only its content counts.
    if identity != media.identity and examine(path).digest != media.digest:
        raise UnreadableMedia(path, "the file changed while it was read")
    try:
        frames, times, duration, original = _read(decoder, path, identity, contract, key_times)
    except BadInput as error:
        raise UnreadableMedia(path, str(error)) from None
    except FAILURES as error:
        _require_unchanged(path, identity)
        if isinstance(error, MemoryError):
            raise OutOfMemory(path, OUT_OF_MEMORY) from None
        raise DecoderFailed(path, _reason(error)) from None
    _require_unchanged(path, identity)
    info = FrameInfo(
        key=frame_key(media.digest, contract, VERSIONS[decoder], key_times),
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
    decoder: str, path: str, identity: Identity, contract: SamplingContract, key_times: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, float, tuple[int, int]]:
    """(frames, their times, duration, original size). Only one frame, or one batch, is held unresized."""
    if decoder == "pillow":
        times, duration, decoded = np.zeros(1), 0.0, iter([read_image(path)])
    else:
        track = _track(path, identity)
        indices = frame_indices(track.times, contract, key_times)
        times, duration, decoded = track.times[indices], track.duration, VIDEO[decoder](path, track, indices.tolist())
    first = next(decoded)
    original = first.shape[1], first.shape[0]
    width, height = resized_size(*original, contract, len(times))
    frames = np.empty((len(times), height, width, 3), np.uint8)
    frames[0] = _resize(first, (width, height))
    for frame, target in zip(decoded, frames[1:]):
        target[:] = _resize(frame, (width, height))
    return frames, times, duration, original


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
    """Let this process allocate `more_bytes` beyond what it has: an allocation above fails, as in a file that claims to
    be immense. For a process that does nothing but decode."""
    has = psutil.Process().memory_info().data
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (has + more_bytes, hard))
