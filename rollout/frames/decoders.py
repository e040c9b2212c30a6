"""Decoders behind one small interface: the track of a video, and the pixels of selected frames.

Guarantees: frame i is the i-th in display order, upright as a player shows it, and begins at `Track.times[i]`, also if
the frame rate varies; a decoder that cannot guarantee this for a file raises an error. The first frame is at time 0,
also if the sound begins before it. (AVI stores no times; FFmpeg guesses them.) Transparent pixels are composited on
white, and 16-bit gray is scaled to 8 bits.

On a damaged file, decoders raise one of FAILURES. Damage that a codec conceals, as in a block of a predicted frame, is
not detected.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

# decord reads these when it is loaded. With its defaults, it replaces up to 16 frames that it cannot decode by others,
# and on a busy machine it gives up on the last frames of an intact file.
os.environ |= {"DECORD_REWIND_RETRY_MAX": "0", "DECORD_EOF_RETRY_MAX": "102400"}

import av
import av.error
import cv2
import decord
import numpy as np
import PIL
from av.container import InputContainer
from av.stream import Disposition
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageOps

# Exceptions report what is wrong with a file; the libraries' logs are switched off.
decord.logging.set_level(decord.logging.QUIET)
av.logging.set_level(None)

FAILURES = (
    decord.DECORDError,
    av.error.FFmpegError,
    RuntimeError,
    OSError,  # includes Pillow's UnidentifiedImageError
    ValueError,
    IndexError,
    SyntaxError,  # raised by Pillow for a broken PNG
    MemoryError,
    Image.DecompressionBombError,
)
# decord decodes frames in batches; bytes of one batch, whatever the size of a frame.
BATCH_BYTES = 64 * 2**20
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
# Containers that index frames by time. In others, decord's seeks end at wrong frames without an error.
EXACT_SEEKS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")


@dataclass(frozen=True)
class Track:
    """A container's table of its frames, in display order.

    times: float64 [n], start of each frame in seconds; duration: end of the last one in seconds.
    pts: int64 [n], the same times in units of the stream; keys: int64, increasing, indices of the key frames.
    format: the container's format, by FFmpeg's name.
    pixel_aspect: width of a displayed pixel over its height, in the upright frame; 1 for square pixels.
    transparent: whether the pixels have an alpha channel.
    """

    times: np.ndarray
    duration: float
    pts: np.ndarray
    keys: np.ndarray
    format: str
    pixel_aspect: float = 1.0
    transparent: bool = False


def read_track(path: str) -> Track:
    """Read all packets; at most the first frame is decoded. Raises one of FAILURES, also if the file ends before its
    last frame."""
    with av.open(path) as container:
        stream = _video_stream(container)
        # An MP4 stores the positions of its frames in advance. Nothing else reveals a file cut between two packets.
        size = Path(path).stat().st_size
        if any(entry.pos + entry.size > size for entry in stream.index_entries):
            raise ValueError("the file is cut short")
        # There may be tens of thousands of packets, so only numbers are kept.
        packets = [
            (p.pts, p.duration or 0, p.is_keyframe, p.is_corrupt)
            for p in container.demux(stream)
            if p.size and not p.is_discard
        ]
        base, format = float(stream.time_base or 1), container.format.name
        transparent = _has_alpha(stream.codec_context.format)
        pixel_aspect = float(stream.sample_aspect_ratio or 1)
    if not packets:
        raise ValueError("it holds no frame")
    stored, durations, are_keys, are_corrupt = zip(*packets)
    if None in stored:
        raise ValueError("its frames carry no times")
    if any(are_corrupt):
        raise ValueError("the file is damaged or cut short")
    pts, order = np.unique(np.array(stored, np.int64), return_index=True)
    return Track(
        times=(pts - pts[0]) * base,
        duration=float(pts[-1] - pts[0] + durations[order[-1]]) * base,
        pts=pts,
        keys=np.flatnonzero(np.array(are_keys)[order]),
        format=format,
        pixel_aspect=1 / pixel_aspect if pixel_aspect != 1 and _lies_on_its_side(path) else pixel_aspect,
        transparent=transparent,
    )


def _lies_on_its_side(path: str) -> bool:
    """Whether frames are stored turned by a quarter, which only a decoded frame says."""
    with av.open(path) as container:
        frame = next(container.decode(_video_stream(container)), None)
        if frame is None:
            raise ValueError("its first frame cannot be decoded")
        return frame.rotation % 180 != 0


def _has_alpha(pixels: VideoFormat | None) -> bool:
    return pixels is not None and any(component.is_alpha for component in pixels.components)


def _video_stream(container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    if (
        not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic
    ):  # a cover image is not a video
        raise ValueError("it has no video")
    if stream.codec_context is None:
        raise ValueError("its video has an unknown codec")
    return stream


def _decord_frames(path: str, track: Track, indices: Sequence[int]) -> Iterator[np.ndarray]:
    if track.format not in EXACT_SEEKS:
        raise ValueError(f"decord seeks wrongly in {track.format}")
    if track.transparent:
        raise ValueError("decord ignores transparency")
    reader = decord.VideoReader(path, num_threads=1)
    if len(reader) != len(track.times):
        raise ValueError(f"decord finds {len(reader)} frames, the container has {len(track.times)}")
    # decord numbers key frames in storage order. If later-stored frames are displayed before them (open groups of
    # pictures, as x265 writes them), its seeks end at a neighbouring frame.
    if not np.array_equal(reader.get_key_indices(), track.keys):
        raise ValueError("decord seeks wrongly where key frames are not stored in display order")
    first = reader[indices[0]].asnumpy()
    yield first
    batch = max(1, BATCH_BYTES // first.nbytes)
    for start in range(1, len(indices), batch):
        yield from reader.get_batch(list(indices[start : start + batch])).asnumpy()


def _pyav_frames(path: str, track: Track, indices: Sequence[int]) -> Iterator[np.ndarray]:
    with ExitStack() as opened:
        frames: Iterator[VideoFrame] = iter(())
        last = -1  # index of the frame decoded last
        for index in indices:
            wanted = int(track.pts[index])
            before = track.keys[track.keys <= index]
            if last < 0 or (len(before) and before[-1] > last):
                frames = _frames_from(path, opened, track.pts[before[::-1]].tolist(), wanted)
            frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= wanted), None)
            if frame is None or frame.pts != wanted or frame.is_corrupt:
                raise ValueError(f"the frame at {track.times[index]:.3f} s cannot be decoded")
            last = index
            pixels = (
                _on_white(frame.to_ndarray(format="rgba")) if track.transparent else frame.to_ndarray(format="rgb24")
            )
            yield np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))


def _frames_from(path: str, opened: ExitStack, keys: Sequence[int], wanted: int) -> Iterator[VideoFrame]:
    """Frames from the latest of the key frames `keys` (pts, latest first) that a seek reaches, else from the beginning.
    A seek may end too late, because containers seek by decoding time or by bytes."""

    def start() -> tuple[InputContainer, VideoStream]:
        opened.close()
        container = opened.enter_context(av.open(path))
        stream = _video_stream(container)
        stream.codec_context.thread_count = 1
        return container, stream

    for pts in keys:
        container, stream = start()
        container.seek(pts, stream=stream)
        frames = container.decode(stream)
        # Frames decoded before a key frame lack the frames that they are predicted from.
        first = next((f for f in frames if f.pts is not None and (f.pts in keys or f.pts > wanted)), None)
        if first is not None and first.pts is not None and first.pts <= wanted:
            return chain([first], frames)
    container, stream = start()
    return container.decode(stream)


def read_image(path: str) -> np.ndarray:
    """uint8 [H, W, 3], RGB, rotated according to its EXIF data. Raises one of FAILURES, also for pixels whose range is
    not known."""
    with Image.open(path) as stored:
        image = ImageOps.exif_transpose(stored)
    if image.mode.startswith(("I", "F")):
        return _scaled_gray(image)
    if image.has_transparency_data:
        return _on_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _scaled_gray(image: Image.Image) -> np.ndarray:
    """A gray image with more than 8 bits: integers of 0-65535, or floating-point numbers of 0-1."""
    most = 1 if image.mode == "F" else 65535
    values = np.asarray(image, np.float32)
    if not (values.min() >= 0 and values.max() <= most):  # false for NaN
        raise ValueError(f"its gray values are not between 0 and {most}, so their range is not known")
    transparent = image.info.get("transparency")
    gray = np.where(values == transparent, 255, np.rint(values * (255 / most))).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def _on_white(rgba: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4], alpha last -> uint8 [H, W, 3]."""
    image = Image.fromarray(rgba)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


# To be raised whenever the same decoder is made to return other pixels: frames cached before must not be used again.
RULES = 2
# Decoder and resizer with their versions, which determine the pixels; part of frame keys.
VERSIONS = {
    name: f"{name} {version}, opencv {cv2.__version__}, rules {RULES}"
    for name, version in (("decord", decord.__version__), ("pyav", av.__version__), ("pillow", PIL.__version__))
}
# (path, track, increasing indices) -> the frames at these indices, uint8 [H, W, 3] RGB.
VIDEO: dict[str, Callable[[str, Track, Sequence[int]], Iterator[np.ndarray]]] = {
    "decord": _decord_frames,
    "pyav": _pyav_frames,
}
