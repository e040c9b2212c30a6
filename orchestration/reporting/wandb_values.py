"""Histograms, frames with boxes and tables, as wandb takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import wandb

from orchestration.reporting.histograms import Histogram
from orchestration.reporting.media import COLUMNS, GUARDED, NOT_SUPPORTED, SUPPORTED, Picture

VERDICTS = (SUPPORTED, NOT_SUPPORTED, GUARDED)


def shown(name: str, value: Any) -> Any:
    """The value of the metric `name` as wandb shows it."""
    if isinstance(value, Histogram):
        return wandb.Histogram(np_histogram=(np.array(value.counts), np.array(value.edges)))
    if name == "samples/frames":
        return [_image(picture) for picture in value]
    if name == "samples/table":
        return wandb.Table(columns=list(COLUMNS), data=[list(row) for row in value])
    return value


def _image(picture: Picture) -> wandb.Image:
    boxes = [
        {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), map(float, shown.box))),
            "domain": "pixel",
            "class_id": VERDICTS.index(shown.verdict),
            "box_caption": shown.caption,
            "scores": {"score": shown.score},
        }
        for shown in picture.boxes
    ]
    labels = dict(enumerate(VERDICTS))
    claims = {"claims": {"box_data": boxes, "class_labels": labels}}
    return wandb.Image(picture.frame, caption=picture.caption, boxes=claims, file_type="jpg")
