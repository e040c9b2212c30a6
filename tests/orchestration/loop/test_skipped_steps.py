"""Steps that are not finite are logged and counted, and too many in a row end the run."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from evidence.errors import RunFailed
from orchestration.commands.sft import SftConfig, Stage, _train
from orchestration.commands.sft_rows import RowsReport
from orchestration.interruption import Interruption
from orchestration.loop.skipped_steps import SkippedSteps, shortened_list
from rollout.dataset.mix import DataShare

GOOD = {"loss": 0.5, "skipped": 0.0}
BAD = {"loss": math.nan, "skipped": 1.0, "seconds": 0.0}


def test_only_skips_in_a_row_end_a_run(caplog: pytest.LogCaptureFixture) -> None:
    skips = SkippedSteps(3)
    skipped = [skips.count(metrics, f"step {n}") for n, metrics in enumerate([BAD, BAD, GOOD, BAD, BAD])]
    assert skipped == [True, True, False, True, True]
    assert skips.total == 4
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["step 0", "step 1", "step 3", "step 4"]
    assert all(record.getMessage().endswith("(loss nan); the step is skipped") for record in caplog.records)
    with pytest.raises(
        RunFailed, match=r"^step 5, groups 7, 9: loss or gradient is not finite \(loss nan\), in 3 steps"
    ):
        skips.count(BAD, "step 5, groups 7, 9")


def test_of_many_names_the_first_and_the_number_of_others_are_given() -> None:
    assert shortened_list(["a", "b", "c", "d"]) == "a, b, c, d"
    assert shortened_list(["a", "b", "c", "d", "e"]) == "a, b, c, d and 1 more"
    assert shortened_list(["a", "b", "c", "d", "e", "f"]) == "a, b, c, d and 2 more"


def test_a_warm_start_names_the_clips_of_a_skipped_step(
    ray_cluster: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = [f"{n}.mp4" for n in range(6)]
    rows = SimpleNamespace(remote=lambda stage, step: [None, ray.put(RowsReport(clips[step:], [], [], {}))])
    source = SimpleNamespace(micro_batches=SimpleNamespace(options=lambda num_returns: rows))
    gang = SimpleNamespace(train_step=lambda parts, rate: BAD)
    config = SftConfig(stages=[Stage([DataShare("a")], 9)], ranks=1, max_skipped=2, wandb="disabled")
    with pytest.raises(RunFailed, match=r"^step 2, clips 1.mp4, 2.mp4, 3.mp4, 4.mp4 and 1 more: loss or gradient"):
        _train(config, tmp_path, gang, source, {"step": 0, "data": {}}, Interruption())
    (warning,) = (record.getMessage() for record in caplog.records if "skipped" in record.getMessage())
    assert warning.startswith("step 1, clips 0.mp4, 1.mp4, 2.mp4, 3.mp4 and 2 more: ")
