"""The embedded world in V-STaR's format: labels match the clips, in space and in time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evidence.sampling import SamplingContract
from rollout.dataset.check import check
from rollout.dataset.read import DatasetFile
from rollout.dataset.shapes import COLOURS, DURATION, MOMENTS
from rollout.dataset.shapes_vstar import VISIBLE, make_vstar
from rollout.dataset.vstar import SIDES
from rollout.frames.decoding import decode

EVERY_FRAME = SamplingContract(frames=29, max_pixels=112 * 112, min_pixels=112 * 112, multiple=28)
NEAR = 60  # how far a pixel's colour may be from the shape's, after compression


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("vstar") / "shapes"
    make_vstar(out, train=6, val=0, test=4, questions=3, seed=1, workers=1)
    return out


@pytest.fixture(scope="module")
def rows(world: Path) -> list[dict[str, Any]]:
    return [row for split in ("train", "test") for row in json.loads((world / f"{split}.json").read_text())]


def painted(world: Path, row: dict[str, Any]) -> tuple[np.ndarray, tuple[float, ...]]:
    """For each frame of the clip, whether each pixel has the colour of the asked shape, and the frames' times."""
    frames, info = decode(str(world / f"videos/{row['vid']}.mp4"), EVERY_FRAME)
    colour = COLOURS[row["object"].split()[0]]
    return np.abs(frames.astype(int) - colour).max(axis=-1) < NEAR, info.times


def test_the_file_is_read_as_v_stars(world: Path) -> None:
    report, samples = check(DatasetFile(world / "train.json"))
    assert report.format == "v-star"
    assert report.missing_media == []
    assert report.boxes_outside == report.times_outside == report.items_without_frame == 0
    assert {*samples[0].follow_ups} == {"temporal_question", "spatial_question", "spatial_question_2"}


def test_equal_seeds_give_equal_rows_and_training_clips_have_one_row_per_shape(world: Path, tmp_path: Path) -> None:
    make_vstar(tmp_path / "again", train=6, val=0, test=4, questions=3, seed=1, workers=2)
    for split in ("train", "test"):
        again = (tmp_path / f"again/{split}.json").read_text()
        assert again == (world / f"{split}.json").read_text()
    train, test = (json.loads((world / f"{split}.json").read_text()) for split in ("train", "test"))
    assert len({(row["vid"], row["object"]) for row in train}) == len(train) > 6
    assert len({row["vid"] for row in test}) == len(test) == 4


def test_the_interval_is_that_in_which_the_clip_shows_the_shape(world: Path, rows: list[dict[str, Any]]) -> None:
    partial = 0
    for row in rows:
        pixels, times = painted(world, row)
        start, end = row["timestamps"]
        shown = [time for time, frame in zip(times, pixels) if frame.sum() > 200]
        assert (shown[0], shown[-1] + 1 / row["fps"]) == pytest.approx((start, end), abs=0.01)
        partial += (start, end) != (0, DURATION)
    assert partial == len(rows)


def test_every_whole_second_of_the_interval_has_a_box_around_the_shape(world: Path, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        pixels, times = painted(world, row)
        start, end = row["timestamps"]
        seconds = [box["timestamp"] for box in row["bboxes"]]
        assert seconds == list(range(math.ceil(start), math.floor(end) + 1))
        assert VISIBLE[0] <= len(seconds) <= VISIBLE[1] < MOMENTS
        for box in row["bboxes"]:
            # Lines with a few pixels only are where the edges of other shapes blend into the colour.
            xs, ys = (np.nonzero(pixels[box["frame_index"]].sum(axis=axis) > 4)[0] for axis in (0, 1))
            assert times[box["frame_index"]] == pytest.approx(box["timestamp"])
            painted_box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert painted_box == pytest.approx([box[side] for side in SIDES], abs=5)


def test_the_answer_is_the_quadrant_at_the_asked_moment(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        moment = int(float(row["question"].split(" at ")[1].split()[0]))
        (box,) = (box for box in row["bboxes"] if box["timestamp"] == moment)
        x, y = (box["xmin"] + box["xmax"]) / 2, (box["ymin"] + box["ymax"]) / 2
        assert row["answer"] == f"{'top' if y < 56 else 'bottom'} {'left' if x < 56 else 'right'}"
