"""A V-STaR result row whose scores are easy to work out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation.reading import PlacedRow
from evaluation.vstar.report import evaluate


def box(second: Any, x1: float, y1: float, x2: float, y2: float) -> dict[str, Any]:
    return {"timestamp": second, "frame_index": 0, "xmin": x1, "ymin": y1, "xmax": x2, "ymax": y2}


def row(**changes: Any) -> dict[str, Any]:
    """Truth: 10 s to 20 s, a box of 10 x 10 pixels at the origin in seconds 12 and 13. All answers are right."""
    values: dict[str, Any] = {
        "vid": "v",
        "domain": "Sports",
        "fps": 30,
        "width": 640,
        "height": 360,
        "frame_count": 900,
        "question": "What is it?",
        "answer": "a guitar",
        "temporal_question": "When?",
        "timestamps": [10, 20],
        "spatial_question": "Where then?",
        "spatial_question_2": "Where?",
        "bboxes": [box(12, 0, 0, 10, 10), box(13, 0, 0, 10, 10)],
        "answer_vqa": "A guitar.",
        "VQA_score": 3,
    }
    for suffix in ("", "_2"):
        values[f"answer_temporal{suffix}"] = [10, 20]
        values[f"answer_spatial{suffix}"] = {"12": [0, 0, 10, 10], "13": [0, 0, 10, 10]}
    values |= changes
    return {key: value for key, value in values.items() if value is not ...}


def report(*rows: Any, **options: Any) -> dict[str, Any]:
    """The report of the rows, without intervals unless `resamples` is given."""
    return evaluate(placed(*rows), **{"resamples": 0, **options})


def placed(*rows: Any) -> list[PlacedRow]:
    return [PlacedRow(Path("results.json"), n, values) for n, values in enumerate(rows)]


def reasons(of: dict[str, Any]) -> dict[str, int]:
    return {fault["reason"]: fault["count"] for fault in of["faults"]}
