"""sweep.json: what it keeps of each run, and which sweeps may go on with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_jobs import FakeJobs, begun, runs, sweep

from evidence.errors import BadInput
from orchestration.sweeps.expansion import SweepRun
from orchestration.sweeps.state import SWEEP, read_state


@pytest.mark.parametrize(
    ("config", "digest", "changed", "part"),
    [
        ("/other.yaml", "d", runs(2), "its config is /c.yaml, not /other.yaml"),
        ("/c.yaml", "d", runs(2)[1:], "its run seed-0 is not among the runs of this one"),
        ("/c.yaml", "d", [SweepRun("seed-0", "base", 0, ("seed=0", "steps=9"))], "its run seed-0 has seed=0"),
        ("/c.yaml", "e", runs(2), "its run seed-0 began with other contents of /c.yaml, or of what that includes"),
    ],
)
def test_a_run_that_has_begun_never_gets_other_settings(
    tmp_path: Path, config: str, digest: str, changed: list[SweepRun], part: str
) -> None:
    sweep(tmp_path / "s", FakeJobs(), count=1)
    with pytest.raises(BadInput) as error:
        begun(tmp_path / "s", changed, config, digest)
    assert part in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/s/sweep.json: belongs to another sweep: ")
    assert str(error.value).endswith("; name another sweep_dir, or restore the sweep's settings")


def test_the_order_of_settings_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    state = begun(tmp_path / "s", [SweepRun("a", "a", None, ("steps=5", "seed=1"))])
    state.runs[0].starts = 1
    state.write(tmp_path / "s")
    assert begun(tmp_path / "s", [SweepRun("a", "a", None, ("seed=1", "steps=5"))]).runs[0].starts == 1


def test_a_run_that_has_begun_is_found_behind_one_that_has_not(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    state = begun(tmp_path / "s", runs(2))
    state.runs[1].starts = 1
    state.write(tmp_path / "s")
    with pytest.raises(BadInput, match="its run seed-1 is not among"):
        begun(tmp_path / "s", runs(1))


def test_the_state_names_arms_and_seeds_and_its_id_is_of_this_sweep_alone(tmp_path: Path) -> None:
    folder = tmp_path / f"My sweep {'x' * 60}"
    states = [begun(folder, runs(2)) for _ in range(2)]
    assert [(run.arm, run.seed) for run in states[0].runs] == [("base", 0), ("base", 1)]
    assert re.fullmatch(r"My-sweep-x{31}-[0-9a-f]{8}", states[0].id)
    assert states[0].id != states[1].id


def test_runs_can_be_added_and_those_that_have_not_begun_changed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    begun(tmp_path / "s", runs(1)).write(tmp_path / "s")
    other = [SweepRun("seed-0", "base", 0, ("seed=0", "steps=9")), *runs(2)[1:]]
    state = begun(tmp_path / "s", other)
    assert [run.overrides for run in state.runs] == [["seed=0", "steps=9"], ["seed=1"]]


@pytest.mark.parametrize(
    ("text", "part"), [("{", "cannot be read"), ('{"format": 0}', "another version"), ("3", "ano")]
)
def test_a_state_that_cannot_be_read_is_refused(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / SWEEP).write_text(text)
    with pytest.raises(BadInput, match=part):
        read_state(tmp_path)
