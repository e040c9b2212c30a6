"""Promises 1 and 3 with real engines, referee and ranks: at staleness 0 the asynchronous loop trains, bit for bit, what
a plain loop trains, and so does a run that is killed and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from same_loop import GROUPS_PER_STEP, differences, lines

from orchestration import cli

pytestmark = pytest.mark.slow
STEPS = 6


def test_a_run_killed_and_resumed_trains_what_a_plain_loop_trains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert differences(tmp_path, STEPS, [4]) == []
    # Step 3 was trained, lost and trained again.
    assert [line["step"] for line in lines(tmp_path / "run.jsonl")] == [1, 2, 3, 3, 4, 5, 6]

    capsys.readouterr()
    assert cli.main(["ledger", str(tmp_path / "run"), "--json"]) == 0
    groups = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(g["group"], g["state"], g["step"], g["lineage"]) for g in groups] == [
        (group, "trained", group // GROUPS_PER_STEP + 1, 0 if group < 2 * GROUPS_PER_STEP else 1)
        for group in range(GROUPS_PER_STEP * STEPS)
    ]
    evaluated = [(line["step"], line["version"], line["n"]) for line in lines(tmp_path / "run/eval.jsonl")]
    # Step 2 is not evaluated again. Its weights were then published as version 4, after the lost step 3.
    assert evaluated == [(2, 2, 2), (4, 6, 2), (6, 8, 2)]
    metrics = lines(tmp_path / "run/metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, STEPS + 1))
    assert all(line["staleness/max"] == 0 for line in metrics)
