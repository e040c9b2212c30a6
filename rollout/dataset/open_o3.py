"""Format of Open-o3-Video's STGR, for supervised and reinforcement learning (arXiv 2510.20579, domain.md section 2).

The `path` of a key frame, an image extracted in advance, is not read: frames come from the video.
"""

from __future__ import annotations

import json
from typing import Any

from evidence.types import Box, KeyFrame, Sample
from rollout.dataset.row import Relative, Row, box, span

# Tasks whose answer ends in a line "[start, end]".
TEMPORAL_QA, TEMPORAL_MCQ = "temporal QA", "temporal QA (MCQ)"
SPATIO_TEMPORAL_QA = "temporal-spatial free-form QA"
VISUAL_QA = "visual QA"


def read(row: Row) -> Sample:
    task, answer = row.text("task"), row.answer("answer")
    # A row may name both; its task then says which of them it is about.
    video, image = row.media("video_path"), row.media("image_path")
    if video is not None and image is not None:
        video, image = (None, image) if task == VISUAL_QA else (video, None)
    if video is None and image is None:
        raise KeyError("video_path")
    return Sample(
        id=row.text("id"),
        source=row.optional_text("source") or "unknown",
        task=task,
        question=row.text("question"),
        answer=answer,
        video_path=video,
        image_path=image,
        image_size=row.size("image_size"),
        key_frames=read_key_frames(row),
        key_items=read_key_items(row),
        reasoning=row.optional_text("reasoning_process"),
        spans=_answered_span(task, answer),
    )


def write(sample: Sample, relative: Relative) -> dict[str, Any]:
    return {
        "id": sample.id,
        "source": sample.source,
        "task": sample.task,
        "question": sample.question,
        "answer": sample.answer or None,
        "video_path": sample.video_path and relative(sample.video_path),
        "image_path": sample.image_path and relative(sample.image_path),
        "image_size": sample.image_size,
        "key_frames": [{"idx": frame.idx, "time": frame.time, "path": None} for frame in sample.key_frames] or None,
        "key_items": sample.key_items or None,
        "reasoning_process": sample.reasoning,
    }


def read_key_frames(row: Row) -> tuple[KeyFrame, ...]:
    frames = [row.inner(v, "a key frame must be an object with idx and time") for v in row.sequence("key_frames")]
    return tuple(KeyFrame(frame.text("idx"), frame.number("time")) for frame in frames)


def read_key_items(row: Row) -> dict[str, dict[str, tuple[Box, ...]]]:
    frames = row.inner(row.mapping("key_items"), "key_items")
    items = {idx: frames.inner(frames.mapping(idx), idx) for idx in frames.values}
    return {
        idx: {phrase: tuple(map(box, inner.sequence(phrase))) for phrase in inner.values}
        for idx, inner in items.items()
    }


def _answered_span(task: str, answer: str) -> tuple[tuple[float, float], ...]:
    if not answer or task not in (TEMPORAL_QA, TEMPORAL_MCQ):
        return ()
    before, _, last = answer.rpartition("\n")
    try:
        if task == TEMPORAL_MCQ and not before.partition("\n")[0].strip():
            raise ValueError("no option")
        return (span(json.loads(last), "it"),)
    except (ValueError, RecursionError):
        wanted = '"[start, end]"' if task == TEMPORAL_QA else '"X\\n[start, end]"'
        raise ValueError(f"the answer of a {task} must be {wanted} in seconds, not {answer!r:.60}") from None
