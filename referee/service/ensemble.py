"""Several referees as one: the mean of their verdicts, and their disagreement. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evidence.types import Verdict


def combine_verdicts(verdicts: Sequence[Sequence[Verdict | None]]) -> list[Verdict | None]:
    """One verdict per claim. `verdicts`: the verdicts of each referee, in the order of the claims.

    A claim's verdict is the mean over the referees; its `disagreement` is the mean distance between two referees, over
    all pairs and both kinds. It is None if any referee gave no verdict: a mean of the others would be on another scale.
    """
    return [_mean(claim_verdicts) for claim_verdicts in zip(*verdicts, strict=True)]


def _mean(verdicts: Sequence[Verdict | None]) -> Verdict | None:
    given = [verdict for verdict in verdicts if verdict is not None]
    if len(given) < len(verdicts):
        return None
    readings = np.array([(verdict.relevance, verdict.localization) for verdict in given])  # [referees, 2]
    first, second = np.triu_indices(len(given), 1)
    distances = np.abs(readings[first] - readings[second])
    relevance, localization = readings.mean(axis=0).tolist()
    return Verdict(relevance, localization, disagreement=float(distances.mean()) if distances.size else 0.0)
