"""The data types of the system, in the order of the data flow.

Sample -> Prompt -> Trajectory x G = Group -> Claim, Verdict, reward terms = ScoredGroup.

All are small frozen dataclasses. Large arrays (frames, pixel patches) are never held here: they stay in the object
store and are referred to by their frame key. Boxes are (x1, y1, x2, y2) tuples; each field's docstring names the space
that its boxes are in. `evidence.codec` converts them to JSON and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxSpace:
    """A coordinate system for boxes: in it the whole frame is the box (0, 0, width, height).

    There are four: NORMALISED, THOUSAND, and per video `FrameInfo.original_space` and `FrameInfo.resized_space`.
    `evidence.geometry.convert` converts between any two; configs name them by the keys of `evidence.spaces.SPACES`.
    """

    width: float
    height: float


NORMALISED = BoxSpace(1, 1)  # dataset labels
THOUSAND = BoxSpace(1000, 1000)  # written by Qwen3-VL


@dataclass(frozen=True)
class KeyFrame:
    """A labelled moment: `idx` is the key into `Sample.key_items`, `time` is in seconds."""

    idx: str
    time: float


@dataclass(frozen=True)
class Sample:
    """One question about one video or image, read from any dataset format (rollout/dataset, docs/data.md).

    answer: the reference; "[start, end]" for "temporal QA", "X\\n[start, end]" for "temporal QA (MCQ)". Empty if the
        data gives none: no completion is correct then.
    options: the choices of a multiple-choice question as they are shown, with letters; the answer is a letter.
    image_size: (width, height) of the original, pixels.
    key_items: key frame's idx -> {object phrase: boxes normalised to 0-1}.
    reasoning: a whole completion to learn from.
    part: (start, end) in seconds of the video: what the question is about, and all that is shown. None: all of it.
    spans: the true (start, end), seconds. duration, fps: seconds and frames per second of the video, from the data.
    follow_ups: V-STaR's further questions about the same evidence, by V-STaR's key.
    Absent values are None or empty.
    """

    id: str
    source: str
    task: str
    question: str
    answer: str
    video_path: str | None = None
    image_path: str | None = None
    image_size: tuple[int, int] | None = None
    key_frames: tuple[KeyFrame, ...] = ()
    key_items: dict[str, dict[str, tuple[Box, ...]]] = field(default_factory=dict)
    reasoning: str | None = None
    options: tuple[str, ...] = ()
    spans: tuple[tuple[float, float], ...] = ()
    duration: float | None = None
    fps: float | None = None
    domain: str | None = None
    follow_ups: dict[str, str] = field(default_factory=dict)
    part: tuple[float, float] | None = None

    @property
    def asked(self) -> str:
        """The question as put to policy and referee: followed by its options, one per line."""
        return "\n".join((self.question, *self.options))

    @property
    def media_path(self) -> str:
        path = self.video_path or self.image_path
        if path is None:
            raise ValueError(f"sample {self.id} has neither a video nor an image")
        return path


@dataclass(frozen=True)
class FrameInfo:
    """A decoded video without its pixels. `size` is (width, height) after resizing; `times`, `duration` in seconds."""

    key: str
    times: tuple[float, ...]
    size: tuple[int, int]
    original_size: tuple[int, int]
    duration: float

    @property
    def original_space(self) -> BoxSpace:
        """Pixels of the stored video."""
        return BoxSpace(*self.original_size)

    @property
    def resized_space(self) -> BoxSpace:
        """Pixels of the frames that the policy sees: the space of claims."""
        return BoxSpace(*self.size)


@dataclass(frozen=True)
class Prompt:
    """The prompt that policy, learner, referee and evaluation share (promise 5).

    `token_ids`: int32 [P], image and video placeholders expanded. `positions`: int32 [3, P], mRoPE (t, h, w).
    `request_ids`: int32 [P'], the same before expansion, with one placeholder per image: the engine's input.
    `grids`: int32 [n, 3], patches of each image along (t, h, w), before the 2x2 merge.
    `video_times`: seconds of the frames if they are shown as one native video (then n is 1); None for images.
    """

    token_ids: np.ndarray
    request_ids: np.ndarray
    positions: np.ndarray
    grids: np.ndarray
    video_times: tuple[float, ...] | None = None

    @property
    def frame_counts(self) -> np.ndarray:
        """int32 [n]: number of frames in each grid."""
        return np.full(len(self.grids), 1 if self.video_times is None else len(self.video_times), np.int32)


@dataclass(frozen=True)
class Trajectory:
    """One sampled completion with its exact behaviour policy (promise 4).

    `token_ids`: int32 [C]. `logprobs`: float32 [C], natural log under the distribution that drew each token.
    `version_spans`: (version, first token, one past the last token), covering 0..C in order.
    `finish_reason`: "stop" or "length".
    `kept`: int32 [C, K], the ids that truncated sampling left at each place, padded with -1, the drawn one among them;
    None if each token was drawn from the whole vocabulary.
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    version_spans: tuple[tuple[int, int, int], ...]
    text: str
    finish_reason: str
    kept: np.ndarray | None = None


@dataclass(frozen=True)
class Group:
    """G trajectories of one prompt. `oldest_version`: the oldest that drew a token or computed KV of the group."""

    id: int
    sample: Sample
    frames: FrameInfo
    prompt: Prompt
    trajectories: tuple[Trajectory, ...]
    oldest_version: int


@dataclass(frozen=True)
class Claim:
    """One piece of evidence that the policy wrote: `phrase` is in `box` (pixels of the resized frame) at `time` (s).

    `evidence.grammar.parse` gives `box` as written; `evidence.spaces.read` converts it to pixels.
    `until` (seconds) is the end of a claim about an interval, None for a claim about a moment. An interval is judged
    at `time`, its start: the referee sees one frame, which must be one that the policy named.
    `span`: character offsets of the claim in the completion. An invalid claim keeps what could be read and gives the
    fault in `reason`; a valid one has phrase, box and time, no end before its time, and `reason` None.
    """

    phrase: str
    box: Box | None
    time: float | None
    span: tuple[int, int]
    reason: str | None = None
    until: float | None = None

    @property
    def valid(self) -> bool:
        return self.reason is None


@dataclass(frozen=True)
class Verdict:
    """The referee's judgement of one claim, both values in [0, 1]. `flag` names what went wrong, if anything.
    `disagreement`: the distance between an ensemble's referees, in [0, 1]; 0 for a single referee."""

    relevance: float
    localization: float
    flag: str | None = None
    disagreement: float = 0.0


@dataclass(frozen=True)
class ClaimScore:
    """A claim with its verdict, temporal penalty and score s_m (domain.md section 1)."""

    claim: Claim
    verdict: Verdict
    temporal_penalty: float
    score: float


@dataclass(frozen=True)
class ScoredGroup:
    """A group with one reward per trajectory: the sum over `paid` of weights * paid.

    `rewards`: float32 [G]. `terms`: raw values of each reward term, float32 [G], NaN where a value is missing.
    `paid`: the values after gating, float32 [G], without the terms left out because of a missing value.
    `weights`: the weight of each paid term. `evidence`: the scored claims of each completion.
    """

    group: Group
    rewards: np.ndarray
    terms: dict[str, np.ndarray]
    paid: dict[str, np.ndarray]
    weights: dict[str, float]
    evidence: tuple[tuple[ClaimScore, ...], ...]
