"""samples.jsonl: one group a step with its evidence, so that a person can read what is being rewarded."""

from __future__ import annotations

import json
from pathlib import Path

from evidence.types import ScoredGroup


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
                "claims": [
                    {
                        "phrase": one.claim.phrase,
                        "box": one.claim.box,
                        "time": one.claim.time,
                        "until": one.claim.until,
                        "relevance": round(one.verdict.relevance, 4),
                        "localization": round(one.verdict.localization, 4),
                        "temporal_penalty": round(one.temporal_penalty, 4),
                        "score": round(one.score, 4),
                        "flag": one.verdict.flag,
                    }
                    for one in scored.evidence[index]
                ],
            }
            file.write(json.dumps(line) + "\n")
