"""Which checkpoint is the best, that it is kept, and what a resume makes of it."""

from __future__ import annotations

import json
from pathlib import Path

from learner.best_checkpoint import BEST, BestCheckpoint
from learner.checkpoints import CheckpointConfig, checkpoints, prune_checkpoints, record_of, step_of

CONFIG = CheckpointConfig(keep=1, best="heldout/reward")


def save(folder: Path, best: BestCheckpoint, step: int) -> None:
    """What CheckpointWriter does once a checkpoint is whole."""
    record_of(folder, step).write_text("{}")
    prune_checkpoints(folder, best.config, best.kept)


def kept(folder: Path) -> list[int]:
    return [step_of(record) for record in checkpoints(folder)]


def test_the_best_one_stays_beside_the_newest_and_one_that_is_measured_until_it_is(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, CONFIG)
    for step, value in ((2, 0.1), (4, 0.7), (6, 0.3)):
        best.wait_for(step)
        save(tmp_path, best, step)
        save(tmp_path, best, step + 1)
        assert step in kept(tmp_path), "its evaluation has not ended"
        best.measured(step, value)
        best.settle()
    assert json.loads((tmp_path / BEST).read_text()) == {"step": 4, "metric": "heldout/reward", "value": 0.7}
    save(tmp_path, best, 8)
    assert kept(tmp_path) == [4, 8]


def test_the_lowest_value_can_be_the_best(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, CheckpointConfig(best="heldout/box_area", best_is="lowest"))
    for step, value in ((2, 0.4), (4, 0.1), (6, 0.2)):
        best.wait_for(step)
        save(tmp_path, best, step)
        best.measured(step, value)
        best.settle()
    assert best.best is not None
    assert best.best.step == 4


def test_a_step_without_a_checkpoint_or_a_value_is_not_the_best(tmp_path: Path) -> None:
    best = BestCheckpoint(tmp_path, CONFIG)
    best.wait_for(2)
    best.measured(2, 0.9)
    best.settle(writing=2)
    assert best.kept == {2}, "the evaluation has ended before the checkpoint is written"
    best.settle()
    assert (best.best, best.kept) == (None, set()), "which could not be written"
    for value in (None, float("nan")):
        best.wait_for(4)
        save(tmp_path, best, 4)
        best.measured(4, value)
        best.settle()
    assert (best.best, best.kept) == (None, set())


def test_a_lineage_begins_with_the_best_of_the_checkpoints_that_it_still_has(tmp_path: Path) -> None:
    (tmp_path / BEST).write_text('{"step": 6}')  # of a lineage that is abandoned
    for step in (2, 3):
        record_of(tmp_path, step).write_text("{}")
    best = BestCheckpoint(tmp_path, CONFIG)
    best.restore({1: 0.9, 2: 0.5, 3: 0.4})
    assert json.loads((tmp_path / BEST).read_text())["step"] == 2
    assert best.kept == {2}
    best.restore({})
    assert not (tmp_path / BEST).exists()
