"""SER's own format: a row has the fields of a Sample (docs/data.md), so every Sample can be written and read.

`video` and `image` stand for `video_path` and `image_path`, relative to the media root. An unknown key is refused,
because it is more likely a misspelling than meant to be ignored.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, fields
from typing import Any

from evidence.types import Sample
from rollout.dataset.open_o3 import read_key_frames, read_key_items
from rollout.dataset.row import Relative, Row, is_null, span

MEDIA = {"video_path": "video", "image_path": "image"}
KEYS = [MEDIA.get(field.name, field.name) for field in fields(Sample)]


def read(row: Row) -> Sample:
    for key in row.unread:
        if key not in KEYS:
            nearest = difflib.get_close_matches(key, KEYS, n=1, cutoff=0)[0]
            raise ValueError(f"unknown key '{key}'; the nearest known one is '{nearest}'")
    video, image = row.video_or_image("video", "image")
    follow_ups = row.inner(row.mapping("follow_ups"), "follow_ups")
    return Sample(
        id=row.id("id"),
        source=row.optional_text("source") or "unknown",
        task=row.text("task"),
        question=row.text("question"),
        answer=row.answer("answer"),
        video_path=video,
        image_path=image,
        image_size=row.size("image_size"),
        key_frames=read_key_frames(row),
        key_items=read_key_items(row),
        reasoning=row.optional_text("reasoning"),
        options=row.texts("options"),
        spans=tuple(span(value, "a span") for value in row.sequence("spans")),
        duration=row.optional_amount("duration"),
        fps=row.optional_amount("fps"),
        domain=row.optional_text("domain"),
        part=row.part("part"),
        follow_ups={key: follow_ups.text(key) for key, text in follow_ups.values.items() if not is_null(text)},
    )


def write(sample: Sample, relative: Relative) -> dict[str, Any]:
    values = asdict(sample)
    for field in MEDIA:
        values[field] = values[field] and relative(values[field])
    values["answer"] = values["answer"] or None
    return {MEDIA.get(name, name): value for name, value in values.items() if value not in (None, (), {})}
