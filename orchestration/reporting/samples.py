"""samples.jsonl: one group per step with its evidence, for people to read what is rewarded."""

from __future__ import annotations

from typing import Any

from evidence.lines import AppendedLines
from evidence.plain import dumps
from evidence.types import Claim, ClaimScore, ScoredGroup, Trajectory


def write_samples(lines: AppendedLines, step: int, scored: ScoredGroup) -> None:
    """Append one line per trajectory of the group: text, reward, and each claim with its verdict and score. `ser score`
    and `ser calibrate` read the file.

    Boxes are in pixels of the resized frame, whatever coordinate space the text uses.
    """
    lines.write(
        dumps(_line(step, scored, index, trajectory), places=4)
        for index, trajectory in enumerate(scored.group.trajectories)
    )


def _line(step: int, scored: ScoredGroup, index: int, trajectory: Trajectory) -> dict[str, Any]:
    group = scored.group
    return {
        "step": step,
        "group": group.id,
        "sample": group.sample.id,
        "question": group.sample.question,
        "answer": group.sample.answer,
        "text": trajectory.text,
        "frame_size": group.frames.size,
        "frame_times": group.frames.times,
        "reward": scored.rewards[index],
        "versions": [version for version, _, _ in trajectory.version_spans],
        "terms": {name: values[index] for name, values in scored.terms.items()},
        "claims": [scored_claim(claim) for claim in scored.evidence[index]],
    }


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
