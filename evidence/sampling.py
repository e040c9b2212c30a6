"""The sampling contract: which frames of a video, at which size, under which name (promises 5 and 6).

Computed once per video and used by policy, referee, learner and evaluation alike. Pure arithmetic: decoding is in
rollout/frames.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from evidence.config_checks import require, require_least
from evidence.errors import BadInput
from evidence.types import Sample

# Added to the logits of banned tokens (vision and chat control tokens, promise 4) by engine and learner alike, so that
# both compute the same distribution. -100 is the most negative bias the engine accepts.
BANNED_LOGIT_BIAS = -100.0
# Labels give times in hundredths of a second: one rounded down still means the frame that begins within the rounding.
ROUNDING_S = 0.005


@dataclass(frozen=True)
class SamplingContract:
    """How a video is seen.

    frames: how many frames at most, spread uniformly from the first to the last; key frames come on top.
    fps: 0, or frames a second: then one every 1/fps s, at least `min_frames` and at most `frames` of them.
    key_frames: whether the labelled key frames of a sample are shown too.
    max_pixels, min_pixels: bounds of one resized frame's area.
    total_pixels: bound of all frames' area together; the default is that of Qwen2.5-VL's processing.
    multiple: sides are multiples of this; null: of the policy's tile, patch size times merge size (`resolved`).
    """

    frames: int = 16
    fps: float = 0.0
    min_frames: int = 4
    key_frames: bool = False
    max_pixels: int = 100352
    min_pixels: int = 3136
    total_pixels: int = 90_316_800
    multiple: int | None = None

    def __post_init__(self) -> None:
        require_least(self, 1, "frames", "min_frames", "min_pixels")
        require_least(self, 0, "fps")
        few = not self.fps or self.min_frames <= self.frames
        require(few, "min_frames", self.min_frames, f"at most frames ({self.frames})")
        if self.multiple is not None:
            require_least(self, 1, "multiple")
        tile = self.multiple or 1
        require(
            max(self.min_pixels, tile**2) <= self.max_pixels,
            "max_pixels",
            self.max_pixels,
            f"at least min_pixels ({self.min_pixels})" + (f" and one tile of {tile} x {tile}" if self.multiple else ""),
        )
        least = self.frames * max(self.min_pixels, tile**2)
        if self.total_pixels < least:
            raise BadInput(
                f"total_pixels = {self.total_pixels}: {self.frames} frames need {least} at least; raise it, "
                "or lower frames or min_pixels"
            )

    @property
    def tile(self) -> int:
        """`multiple`, once it is resolved. Raises ValueError before: no size may be computed without it."""
        if self.multiple is None:
            raise ValueError("contract.multiple is not resolved: call evidence.sampling.resolved with the model's tile")
        return self.multiple


def resolved(contract: SamplingContract, tile: int) -> SamplingContract:
    """The contract with `multiple` set, to `tile` pixels unless it says its own. Raises BadInput where its bounds are
    too low for one tile."""
    if contract.multiple is not None:
        return contract
    try:
        return replace(contract, multiple=tile)
    except BadInput as error:
        raise BadInput(f"contract.{error}") from None


def frame_indices(
    times: Sequence[float] | np.ndarray, contract: SamplingContract, key_times: Sequence[float] = ()
) -> np.ndarray:
    """Indices, int64 [n], increasing, of the frames shown of a video whose frames begin at `times` (s, increasing).

    Uniform: min(contract.frames, all). By fps: the frames on display at the first frame's time + k/fps, where that
    gives from `min_frames` to `frames` of them; otherwise the nearer bound's number, spread uniformly. Then the frames
    on display at `key_times`, wherever they lie; a time outside the video means its first or last frame.
    """
    times = np.asarray(times, np.float64)
    total = len(times)
    count = min(contract.frames, total)
    chosen = None
    if contract.fps:
        moments = (
            times[0] + np.arange(math.floor((times[-1] - times[0] + ROUNDING_S) * contract.fps) + 1) / contract.fps
        )
        chosen = np.unique(_on_display(times, moments))
        count = min(max(len(chosen), contract.min_frames), count)
    if chosen is None or len(chosen) != count:
        chosen = np.linspace(0, total - 1, count).round().astype(np.int64)
    return np.union1d(chosen, _on_display(times, np.asarray(key_times, np.float64)))


def _on_display(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Index, int64, of the last frame that has begun at each moment."""
    return np.maximum(np.searchsorted(times, moments + ROUNDING_S, side="right") - 1, 0)


def shown_key_times(sample: Sample, contract: SamplingContract) -> tuple[float, ...]:
    """The times of the sample's key frames that the contract shows, increasing, each once: part of the frame key."""
    return tuple(sorted({key.time for key in sample.key_frames})) if contract.key_frames else ()


def most_frames(contract: SamplingContract, key_times: Sequence[float] = ()) -> int:
    return contract.frames + len(key_times)


def most_bytes(contract: SamplingContract, key_times: Sequence[float] = ()) -> int:
    """Bound of what a video's frames take as uint8 RGB, known before it is decoded."""
    return 3 * min(contract.total_pixels, contract.max_pixels * most_frames(contract, key_times))


def resized_size(width: int, height: int, contract: SamplingContract, frames: int = 1) -> tuple[int, int]:
    """(width, height) of each of `frames` frames after resizing. In the order of precedence:

    both sides are multiples of `contract.tile`; the area is at most max_pixels and a frame's share of total_pixels;
    the aspect ratio is kept: some scale puts each side within one multiple of its own; the area is at least min_pixels,
    if rounding the sides up or down allows it. It is what Qwen2-VL's `smart_resize` gives, wherever that keeps these.

    Raises BadInput where not even one tile a frame fits total_pixels.
    """
    step = contract.tile
    most = min(contract.max_pixels, contract.total_pixels // frames)
    least = min(contract.min_pixels, most)
    if most < step**2:
        raise BadInput(f"contract.total_pixels = {contract.total_pixels}: too few for {frames} frames of one tile each")
    # A side that would round to nothing grows to one tile, and the other with it.
    grow = step / min(width, height) if min(width, height) < step / 2 else 1.0
    w, h = (max(1, round(side * grow / step)) for side in (width, height))
    if not least <= w * h * step**2 <= most:
        bound = most if w * h * step**2 > most else least
        scale = math.sqrt(bound / (width * height)) / step
        w, h = _tiles(width * scale, height * scale, least / step**2, most / step**2, grows=bound == least < most)
    return w * step, h * step


def _tiles(width: float, height: float, least: float, most: float, grows: bool) -> tuple[int, int]:
    """Whole tiles next to (width, height), which may be fractions: up if the frame grows, else down, unless only other
    roundings bring the area between the bounds; never above `most`."""
    noise = 1e-9  # of the square root that the sides come from: 3.9999999999 are 4 tiles
    (w0, w1), (h0, h1) = ((max(1, math.floor(side + noise)), math.ceil(side - noise)) for side in (width, height))
    first = (w1, h1) if grows else (w0, h0)
    others = sorted(
        ((w, h) for w in (w0, w1) for h in (h0, h1)), key=lambda s: abs(math.log(s[0] * height / s[1] / width))
    )
    for w, h in (first, *others):
        if least <= w * h <= most:
            return w, h
    # No neighbour is within both bounds. A frame so narrow that one side is a single tile gives up length instead.
    return (min(w0, math.floor(most)), 1) if h0 == 1 else (w0, min(h0, math.floor(most / w0)))


def frame_key(file_digest: str, contract: SamplingContract, decoder: str, key_times: Sequence[float] = ()) -> str:
    """Name of a video's decoded frames: equal keys mean equal pixels, so the decoder's name and version are in it."""
    settings = asdict(contract) | {"multiple": contract.tile}
    text = json.dumps([file_digest, settings, decoder, list(key_times)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def mean_spacing(times: Sequence[float]) -> float:
    """Seconds from one frame to the next, of two or more."""
    return (times[-1] - times[0]) / (len(times) - 1)
