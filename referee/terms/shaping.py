"""Length penalties."""

from __future__ import annotations

import math

from evidence.errors import BadInput
from referee.terms.view import GroupView, needs

# DAPO's cache is 4,096 of its 20,480 tokens (arXiv 2503.14476, section 4.1).
CACHE_SHARE = 5


@needs("lengths")
def overlong(view: GroupView, *, max_tokens: int | None = None, cache: int | None = None) -> list[float]:
    """DAPO's overlong shaping (arXiv 2503.14476, eq. 13): 0 up to `max_tokens` - `cache` tokens, then linear to -1 at
    `max_tokens`, and -1 beyond; NaN if the lengths are unknown. The options: as in overlong_span. Raises BadInput."""
    span = overlong_span(max_tokens, cache, view.max_tokens)
    if not view.lengths:
        return [math.nan] * len(view.completions)
    if span is None:
        raise BadInput(
            f"sample {view.sample.id}: overlong: max_tokens = null: must be given here, where sampling's is not known"
        )
    most, width = span
    return [-min(max((length - most + width) / width, 0.0), 1.0) for length in view.lengths]


def overlong_span(max_tokens: int | None, cache: int | None, limit: int | None) -> tuple[int, int] | None:
    """(tokens at which the penalty is -1, tokens over which it falls to it); None if `max_tokens` is not known.

    max_tokens: None is `limit`, the tokens at which completions are cut (None if unknown). cache: None is a fifth of
    max_tokens. Raises BadInput unless 0 < cache <= max_tokens, and if no completion within `limit` could be penalised.
    """
    most = limit if max_tokens is None else max_tokens
    known = math.inf if most is None else most
    if (cache is not None and not 0 < cache <= known) or known < 1:
        raise BadInput(f"overlong: max_tokens = {most}, cache = {cache}: must satisfy 0 < cache <= max_tokens")
    if most is None:
        return None
    width = max(1, most // CACHE_SHARE) if cache is None else cache
    if limit is not None and most - width >= limit:
        raise BadInput(
            f"overlong: max_tokens = {most}, cache = {width}: must satisfy max_tokens - cache < sampling.max_tokens "
            f"({limit}), or no completion is ever long enough; leave max_tokens out to follow sampling.max_tokens"
        )
    return most, width
