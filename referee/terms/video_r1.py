"""Video-R1's rewards other than accuracy (arXiv 2503.21776). The recipe sets their weights: .3 and .2."""

from __future__ import annotations

import math
import re

import numpy as np

from evidence.errors import BadInput
from referee.terms.view import GroupView, needs

SECTION = re.compile(r"</?(?:think|answer)>")
IN_ORDER = ["<think>", "</think>", "<answer>", "</answer>"]


def video_r1_format(view: GroupView) -> list[float]:
    """1 for a thought followed by an answer, with only whitespace around them; else 0."""
    return [float(_in_form(text)) for text in view.texts]


@needs("contrast")
def t_grpo(view: GroupView, *, of: str = "acc", share: float = 0.8, least: float = 0.1) -> list[float]:
    """1 for a completion whose term `of` is above `least`, if the group's mean of that term is at least `share` times
    the mean over the completions on shuffled frames; else 0, as for an image or a single frame, whose order cannot be
    shuffled (in the released code, too, only videos can earn it). NaN if there are no completions on shuffled frames,
    or `of` has missing values."""
    if not _has_order(view):
        return [0.0] * len(view.completions)
    if view.contrast is None:
        return [math.nan] * len(view.completions)
    shown, shuffled = view.terms[of], view.contrast.terms[of]
    if np.isnan(shown).any() or np.isnan(shuffled).any():
        return [math.nan] * len(view.completions)
    pays = shown.mean() >= share * shuffled.mean()
    return [float(pays and value > least) for value in shown]


@needs("lengths")
def length_window(
    view: GroupView, *, of: str = "acc", low: int = 320, high: int = 512, least: float = 0.1
) -> list[float]:
    """1 for a completion of `low` to `high` tokens whose term `of` is above `least`, if the group has more than one
    above it; else 0. NaN if lengths are unknown or `of` has missing values. Raises BadInput unless
    0 <= low <= high."""
    if not 0 <= low <= high:
        raise BadInput(f"length_window: low = {low}, high = {high}: must satisfy 0 <= low <= high")
    values = view.terms[of]
    if not view.lengths or np.isnan(values).any():
        return [math.nan] * len(view.completions)
    right = values > least
    several = right.sum() > 1
    return [float(several and good and low <= length <= high) for good, length in zip(right, view.lengths)]


def _has_order(view: GroupView) -> bool:
    """Whether several frames are shown, as far as is known."""
    times = view.frames.times if view.frames is not None else ()
    return view.sample.video_path is not None and len(times) != 1


def _in_form(text: str) -> bool:
    tags = list(SECTION.finditer(text))
    if [tag[0] for tag in tags] != IN_ORDER:
        return False
    around = text[: tags[0].start()] + text[tags[1].end() : tags[2].start()] + text[tags[3].end() :]
    return not around.strip()
