"""Format of V-STaR's annotation (arXiv 2503.11495, domain.md section 4): one sample per row, with follow-up questions.

Boxes, which the file gives in pixels of the original video, are normalised, and each annotated second becomes a key
frame. The row's `chain`, reasoning without claims, is not read.
"""

from __future__ import annotations

from typing import Any

from evidence.types import Box, KeyFrame, Sample
from rollout.dataset.open_o3 import SPATIO_TEMPORAL_QA
from rollout.dataset.row import Relative, Row, number

FOLLOW_UPS = ("temporal_question", "spatial_question", "spatial_question_2")
SIDES = ("xmin", "ymin", "xmax", "ymax")
SUFFIX = ".mp4"


def read(row: Row) -> Sample:
    vid, fps, size = row.text("vid"), row.number("fps"), (int(row.number("width")), int(row.number("height")))
    if fps <= 0 or min(size) <= 0:
        raise ValueError(f"fps, width and height must be above 0, not {fps}, {size[0]} and {size[1]}")
    phrase = row.optional_text("object") or "object"
    frames: dict[KeyFrame, list[Box]] = {}
    for value in row.sequence("bboxes"):
        frame, box = _frame_and_box(row.inner(value, "a box must be an object with xmin, ymin, xmax, ymax"), size)
        frames.setdefault(frame, []).append(box)
    questions = {key: row.optional_text(key) for key in FOLLOW_UPS}
    return Sample(
        id=row.optional_text("id") or vid,
        source=row.optional_text("source") or "V-STaR",
        task=SPATIO_TEMPORAL_QA,
        question=row.text("question"),
        answer=row.answer("answer"),
        video_path=row.below_root(vid + SUFFIX, "vid"),
        image_size=size,
        key_frames=tuple(frames),
        key_items={frame.idx: {phrase: tuple(boxes)} for frame, boxes in frames.items()},
        spans=(row.span("timestamps"),),
        duration=number(row.number("frame_count") / fps, "frame_count / fps"),
        fps=fps,
        domain=row.optional_text("domain"),
        follow_ups={key: text for key, text in questions.items() if text},
    )


def _frame_and_box(row: Row, size: tuple[int, int]) -> tuple[KeyFrame, Box]:
    """Parse {timestamp, frame_index, xmin, …}, or {"timestamp_frameindex": {xmin, …}} as in older files."""
    if len(row.values) == 1:
        ((key, value),) = row.values.items()
        time, _, idx = key.partition("_")
        row = row.inner(value, f"the box {key!r:.40} must be an object with xmin, ymin, xmax, ymax")
        row.values = {**row.values, "timestamp": time, "frame_index": idx}
    x1, y1, x2, y2 = (row.number(side) for side in SIDES)
    w, h = size
    return KeyFrame(row.text("frame_index"), row.number("timestamp")), (x1 / w, y1 / h, x2 / w, y2 / h)


def write(sample: Sample, relative: Relative) -> dict[str, Any]:
    if not (sample.fps and sample.duration is not None and sample.image_size and len(sample.spans) == 1):
        raise ValueError("it lacks fps, duration, image_size or a single time span")
    w, h = sample.image_size
    vid = relative(sample.media_path).removesuffix(SUFFIX)
    bboxes = []
    for frame in sample.key_frames:
        for box in (box for boxes in sample.key_items.get(frame.idx, {}).values() for box in boxes):
            pixels = (box[0] * w, box[1] * h, box[2] * w, box[3] * h)
            bboxes.append({"timestamp": frame.time, "frame_index": frame.idx, **dict(zip(SIDES, map(_tidy, pixels)))})
    return {
        "vid": vid,
        **({"id": sample.id} if sample.id != vid else {}),
        **({"source": sample.source} if sample.source != "V-STaR" else {}),
        "domain": sample.domain,
        "fps": sample.fps,
        "width": w,
        "height": h,
        "frame_count": round(number(sample.duration * sample.fps, "duration * fps")),
        "question": sample.question,
        "answer": sample.answer or None,
        "object": next((phrase for items in sample.key_items.values() for phrase in items), None),
        "timestamps": list(sample.spans[0]),
        **sample.follow_ups,
        "bboxes": bboxes,
    }


def _tidy(pixels: float) -> float:
    """`pixels` as an integer if it is one up to the rounding of normalising and back."""
    whole = round(number(pixels, "a box in pixels"))
    return whole if abs(pixels - whole) < 1e-9 * max(1, abs(pixels)) else pixels
