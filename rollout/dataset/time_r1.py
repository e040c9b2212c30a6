"""Formats of Time-R1's training file and of its TVGBench (arXiv 2503.13377): when does the described event happen?

Both become Open-o3-Video's "temporal QA", with the sentence turned into a question. Times refer to the file that a row
names. Time-R1's `video_start` and `video_end` say from where its authors cut that file, and are not read.
"""

from __future__ import annotations

import json
import re
from typing import Any

from evidence.types import Sample
from rollout.dataset.open_o3 import TEMPORAL_QA
from rollout.dataset.row import Relative, Row, span

WHEN = "When does this happen in the video? "
START_END = re.compile(r"\s*([0-9.]+)\s*-\s*([0-9.]+)\s*")


def read_time_r1(row: Row) -> Sample:
    return _sample(row, row.media("video"), row.text("sentence"), row.span("timestamp"))


def read_tvgbench(row: Row) -> Sample:
    answer = row.answer("answer")
    numbers = START_END.fullmatch(answer)
    if answer and numbers is None:
        raise ValueError(f"the key 'answer' must be \"start-end\" in seconds, not {answer!r:.40}")
    row.value("question_type")  # not needed: the same in all rows
    when = span(list(numbers.groups()), "the key 'answer'") if numbers else None
    return _sample(row, row.media("path"), row.text("question"), when)


def _sample(row: Row, video: str | None, sentence: str, when: tuple[float, float] | None) -> Sample:
    if video is None:
        raise ValueError("the path of its video is missing or null")
    return Sample(
        id=row.id("qid"),
        source=row.optional_text("dataset_name") or "unknown",
        task=TEMPORAL_QA,
        question=WHEN + sentence,
        answer=json.dumps(when) if when else "",
        video_path=video,
        spans=(when,) if when else (),
        duration=row.optional_amount("duration"),
        domain=row.optional_text("qsemtype"),
    )


def write_time_r1(sample: Sample, relative: Relative) -> dict[str, Any]:
    return {
        "video": relative(sample.media_path),
        "duration": sample.duration,
        "timestamp": _span(sample),
        "sentence": sample.question.removeprefix(WHEN),
        **_shared(sample),
    }


def write_tvgbench(sample: Sample, relative: Relative) -> dict[str, Any]:
    start, end = _span(sample)
    return {
        "path": relative(sample.media_path),
        "question": sample.question.removeprefix(WHEN),
        "answer": f"{start}-{end}",
        "duration": sample.duration,
        "question_type": "video temporal grounding",
        **_shared(sample),
    }


def _span(sample: Sample) -> tuple[float, float]:
    if not sample.spans:
        raise ValueError("it has no time span")
    return sample.spans[0]


def _shared(sample: Sample) -> dict[str, Any]:
    known = {"qid": sample.id, "dataset_name": sample.source, "qsemtype": sample.domain}
    return {key: value for key, value in known.items() if value is not None}
