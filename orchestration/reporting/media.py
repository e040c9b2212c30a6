"""What wandb shows of a step's first group: frames with the claimed boxes and their verdicts, and a table of its
completions. Pure.

Guarantees: text of models and data is made safe to show (evidence/visible); what is shown is copied, so nothing keeps
frames in the object store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from evidence.geometry import nearest_frame
from evidence.types import Box, ClaimScore, ScoredGroup
from evidence.visible import one_line, visible

# The first step, and every so many: one group with its frames takes about as much room as a hundred lines of metrics.
EVERY = 20
MOST_PICTURES = 8
MOST_SHOWN = 60  # characters of a phrase
SUPPORTED, NOT_SUPPORTED, GUARDED = "supported", "not supported", "refused by a guard"
LEAST_SCORE = 0.5
COLUMNS = ("step", "sample", "question", "reference", "completion", "reward", "terms", "claims")


@dataclass(frozen=True)
class ShownBox:
    """`box`: in pixels of the frame. `verdict`: SUPPORTED from a score of LEAST_SCORE on."""

    box: Box
    caption: str
    verdict: str
    score: float


@dataclass(frozen=True)
class Picture:
    """A frame, uint8 [H, W, 3], with the boxes that one completion claims on it."""

    frame: np.ndarray
    caption: str
    boxes: tuple[ShownBox, ...]


def due(step: int) -> bool:
    return step == 1 or step % EVERY == 0


def pictures(scored: ScoredGroup, frames: np.ndarray) -> list[Picture]:
    """The frames, of `frames` [n, H, W, 3], that the completions cite, of one completion after the other."""
    shown = (picture for index in range(len(scored.evidence)) for picture in _of_completion(scored, index, frames))
    return [picture for _, picture in zip(range(MOST_PICTURES), shown)]


def _of_completion(scored: ScoredGroup, index: int, frames: np.ndarray) -> Iterator[Picture]:
    times = scored.group.frames.times
    cited: dict[int, list[ShownBox]] = {}
    for claim_score in scored.evidence[index]:
        if claim_score.claim.box is not None and claim_score.claim.time is not None:
            cited.setdefault(nearest_frame(times, claim_score.claim.time), []).append(
                _box(claim_score, claim_score.claim.box)
            )
    for number, boxes in sorted(cited.items()):
        caption = f"{one_line(scored.group.sample.id, MOST_SHOWN)}, completion {index}, {times[number]:g} s"
        yield Picture(np.array(frames[number]), caption, tuple(boxes))


def _box(scored: ClaimScore, box: Box) -> ShownBox:
    verdict = SUPPORTED if scored.score >= LEAST_SCORE else NOT_SUPPORTED
    return ShownBox(
        box=box,
        caption=f"{one_line(scored.claim.phrase, MOST_SHOWN)} {scored.score:.2f}",
        verdict=GUARDED if scored.verdict.flag else verdict,
        score=scored.score,
    )


def rows(step: int, scored: ScoredGroup) -> list[list[Any]]:
    """The table's rows, with COLUMNS: one for each completion."""
    sample = scored.group.sample
    return [
        [
            step,
            visible(sample.id),
            visible(sample.asked),
            visible(sample.answer),
            visible(trajectory.text),
            float(scored.rewards[index]),
            ", ".join(f"{visible(name)} {values[index]:.3f}" for name, values in scored.terms.items()),
            "\n".join(_claim(claim_score) for claim_score in scored.evidence[index]),
        ]
        for index, trajectory in enumerate(scored.group.trajectories)
    ]


def _claim(scored: ClaimScore) -> str:
    verdict = scored.verdict
    read = f"flag {visible(verdict.flag)}" if verdict.flag else f"{verdict.relevance:.2f} / {verdict.localization:.2f}"
    return f"{one_line(scored.claim.phrase, MOST_SHOWN)}: relevance / localisation {read}, score {scored.score:.2f}"
