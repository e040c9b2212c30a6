"""What a policy gets for a sample, as plain data. Pure.

Boxes are in pixels of the shown frames; times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from evidence.types import FrameInfo, KeyFrame, Sample
from orchestration.showing.labels import LabelledBox

TEXT, SPECIAL, VISUAL = "text", "special", "visual"


@dataclass(frozen=True)
class Piece:
    """Neighbouring tokens of a prompt of one kind. text: of all of them or, of special and visual tokens, of each.
    tokens: their number."""

    kind: str
    text: str
    tokens: int


@dataclass(frozen=True)
class ShownFrame:
    """A frame with its labels. image: the path of its PNG beside the page, as the policy gets it; with_boxes: the path
    of the one on which the boxes are drawn, None if it has none."""

    time: float
    image: str
    with_boxes: str | None
    boxes: tuple[LabelledBox, ...]
    key_frames: tuple[KeyFrame, ...]


@dataclass(frozen=True)
class Seen:
    """What a policy gets for a sample. native_steps: of a native video, None if its frames are shown as images."""

    info: FrameInfo
    frames: tuple[ShownFrame, ...]
    not_shown: tuple[KeyFrame, ...]
    prompt: tuple[Piece, ...]
    native_steps: int | None = None

    @property
    def has_boxes(self) -> bool:
        return any(frame.boxes for frame in self.frames)

    @property
    def tokens(self) -> int:
        return sum(piece.tokens for piece in self.prompt)

    @property
    def visual_tokens(self) -> int:
        return sum(piece.tokens for piece in self.prompt if piece.kind == VISUAL)


@dataclass(frozen=True)
class ShownSample:
    """A sample with what the policy gets for it, None if its media cannot be read. place: in the dataset, from 1.
    problems: what is wrong with the sample, in words."""

    place: int
    sample: Sample
    problems: tuple[str, ...]
    seen: Seen | None


@dataclass(frozen=True)
class Source:
    """What the page says about where the samples come from. chosen: which of the dataset's samples are shown. settings:
    of frames and prompts, as YAML."""

    file: str
    chosen: str
    model: str
    settings: str
