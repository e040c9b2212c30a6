"""The embedded world in V-STaR's format (domain.md section 4): where a shape is at a moment, when it is in sight, and
where it is in each second.

The clips are those of rollout/dataset/shapes, but every shape is in sight for three to five of the eight sampled
moments only, and all clips have 4 frames a second. A row is about one shape of one clip; rows about the same clip share
their `vid`. Its interval is exact: from the first frame that shows the shape to the end of the last one. It holds the
whole seconds of `bboxes`, and no others. Equal arguments give equal files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rollout.dataset.shapes import (
    DURATION,
    FPS,
    FRAMES,
    MOMENTS,
    SIDE,
    SPLITS,
    Rows,
    Shape,
    clearly_placed,
    draw_shapes,
    quadrant,
    write_clip,
    written_world,
)
from rollout.dataset.vstar import SIDES, SUFFIX

VISIBLE = (3, 5)  # least and most moments at which a shape is in sight


def row(vid: str, shapes: list[Shape], asked: Shape, moment: int) -> dict[str, Any]:
    """The annotation of the questions about the shape `asked`, the first of which is about one of its moments."""
    name = asked.phrase
    return {
        "vid": vid,
        "domain": f"{len(shapes)} shape{'s' if len(shapes) > 1 else ''}",
        "fps": FPS,
        "width": SIDE,
        "height": SIDE,
        "frame_count": FRAMES,
        "question": f"Where is the {name} at {moment:.1f} s?",
        "answer": quadrant(asked, moment),
        "object": name,
        "temporal_question": f"When is the {name} in sight?",
        "timestamps": interval(asked),
        "spatial_question": f"Where is the {name} from {asked.first:.1f} s to {asked.last:.1f} s?",
        "spatial_question_2": f"Where is the {name} while it is in sight?",
        "bboxes": [bbox(asked, moment) for moment in range(asked.first, asked.last + 1)],
    }


def interval(shape: Shape) -> list[float]:
    """Start and end, in seconds, of the time in which the clip shows the shape. `write_clip` draws it in frames less
    than half a second from a moment at which it is visible."""
    return [max(0.0, shape.first - 1 / FPS), min(shape.last + 2 / FPS, DURATION)]


def bbox(shape: Shape, moment: int) -> dict[str, Any]:
    """The shape's box at a moment, in whole pixels of the clip. `timestamp` is an integer, since the scorer compares
    seconds as text."""
    sides = (round(side * SIDE) for side in shape.box(moment))
    return {"timestamp": moment, "frame_index": moment * FPS, **dict(zip(SIDES, sides))}


def _make_clip(job: tuple[Path, str, int, int, int]) -> Rows:
    """A clip none of whose shapes is clearly in a quadrant at some moment is drawn again."""
    out, split, number, seed, count = job
    cv2.setNumThreads(1)
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    vid = f"{split}/{number // 1000:03d}/{split}-{number:06d}"
    while True:
        shapes = draw_shapes(rng, *VISIBLE)
        moments = [[m for m in range(MOMENTS) if s.visible(m) and clearly_placed(s, m)] for s in shapes]
        places = [n for n, clear in enumerate(moments) if clear]
        if places:
            write_clip(out / f"videos/{vid}{SUFFIX}", shapes, rng, FPS, FRAMES)
            asked = rng.permutation(places)[:count]
            return [row(vid, shapes, shapes[n], int(rng.choice(moments[n]))) for n in asked]


def make_vstar(
    out: Path,
    train: int = 2000,
    val: int = 256,
    test: int = 512,
    questions: int = 4,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[str, int, int], None] = lambda split, done, total: None,
) -> dict[str, int]:
    """As `make_shapes`, with the annotation of each split in V-STaR's format. Training clips have a row about each of
    at most `questions` shapes, all other clips one row."""
    sizes = {"train": train, "val": val, "test": test}
    with written_world(out, sizes, questions, seed, workers, _make_clip, progress) as (_, rows):
        return {split: len(of_split) for split, of_split in rows.items()}
