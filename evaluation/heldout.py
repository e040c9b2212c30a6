"""A policy's evidence on held-out clips: its reward, and measures that the reward does not use (answers and boxes).

Pure: completions and verdicts in, one record per clip out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.measures import Key, Metrics, share
from evidence.geometry import area, convert, iou, nearest_frame
from evidence.grammar import Completion
from evidence.types import NORMALISED, Box, Claim, FrameInfo, Sample, Verdict
from referee.reward.ser import Ser, label_spans, score
from referee.terms.answers import accuracy
from referee.terms.view import GroupView
from referee.trust.labelled_claims import asked_phrase

METRICS = ("reward", "accuracy", "iou", "claims", "valid_claim_share", "box_area")


@dataclass(frozen=True)
class ClipRecord:
    """One completion about one clip.

    frame_size: (width, height) of the frames shown; frame_times: their seconds.
    reward: r_SER, NaN if a verdict is missing.
    iou: mean over the valid claims of `claim_iou`; 0 without a valid claim, NaN without labels.
    box_area: mean area of the valid claims' boxes as a share of the frame, NaN without a valid claim.
    claim_ious: IoU of each valid claim, in order; NaN without labels.
    """

    clip: str
    text: str
    reward: float
    accuracy: float
    iou: float
    claims: int
    valid_claims: int
    box_area: float
    claim_ious: tuple[float, ...]
    frame_size: tuple[int, int]
    frame_times: tuple[float, ...]


def labelled_boxes(sample: Sample, info: FrameInfo, time: float) -> tuple[Box, ...]:
    """The asked object's boxes, in pixels of the resized frame, at the key frame nearest to the shown frame nearest to
    `time` (seconds); empty if the object is absent there."""
    phrase = asked_phrase(sample)
    shown = info.times[nearest_frame(info.times, time)]
    key = sample.key_frames[nearest_frame([k.time for k in sample.key_frames], shown)]
    boxes = sample.key_items.get(key.idx, {}).get(phrase, ()) if phrase else ()
    return tuple(convert(box, NORMALISED, info.resized_space) for box in boxes)


def is_labelled(sample: Sample) -> bool:
    """Whether the sample has boxes of the object asked about, so that a claim's box can be right or wrong."""
    return bool(sample.key_frames) and asked_phrase(sample) is not None


def claim_iou(claim: Claim, sample: Sample, info: FrameInfo) -> float:
    """IoU of the claim's box with the asked object's labelled box at the claim's time; 0 if the object is absent then,
    NaN if the sample is not labelled."""
    if not is_labelled(sample):
        return np.nan
    boxes = labelled_boxes(sample, info, claim.time or 0.0)
    return max((iou(claim.box, box) for box in boxes), default=0.0) if claim.box else 0.0


def record(
    sample: Sample, info: FrameInfo, text: str, completion: Completion, verdicts: list[Verdict | None], ser: Ser
) -> ClipRecord:
    """The record of one completion. `completion`: the parsed `text`, with boxes in pixels of the resized frame.
    `verdicts`: those of `ser.claims_to_verify(completion, sample, info)`, in its order."""
    _, reward = score(completion, verdicts, info, ser, label_spans(sample))
    valid = [claim for claim in completion.claims if claim.valid]
    ious = tuple(claim_iou(claim, sample, info) for claim in valid)
    frame_area = info.size[0] * info.size[1]
    return ClipRecord(
        clip=sample.id,
        text=text,
        reward=np.nan if reward is None else reward,
        accuracy=accuracy(GroupView(sample, (text,), (completion,), info), free_form="exact")[0],
        iou=float(np.mean(ious)) if ious else 0.0 if is_labelled(sample) else np.nan,
        claims=len(completion.claims),
        valid_claims=len(valid),
        box_area=float(np.mean([area(c.box) / frame_area for c in valid if c.box])) if valid else np.nan,
        claim_ious=ious,
        frame_size=info.size,
        frame_times=info.times,
    )


def table(records: Sequence[ClipRecord]) -> tuple[np.ndarray, Metrics]:
    """Columns, float [N, K], and the means METRICS, each over the clips where it is known."""
    values = np.array(
        [(r.reward, r.accuracy, r.iou, r.claims, r.valid_claims > 0, r.box_area) for r in records], float
    ).reshape(-1, len(METRICS))
    known = ~np.isnan(values)

    def means(sums: np.ndarray) -> dict[Key, np.ndarray]:
        return {(name,): share(sums[..., n], sums[..., n + len(METRICS)]) for n, name in enumerate(METRICS)}

    return np.concatenate([np.where(known, values, 0.0), known], axis=1), means
