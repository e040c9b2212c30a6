"""What another model says of the answer."""

from __future__ import annotations

import math

from referee.terms.view import GroupView, needs


@needs("judgements")
def text_judge(view: GroupView) -> list[float]:
    """The text judge's score of the answer, in [0, 1]; NaN where it gave none. Weight and gate are the recipe's:
    Video-VER pays it with weight .3 and only to right answers."""
    if not view.judgements:
        return [math.nan] * len(view.completions)
    return [math.nan if score is None else score for score in view.judgements]
