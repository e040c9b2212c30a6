"""What a reward term sees, and how it says what it needs.

A term is a function `term(view, *, option=default, …)` that returns one float per completion of `view`, in order. Its
keyword-only arguments are the options that a recipe may set. It is pure: equal views give equal numbers. NaN for a
completion says that the number cannot be had (a verdict is missing): the reward graph then leaves the term out for the
whole group, and counts it. A task that the term does not concern gives 0.

    @needs("frames")
    def thk_spatial(view: GroupView, *, tau: float = 3.0) -> list[float]: …

`needs` names what has to be made before the term can be computed: "frames" (FrameInfo), "lengths" (tokens a
completion), "verdicts" (of the referee, on claims), "judgements" (of the text judge, on answers), "contrast"
(completions drawn on shuffled frames). Whoever builds a view gives what its recipe needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from evidence.errors import BadInput
from evidence.grammar import Completion
from evidence.types import FrameInfo, Sample, Verdict

NEEDS = ("frames", "lengths", "verdicts", "judgements", "contrast")
Term = TypeVar("Term", bound=Callable[..., object])


@dataclass(frozen=True)
class GroupView:
    """The G completions of one prompt, of which a term may see anything but the pixels.

    texts, completions: as written and as parsed, boxes in pixels of the resized frame. frames: times (seconds) and
    sizes of the frames shown, None where unknown, and of a recorded completion times may be () or the size (0, 0): a
    term reads them by `frame_times` and `known_frames`. box_space: what
    boxes in an answer's text are written in, a key of evidence.spaces.SPACES. lengths: tokens of each completion, empty
    where unknown. progress: of training, 0-1. verdicts: per completion those of the claims that the SER term asks
    about, in its order. judgements: the text judge's score of each answer, 0-1, None where it gave none. terms: raw
    values, float32 [G], of the terms that stand before this one in the recipe. contrast: the view of the completions
    drawn on shuffled frames, with their own `terms`.
    """

    sample: Sample
    texts: tuple[str, ...]
    completions: tuple[Completion, ...]
    frames: FrameInfo | None = None
    box_space: str = "resized"
    lengths: tuple[int, ...] = ()
    progress: float = 0.0
    verdicts: tuple[Sequence[Verdict | None], ...] = ()
    judgements: tuple[float | None, ...] = ()
    terms: Mapping[str, np.ndarray] = field(default_factory=dict)
    contrast: GroupView | None = None

    @property
    def frame_times(self) -> tuple[float, ...]:
        """Seconds of the frames shown. Raises BadInput where they are unknown (a recorded completion may lack them)."""
        if self.frames is None or not self.frames.times:
            raise BadInput(f"sample {self.sample.id}: this reward needs frame_times, the seconds of the frames shown")
        return self.frames.times

    @property
    def known_frames(self) -> FrameInfo:
        """The frames, of a known size, the space of the claims' boxes. Raises BadInput where it is unknown."""
        if self.frames is None or not all(self.frames.size):
            raise BadInput(
                f"sample {self.sample.id}: this reward needs frame_size, [width, height] of the frames shown"
            )
        return self.frames


def needs(*what: str) -> Callable[[Term], Term]:
    """Mark a term with what it needs, out of NEEDS."""
    unknown = set(what) - set(NEEDS)
    if unknown:
        raise ValueError(f"needs {sorted(unknown)}: none of {', '.join(NEEDS)}")

    def marked(term: Term) -> Term:
        term.needs = frozenset(what)  # type: ignore[attr-defined]
        return term

    return marked


def needs_of(term: Callable[..., object]) -> frozenset[str]:
    """What `term` needs, nothing if it does not say."""
    return getattr(term, "needs", frozenset())
