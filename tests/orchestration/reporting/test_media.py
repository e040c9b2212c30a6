"""Histograms, frames and tables: their content, and what wandb stores of them offline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from made_run import claim, completion, scored_group

from evidence.types import FrameInfo, Sample
from learner.losses.ratios import EDGES, counts
from orchestration.reporting.histograms import BINS, Histogram, step_histograms
from orchestration.reporting.media import COLUMNS, MOST_PICTURES, SUPPORTED, due, pictures, rows
from orchestration.reporting.metrics import RunLog

INFO = FrameInfo("key", (0.0, 1.0, 2.0), (56, 56), (56, 56), 3.0)
SAMPLE = Sample("s\x1b[2J", "test", "a", "Where?", "left", video_path="a.mp4")
FRAMES = np.stack([np.full((56, 56, 3), 80 * n, np.uint8) for n in range(3)])
HOSTILE = "red \u202esquare"
TEXTS = (completion(claim(HOSTILE, time=1.1), claim("red square", "1,2,3,4", 1.0), claim("cup", time=9.0)), "prose")


def test_the_frames_that_a_completion_cites_are_copied_with_its_boxes() -> None:
    scored = scored_group(0, SAMPLE, INFO, TEXTS, [1.0, 0.0])
    first, last = pictures(scored, FRAMES)
    assert [int(picture.frame[0, 0, 0]) for picture in (first, last)] == [80, 160], "the frame nearest to each time"
    assert not np.shares_memory(first.frame, FRAMES)
    assert [box.box for box in first.boxes] == [(5, 5, 30, 30), (1, 2, 3, 4)]
    assert {box.verdict for box in first.boxes} == {SUPPORTED}
    assert "\u202e" not in first.boxes[0].caption
    assert "\x1b" not in first.caption
    many = scored_group(0, SAMPLE, INFO, [TEXTS[0]] * 20, [0.0] * 20)
    assert len(pictures(many, FRAMES)) == MOST_PICTURES


def test_each_completion_is_a_row_of_visible_text() -> None:
    table = rows(3, scored_group(0, SAMPLE, INFO, TEXTS, [1.0, 0.5]))
    assert [len(row) for row in table] == [len(COLUMNS)] * 2
    assert [row[COLUMNS.index("reward")] for row in table] == [1.0, 0.5]
    assert "cup" in table[0][COLUMNS.index("claims")]
    assert "\u202e" not in "".join(map(str, table[0]))


def test_media_are_rare() -> None:
    assert [step for step in range(1, 50) if due(step)] == [1, 20, 40]


def test_histograms_count_every_group_and_completion() -> None:
    scored = scored_group(0, SAMPLE, INFO, TEXTS, [1.0, 3.0])
    found = step_histograms([scored, scored], (0, 2), worst_age=2, longest=40)
    assert found["histogram/staleness"] == Histogram((-0.5, 0.5, 1.5, 2.5), (1, 0, 1))
    assert found["histogram/length"].counts == (4,) + (0,) * (BINS - 1)
    assert sum(found["histogram/reward"].counts) == 4
    assert (found["histogram/reward"].edges[0], found["histogram/reward"].edges[-1]) == (1.0, 3.0)


@pytest.mark.parametrize("rewards", [[2.0, 2.0], [1.9999999, 2.0], [0.9, 0.90000004], [np.nan, 1.0], [np.nan, np.nan]])
def test_rewards_that_hardly_differ_or_are_unknown_have_a_histogram(rewards: list[float]) -> None:
    scored = scored_group(0, SAMPLE, INFO, TEXTS, rewards)
    found = step_histograms([scored], (0,), worst_age=0, longest=40)["histogram/reward"]
    assert sum(found.counts) == np.isfinite(rewards).sum()


def test_every_ratio_is_in_a_bin() -> None:
    ratios = torch.tensor([0.0, 0.4999, 0.5, 1.0, 1.0005, 1.5, 9.0, 1e8])
    found = dict(zip(EDGES, counts(ratios).tolist()))
    assert {edge: count for edge, count in found.items() if count} == {0.0: 2, 0.5: 1, 0.999: 2, 1.5: 1, 2.0: 2}
    assert counts(torch.zeros(0)).tolist() == [0] * (len(EDGES) - 1)
    assert list(EDGES) == sorted(EDGES)


def test_wandb_stores_them_offline_and_the_metrics_hold_the_same(tmp_path: Path) -> None:
    scored = scored_group(0, SAMPLE, INFO, TEXTS, [1.0, 0.0])
    with RunLog(tmp_path, {}) as log:
        assert log.shows_media
        log.log(1, {"histogram/length": Histogram((0.0, 1.0, 3.0), (2, 1))})
        log.show(1, pictures(scored, FRAMES), rows(1, scored))
    (line,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert line["histogram/length"] == {"edges": [0.0, 1.0, 3.0], "counts": [2, 1]}
    assert line["disk/wandb_failed"] == log._wandb.failed == 0
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    assert b"histogram" in content
    assert b"[0,1,3]" in content.replace(b" ", b"").replace(b".0", b""), "its edges"
    (files,) = tmp_path.glob("wandb/offline-run-*/files/media")
    assert len(list(files.rglob("*.jpg"))) == 2
    boxes = [json.loads(path.read_text()) for path in sorted(files.rglob("*.boxes2D.json"))]
    assert sorted(len(of_frame["box_data"]) for of_frame in boxes) == [1, 2]
    (table,) = files.rglob("*.table.json")
    assert len(json.loads(table.read_text())["data"]) == 2


def test_without_wandb_no_media_are_made(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, "disabled") as log:
        assert not log.shows_media
        log.log(1, {"histogram/length": Histogram((0.0, 1.0), (2,))})
