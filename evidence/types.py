"""The nouns of the system, in the order in which they come to be.

Sample -> Prompt -> Trajectory x G = Group -> Claim, Verdict, reward terms = ScoredGroup.

All are small frozen dataclasses. Big arrays (frames, pixel patches) are never held here: they stay in the object
store and are named by their frame key. Boxes are (x1, y1, x2, y2) tuples; the space a box is in is named by the field.
`evidence.codec` writes them as JSON and reads them back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class BoxSpace:
    """What a box's coordinates count: in this space the whole frame is the box (0, 0, width, height).

    The four there are: NORMALISED, THOUSAND, and per video `FrameInfo.original_space` and `FrameInfo.resized_space`.
    `evidence.geometry.convert` leads from any of them to any other; configs name them by `evidence.spaces.SPACES`.
    """

    width: float
    height: float


NORMALISED = BoxSpace(1, 1)  # dataset labels
THOUSAND = BoxSpace(1000, 1000)  # what Qwen3-VL writes


@dataclass(frozen=True)
class KeyFrame:
    """A labelled moment: `idx` is the key into `Sample.key_items`, `time` is in seconds."""

    idx: str
    time: float


@dataclass(frozen=True)
class Sample:
    """One question about one video or image: what every dataset format is read into (rollout/dataset, docs/data.md).

    answer: the reference. Of a "temporal QA" it is "[start, end]", of a "temporal QA (MCQ)" "X\\n[start, end]".
    options: of a multiple-choice question, each as it is shown, with its letter; the answer is a letter.
    image_size: (width, height) of the original, pixels.
    key_items: key frame's idx -> {object phrase: boxes normalised to 0-1}.
    reasoning: a whole completion to learn from.
    spans: the true (start, end), seconds. duration, fps: of the video, seconds and frames a second, as the data says.
    follow_ups: V-STaR's further questions about the same evidence, by their key there.
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

    @property
    def asked(self) -> str:
        """The question as policy and referee are asked it: with its options, one a line."""
        return "\n".join((self.question, *self.options))

    @property
    def media_path(self) -> str:
        path = self.video_path or self.image_path
        if path is None:
            raise ValueError(f"sample {self.id} names neither a video nor an image")
        return path


@dataclass(frozen=True)
class FrameInfo:
    """What is known of a decoded video beside its pixels. `size` is (width, height) after resizing, `times` seconds."""

    key: str
    times: tuple[float, ...]
    size: tuple[int, int]
    original_size: tuple[int, int]
    duration: float

    @property
    def original_space(self) -> BoxSpace:
        """Pixels of the video as it is stored."""
        return BoxSpace(*self.original_size)

    @property
    def resized_space(self) -> BoxSpace:
        """Pixels of the frames as the policy is shown them: the space of claims."""
        return BoxSpace(*self.size)


@dataclass(frozen=True)
class Prompt:
    """What every consumer of a prompt must agree on (promise 5).

    `token_ids`: int32 [P], image and video placeholders expanded. `positions`: int32 [3, P], mRoPE (t, h, w).
    `request_ids`: int32 [P'], the same before expansion: one placeholder per image, which is what the engine is fed.
    `grids`: int32 [n, 3], patches of each image along (t, h, w), before the 2x2 merge.
    `video_times`: seconds of the frames, where they are shown as one native video: n is 1 then. None: as images.
    """

    token_ids: np.ndarray
    request_ids: np.ndarray
    positions: np.ndarray
    grids: np.ndarray
    video_times: tuple[float, ...] | None = None

    @property
    def frame_counts(self) -> np.ndarray:
        """int32 [n]: how many frames each grid is made of."""
        return np.full(len(self.grids), 1 if self.video_times is None else len(self.video_times), np.int32)


@dataclass(frozen=True)
class Trajectory:
    """One sampled completion with its exact behaviour policy (promise 4).

    `token_ids`: int32 [C]. `logprobs`: float32 [C], natural log under the distribution that drew each token.
    `version_spans`: (version, first token, one past the last token), covering 0..C in order.
    `finish_reason`: "stop" or "length".
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    version_spans: tuple[tuple[int, int, int], ...]
    text: str
    finish_reason: str


@dataclass(frozen=True)
class Group:
    """G trajectories of one prompt. `oldest_version` is the oldest that drew a token or computed KV of the group."""

    id: int
    sample: Sample
    frames: FrameInfo
    prompt: Prompt
    trajectories: tuple[Trajectory, ...]
    oldest_version: int


@dataclass(frozen=True)
class Claim:
    """One piece of evidence the policy wrote: `phrase` is in `box` (pixels of the resized frame) at `time` (seconds).

    The grammar gives `box` as it is written; `evidence.spaces.read` is what makes pixels of it, before anybody looks.
    `until` (seconds) is the end of a claim about an interval, None for one about a moment. `time` is then the start:
    the referee looks at one frame, and that has to be one the policy named, as it never named the interval's middle.
    `span` are the character offsets of the claim in the completion. An invalid claim keeps what could be read of it
    and says why in `reason`; a valid one has phrase, box and time, no end before its time, and `reason` None.
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
    """What the referee says of one claim, both in [0, 1]. `flag` names what went wrong, if anything did.
    `disagreement`: how far an ensemble's referees lie apart, in [0, 1]; 0 of a single one."""

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
    """A group with one reward per trajectory, the sum over `paid` of weights * paid.

    `terms`: each reward term's raw values, float32 [G], NaN where a value could not be had. `paid`: what its gates
    leave of it, without the terms that were left out for want of a value; `weights`: of each term paid.
    """

    group: Group
    rewards: np.ndarray
    terms: dict[str, np.ndarray]
    paid: dict[str, np.ndarray]
    weights: dict[str, float]
    evidence: tuple[tuple[ClaimScore, ...], ...]
