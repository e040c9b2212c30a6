"""Length penalties."""

from __future__ import annotations

import math

from evidence.errors import BadInput
from referee.terms.view import GroupView, needs


@needs("lengths")
def overlong(view: GroupView, *, max_tokens: int = 768, cache: int = 128) -> list[float]:
    """DAPO's overlong shaping (arXiv 2503.14476): 0 up to `max_tokens` - `cache` tokens, then linear to -1 at
    `max_tokens`, and -1 beyond; NaN if the lengths are unknown. Raises BadInput unless 0 < cache <= max_tokens."""
    if not 0 < cache <= max_tokens:
        raise BadInput(f"overlong: max_tokens = {max_tokens}, cache = {cache}: must satisfy 0 < cache <= max_tokens")
    if not view.lengths:
        return [math.nan] * len(view.completions)
    return [-min(max((length - max_tokens + cache) / cache, 0.0), 1.0) for length in view.lengths]
