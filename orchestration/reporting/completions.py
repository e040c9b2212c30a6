"""Metrics of a step's completions: their lengths, and the claims that they make. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from evidence.geometry import area
from evidence.spaces import read
from evidence.types import Claim, Group
from evidence.visible import one_line

MOST_SHOWN = 60  # characters of a phrase
LEAST_GROUPS = 4  # the completions of fewer prompts may well name one and the same object


def completion_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """`rollout/*`: means over the completions of their tokens, of those cut at the limit, and of weight versions."""
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    return {
        "rollout/tokens": float(np.mean([len(t.token_ids) for t in trajectories])),
        "rollout/cut_short": float(np.mean([t.finish_reason == "length" for t in trajectories])),
        "rollout/versions": float(np.mean([len(t.version_spans) for t in trajectories])),
    }


def claim_metrics(groups: Sequence[Group], space: str) -> dict[str, float | str]:
    """`claims/*` of the valid claims; without one, only how many there are. `space`: of the boxes that the policy
    writes."""
    claims = [[valid_claims(t.text, group, space) for t in group.trajectories] for group in groups]
    per_completion = [len(of_one) for of_group in claims for of_one in of_group]
    metrics: dict[str, float | str] = {
        "claims/per_completion": float(np.mean(per_completion)),
        "claims/completions_with": float(np.mean([count > 0 for count in per_completion])),
    }
    areas = [
        area(claim.box) / (group.frames.size[0] * group.frames.size[1])
        for group, of_group in zip(groups, claims)
        for of_one in of_group
        for claim in of_one
        if claim.box
    ]
    if areas:
        metrics["claims/box_area"] = float(np.mean(areas))
    if areas and len(groups) >= LEAST_GROUPS:
        phrase, share = top_phrase([[[claim.phrase for claim in of_one] for of_one in of_group] for of_group in claims])
        metrics |= {"claims/top_phrase_share": share, "claims/top_phrase": one_line(phrase, MOST_SHOWN)}
    return metrics


def valid_claims(text: str, group: Group, space: str) -> list[Claim]:
    return [claim for claim in read(text, group.frames, space).claims if claim.valid]


def top_phrase(phrases: Sequence[Sequence[Sequence[str]]]) -> tuple[str, float]:
    """The phrase that names an object in the most groups, and their share of all groups. `phrases`: of each completion
    of each group. A group counts for a phrase if at least half of its completions with claims use it, so that one odd
    completion is no trend."""
    groups = Counter[str]()
    for of_group in phrases:
        used = [{" ".join(phrase.lower().split()) for phrase in of_one} for of_one in of_group if of_one]
        counts = Counter(phrase for of_one in used for phrase in of_one)
        groups.update(phrase for phrase, count in counts.items() if 2 * count >= len(used))
    if not groups:
        return "", 0.0
    phrase, count = max(groups.items(), key=lambda item: (item[1], item[0]))
    return phrase, count / len(phrases)
