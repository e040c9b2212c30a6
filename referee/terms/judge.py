"""A term for answers judged by another model."""

from __future__ import annotations

import math

from referee.terms.view import GroupView, needs


@needs("judgements")
def text_judge(view: GroupView) -> list[float]:
    """The text judge's score of each answer, in [0, 1]; NaN if it is missing. The recipe sets weight and gate:
    Video-VER pays it with weight .3, and only for right answers."""
    if not view.judgements:
        return [math.nan] * len(view.completions)
    return [math.nan if score is None else score for score in view.judgements]
