"""samples.jsonl: one group per step with its evidence, for people to read what is rewarded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evidence.files import naming
from evidence.plain import dumps
from evidence.types import Claim, ClaimScore, ScoredGroup


def write_samples(path: Path, step: int, scored: ScoredGroup) -> None:
    """Append one line per trajectory of the group: text, reward, and each claim with its verdict and score. `ser score`
    and `ser calibrate` read the file.

    Boxes are in pixels of the resized frame, whatever coordinate space the text uses.
    """
    with naming(path), path.open("a", encoding="utf-8") as file:
        for index, trajectory in enumerate(scored.group.trajectories):
            line = {
                "step": step,
                "group": scored.group.id,
                "sample": scored.group.sample.id,
                "question": scored.group.sample.question,
                "answer": scored.group.sample.answer,
                "text": trajectory.text,
                "frame_size": scored.group.frames.size,
                "frame_times": scored.group.frames.times,
                "reward": scored.rewards[index],
                "versions": [version for version, _, _ in trajectory.version_spans],
                "terms": {name: values[index] for name, values in scored.terms.items()},
                "claims": [scored_claim(claim) for claim in scored.evidence[index]],
            }
            file.write(dumps(line, places=4) + "\n")


def claim_line(claim: Claim) -> dict[str, Any]:
    """A parsed claim for a JSON line: `box` in pixels of the resized frame, `time` and `until` in seconds."""
    return {"phrase": claim.phrase, "box": claim.box, "time": claim.time, "until": claim.until}


def scored_claim(scored: ClaimScore) -> dict[str, Any]:
    """A claim with its verdict, penalty and score, all in [0, 1], and its flag, which names what is wrong with it."""
    return claim_line(scored.claim) | {
        "relevance": scored.verdict.relevance,
        "localization": scored.verdict.localization,
        "temporal_penalty": scored.temporal_penalty,
        "score": scored.score,
        "flag": scored.verdict.flag,
    }
