"""Several referees as one: the mean of their verdicts, and how far they disagree. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evidence.types import Verdict


def combined(verdicts: Sequence[Sequence[Verdict | None]]) -> list[Verdict | None]:
    """One verdict per claim from `verdicts`, which holds each referee's, all in the order of the claims.

    A claim's verdict is the mean of all referees' verdicts, with their `disagreement`: how far two of them lie apart,
    on average over the pairs and both kinds. None if any of them gave none: a mean of the others would be on another
    scale.
    """
    return [_mean(of_claim) for of_claim in zip(*verdicts, strict=True)]


def _mean(verdicts: Sequence[Verdict | None]) -> Verdict | None:
    there = [verdict for verdict in verdicts if verdict is not None]
    if len(there) < len(verdicts):
        return None
    readings = np.array([(verdict.relevance, verdict.localization) for verdict in there])  # [referees, 2]
    first, second = np.triu_indices(len(there), 1)
    apart = np.abs(readings[first] - readings[second])
    relevance, localization = readings.mean(axis=0).tolist()
    return Verdict(relevance, localization, disagreement=float(apart.mean()) if apart.size else 0.0)
