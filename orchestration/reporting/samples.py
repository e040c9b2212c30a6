"""samples.jsonl: one group a step with its evidence, so that a person can read what is being rewarded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from evidence.types import Claim, ClaimScore, ScoredGroup


def write_samples(path: Path, step: int, scored: ScoredGroup) -> None:
    """Append one line per trajectory of the group: text, reward, and each claim with its verdict and score.

    Boxes are in pixels of the resized frame, whatever space the text has them in.
    """
    with path.open("a", encoding="utf-8") as file:
        for index, trajectory in enumerate(scored.group.trajectories):
            line = {
                "step": step,
                "group": scored.group.id,
                "sample": scored.group.sample.id,
                "question": scored.group.sample.question,
                "answer": scored.group.sample.answer,
                "text": trajectory.text,
                "reward": round(float(scored.rewards[index]), 4),
                "versions": [version for version, _, _ in trajectory.version_spans],
                "terms": {name: finite(values[index]) for name, values in scored.terms.items()},
                "claims": [scored_claim(one) for one in scored.evidence[index]],
            }
            file.write(json.dumps(line) + "\n")


def claim_line(claim: Claim) -> dict[str, Any]:
    """A claim as it was read, for a JSON line: `box` in pixels of the resized frame, `time` and `until` in seconds."""
    return {"phrase": claim.phrase, "box": claim.box, "time": claim.time, "until": claim.until}


def scored_claim(one: ClaimScore) -> dict[str, Any]:
    """A claim with its verdict, penalty and score, all in [0, 1], and what went wrong with it, if anything did."""
    return claim_line(one.claim) | {
        "relevance": round(one.verdict.relevance, 4),
        "localization": round(one.verdict.localization, 4),
        "temporal_penalty": round(one.temporal_penalty, 4),
        "score": round(one.score, 4),
        "flag": one.verdict.flag,
    }


def finite(value: float, places: int = 4) -> float | None:
    """`value` to so many decimal places, None for NaN."""
    return None if math.isnan(value) else round(float(value), places) + 0.0  # no -0.0
