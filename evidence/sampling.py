"""The sampling contract: which frames of a video, at which size, under which name (promises 5 and 6).

Computed once per video and used by policy, referee, learner and evaluation. Pure arithmetic: decoding is in
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

# Engine and learner both add this to the logits of banned tokens (vision and chat control tokens, promise 4), so that
# they compute the same distribution. -100 is the most negative bias that the engine accepts.
BANNED_LOGIT_BIAS = -100.0
# Labels give times in hundredths of a second. A time that was rounded down still selects the frame that begins within
# the rounding error.
ROUNDING_S = 0.005


@dataclass(frozen=True)
class SamplingContract:
    """Which frames of a video are shown, and at which size.

    frames: the most frames, spread uniformly from the first to the last; key frames are added to them.
    fps: 0 for uniform frames; otherwise one frame every 1/fps s, at most `frames` of them. min_frames: the fewest then.
    key_frames: whether the labelled key frames of a sample are shown too.
    max_pixels, min_pixels: bounds on the area of one resized frame.
    total_pixels: bound on the area of all frames together.
    multiple: sides are multiples of this; null: of the model's tile, patch size times merge size (`resolved`).
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
                f"total_pixels = {self.total_pixels}: {self.frames} frames need at least {least}; raise it, "
                "or lower frames or min_pixels"
            )

    @property
    def tile(self) -> int:
        """`multiple` of a resolved contract. Raises ValueError if it is null: sizes depend on it."""
        if self.multiple is None:
            raise ValueError("contract.multiple is not resolved: call evidence.sampling.resolved with the model's tile")
        return self.multiple


def resolved(contract: SamplingContract, tile: int) -> SamplingContract:
    """The contract with `multiple` set: its own value, or else `tile`, in pixels. Raises BadInput if its bounds are too
    low for one tile."""
    if contract.multiple is not None:
        return contract
    try:
        return replace(contract, multiple=tile)
    except BadInput as error:
        raise BadInput(f"contract.{error}") from None


@dataclass(frozen=True)
class Selection:
    """What a sample selects of its video, besides the contract.

    key_times: of the key frames that are shown, seconds, distinct, increasing. part: (start, end) in seconds: of the
    frames on display in between, and of no others, the contract chooses; None: of all. fps: the frame rate of a video
    that is a folder of frames, as the data states it; of no effect for other videos, which state their own.
    """

    key_times: tuple[float, ...] = ()
    part: tuple[float, float] | None = None
    fps: float | None = None


ALL = Selection()


def selection(sample: Sample, contract: SamplingContract) -> Selection:
    """The sample's selection, with its key frames if the contract shows them."""
    key_times = tuple(sorted({key.time for key in sample.key_frames})) if contract.key_frames else ()
    return Selection(key_times, sample.part, sample.fps)


def frame_indices(
    times: Sequence[float] | np.ndarray, contract: SamplingContract, selected: Selection = ALL
) -> np.ndarray:
    """Indices, int64 [n], increasing, of the shown frames of a video whose frames begin at `times` (s, increasing).

    Uniform: min(contract.frames, all). By fps: the frames on display at the first frame's time + k/fps, if those are
    between `min_frames` and `frames`; otherwise as many as the nearer bound, spread uniformly. The frames on display at
    the key times are added; a key time outside the video, or its part, selects the first or last frame. So does a part
    outside the video.
    """
    times = np.asarray(times, np.float64)
    if selected.part is None:
        return _shown(times, contract, selected.key_times)
    first, last = _on_display(times, np.asarray(selected.part)).tolist()
    return first + _shown(times[first : last + 1], contract, selected.key_times)


def _shown(times: np.ndarray, contract: SamplingContract, key_times: Sequence[float]) -> np.ndarray:
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


def most_frames(contract: SamplingContract, selected: Selection = ALL) -> int:
    """Upper bound on the number of frames shown."""
    return contract.frames + len(selected.key_times)


def most_bytes(contract: SamplingContract, selected: Selection = ALL) -> int:
    """Upper bound on the bytes of a video's frames as uint8 RGB, known before it is decoded."""
    return 3 * min(contract.total_pixels, contract.max_pixels * most_frames(contract, selected))


def resized_size(width: int, height: int, contract: SamplingContract, frames: int = 1) -> tuple[int, int]:
    """(width, height) of each of `frames` frames after resizing. Constraints, in order of precedence:

    1. both sides are multiples of `contract.tile`;
    2. the area is at most max_pixels and at most a frame's share of total_pixels;
    3. the aspect ratio is kept: both sides are within one tile of a common scaling of the original;
    4. the area is at least min_pixels, if rounding the sides up or down allows it.

    Equals transformers' `smart_resize` (Qwen2-VL) wherever that function meets these constraints.
    Raises BadInput if total_pixels is too low for one tile per frame, and ValueError for an unresolved contract.
    """
    step = contract.tile
    most = min(contract.max_pixels, contract.total_pixels // frames)
    least = min(contract.min_pixels, most)
    if most < step**2:
        raise BadInput(f"contract.total_pixels = {contract.total_pixels}: too few for {frames} frames of one tile each")
    # A side that would round to 0 grows to one tile, and the other side grows by the same factor.
    grow = step / min(width, height) if min(width, height) < step / 2 else 1.0
    w, h = (max(1, round(side * grow / step)) for side in (width, height))
    if not least <= w * h * step**2 <= most:
        bound = most if w * h * step**2 > most else least
        scale = math.sqrt(bound / (width * height)) / step
        w, h = _tiles(width * scale, height * scale, least / step**2, most / step**2, grows=bound == least < most)
    return w * step, h * step


def _tiles(width: float, height: float, least: float, most: float, grows: bool) -> tuple[int, int]:
    """Whole tiles next to (width, height), which may be fractional: rounded up if the frame grows and down otherwise,
    unless only another rounding brings the area between the bounds. The area never exceeds `most`."""
    noise = 1e-9  # rounding error of the square root that the sides come from: 3.9999999999 counts as 4 tiles
    (w0, w1), (h0, h1) = ((max(1, math.floor(side + noise)), math.ceil(side - noise)) for side in (width, height))
    first = (w1, h1) if grows else (w0, h0)
    others = sorted(
        ((w, h) for w in (w0, w1) for h in (h0, h1)), key=lambda s: abs(math.log(s[0] * height / s[1] / width))
    )
    for w, h in (first, *others):
        if least <= w * h <= most:
            return w, h
    # No rounding meets both bounds. A frame so narrow that one side is a single tile is shortened instead.
    return (min(w0, math.floor(most)), 1) if h0 == 1 else (w0, min(h0, math.floor(most / w0)))


def frame_key(file_digest: str, contract: SamplingContract, decoder: str, selected: Selection = ALL) -> str:
    """Content address of a video's decoded frames. Equal keys mean equal pixels, so the decoder's name and version are
    part of it, and `selected.fps` must be None unless it determines the times (a folder of frames). Raises ValueError
    for an unresolved contract."""
    settings = asdict(contract) | {"multiple": contract.tile}
    # Without a part and a rate, the key is what it always was.
    part = [] if selected.part is None else [list(selected.part)]
    rate = [] if selected.fps is None else [selected.fps]
    text = json.dumps([file_digest, settings, decoder, list(selected.key_times), *part, *rate], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def mean_spacing(times: Sequence[float]) -> float:
    """Mean seconds from one frame to the next; `times` has two or more."""
    return (times[-1] - times[0]) / (len(times) - 1)
