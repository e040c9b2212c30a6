"""A small part of the chaos suite (`make chaos`): four kinds of faults in one start of a run, and a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checks import lost_and_doubled
from faults import Fault
from matrix import CHANGES, ENDS, KILLS, OTHERS, STOPS, Start, matching, starts
from suite import Suite, last_line

FAULTS = (
    Fault("in the step", "rank", "KILL"),
    Fault("generating", "engine_core", "KILL"),
    Fault("scoring", "referee", "KILL"),
    Fault("gathering", "decoder", "KILL"),
    Fault("checkpointing", "driver", "KILL"),
)


def test_every_fault_is_planned_once_and_each_start_ends_with_one_that_ends_it() -> None:
    planned = starts(0, matching("", ""))
    faults = [fault for start in planned for fault in start.faults]
    assert sorted(map(str, faults)) == sorted(map(str, (*KILLS, *STOPS, *OTHERS, *CHANGES, *ENDS)))
    assert all(start.faults[-1].target in ("driver", "raylet", "gcs") for start in planned)
    assert planned == starts(0, matching("", "")) != starts(1, matching("", ""))


def test_lost_and_doubled_groups_are_found_along_the_surviving_lineage() -> None:
    def move(group: int, state: str) -> dict[str, Any]:
        return {"group": group, "state": state}

    voided: list[dict[str, Any]] = [
        move(0, "trained"),
        {"checkpoint": 1},
        move(1, "trained"),
        {"lineage": 1, "step": 1, "version": 3},
    ]
    assert lost_and_doubled([*voided, move(1, "trained")], finished=True) == ([], [])
    assert lost_and_doubled([*voided, move(0, "trained"), move(2, "ready")], finished=False) == ([1], [0])
    assert lost_and_doubled([*voided, move(1, "ready")], finished=True) == ([1], [])


@pytest.mark.slow
def test_a_run_survives_faults_of_each_kind_and_a_resume(tmp_path: Path) -> None:
    suite = Suite(tmp_path, clips=40)
    suite.chain([Start(FAULTS)])
    line, well = last_line(suite)
    assert well, [str(result) for result in suite.results if result.problem] + [c.problems for c in suite.checks]
    assert line.startswith("faults survived 5 of 5, prompts lost 0, doubled 0, median recovery ")
