"""The input of reward terms, and the declaration of the inputs that a term needs.

A term is a function `term(view, *, option=default, …)` that returns one float per completion of `view`, in order. Its
keyword-only arguments are the options that a recipe may set. It is pure: equal views give equal numbers. NaN means that
a completion's value is missing (for example a verdict): the reward graph then leaves the term out for the whole group,
and counts it. On a task that the term does not apply to, it returns 0.

    @needs("frames")
    def thk_spatial(view: GroupView, *, tau: float = 3.0) -> list[float]: …

`needs` names the inputs that the term cannot be computed without: "frames" (FrameInfo), "lengths" (tokens per
completion), "verdicts" (of the referee, on claims), "judgements" (of the text judge, on answers), "contrast"
(completions sampled on shuffled frames). The code that builds a view must provide its recipe's needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from evidence.errors import BadInput
from evidence.grammar import Completion
from evidence.spaces import PrintedTimes
from evidence.types import FrameInfo, Sample, Verdict

NEEDS = ("frames", "lengths", "verdicts", "judgements", "contrast")
Term = TypeVar("Term", bound=Callable[..., object])


@dataclass(frozen=True)
class GroupView:
    """The G completions of one prompt: everything that a term may use, which excludes the pixels.

    texts, completions: as written and as parsed, boxes in pixels of the resized frame.
    frames: times (seconds) and sizes of the shown frames, None if unknown. For a recorded completion the times may be
        () or the size (0, 0), so terms read them by `frame_times` and `known_frames`.
    box_space: the space of boxes in an answer's text, a key of evidence.spaces.SPACES.
    printed: times as the prompt printed them -> those of the frames, seconds; empty if the prompt is unknown. Claims
        have the frames' times already.
    lengths: tokens of each completion, empty if unknown. max_tokens: at which they are cut, None if unknown.
    progress: of training, 0-1.
    verdicts: per completion those of the claims that the SER term verifies, in its order.
    judgements: the text judge's score of each answer, 0-1, None if missing.
    terms: raw values, float32 [G], of the terms listed before this one in the recipe.
    contrast: the view of the completions sampled on shuffled frames, with their own `terms`.
    """

    sample: Sample
    texts: tuple[str, ...]
    completions: tuple[Completion, ...]
    frames: FrameInfo | None = None
    box_space: str = "resized"
    printed: PrintedTimes = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    max_tokens: int | None = None
    progress: float = 0.0
    verdicts: tuple[Sequence[Verdict | None], ...] = ()
    judgements: tuple[float | None, ...] = ()
    terms: Mapping[str, np.ndarray] = field(default_factory=dict)
    contrast: GroupView | None = None

    @property
    def frame_times(self) -> tuple[float, ...]:
        """Seconds of the shown frames. Raises BadInput if they are unknown (a recorded completion may lack them)."""
        if self.frames is None or not self.frames.times:
            raise BadInput(f"sample {self.sample.id}: this reward needs frame_times, the seconds of the frames shown")
        return self.frames.times

    @property
    def known_frames(self) -> FrameInfo:
        """The frames with a known size, which is the space of the claims' boxes. Raises BadInput if it is unknown."""
        if self.frames is None or not all(self.frames.size):
            raise BadInput(
                f"sample {self.sample.id}: this reward needs frame_size, [width, height] of the frames shown"
            )
        return self.frames


def needs(*what: str) -> Callable[[Term], Term]:
    """Declare the inputs that a term needs: names from NEEDS."""
    unknown = set(what) - set(NEEDS)
    if unknown:
        raise ValueError(f"needs {sorted(unknown)}: must be among {', '.join(NEEDS)}")

    def marked(term: Term) -> Term:
        term.needs = frozenset(what)  # type: ignore[attr-defined]
        return term

    return marked


def needs_of(term: Callable[..., object]) -> frozenset[str]:
    """The inputs that `term` needs; empty if it declares none."""
    return getattr(term, "needs", frozenset())
