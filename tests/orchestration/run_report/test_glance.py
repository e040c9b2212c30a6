"""What a run's folder shows at a glance: its state and how it is known."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from orchestration.run_report.glance import glance, last_step, run_folders


def make(
    folder: Path, steps: int = 0, saved: int | None = None, summary: bool = False, config: str = "steps: 9\n"
) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    (folder / "lock").touch()
    lines = [json.dumps({"step": step, "seconds": 1.0, "reward": step / 10}) + "\n" for step in range(1, steps + 1)]
    if lines:
        (folder / "metrics.jsonl").write_text("".join(lines))
    if saved is not None:
        (folder / "checkpoints").mkdir()
        (folder / f"checkpoints/step-{saved:06d}.json").write_text("{}")
    if summary:
        (folder / "summary.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("steps", "saved", "summary", "state", "how"),
    [
        (9, 9, True, "done", "it wrote summary.json"),
        (5, 5, False, "interrupted", "no process holds its folder, and its last step is saved"),
        (5, 3, False, "failed", "no process holds its folder, and its newest checkpoint is of step 3"),
        (5, None, False, "failed", "no process holds its folder, and it has no checkpoint"),
        (0, None, False, "failed", "no process holds its folder, and it took no step"),
    ],
)
def test_the_state_is_told_by_the_files(
    tmp_path: Path, steps: int, saved: int | None, summary: bool, state: str, how: str
) -> None:
    seen = glance(make(tmp_path / "run", steps, saved, summary))
    assert (seen.state, seen.how, seen.step, seen.planned) == (state, how, steps, 9)
    assert seen.reward == (steps / 10 if steps else None)


def test_a_run_that_goes_on_is_running_also_if_it_has_finished_before(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", 9, 9, summary=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert glance(folder).state == "running"
    assert glance(folder).state == "done"


def test_a_torn_line_and_files_that_cannot_be_read_leave_values_unknown(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", 2, config="steps: [")
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 3, "rew')
    seen = glance(folder)
    assert (seen.step, seen.reward, seen.planned) == (2, 0.2, None)
    (folder / "metrics.jsonl").write_text("nonsense\n")
    assert last_step(folder) == 0
    assert last_step(tmp_path / "nothing") == 0


def test_the_age_is_that_of_the_newest_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", 2)
    os.utime(folder / "config.yaml", (100, 100))
    os.utime(folder / "metrics.jsonl", (200, 200))
    assert glance(folder, now=260.0).age_s == 60.0


def test_a_folder_that_cannot_be_read_does_not_hide_those_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests may run as root, who can read everything, so the system's refusal is imitated."""
    for name in "abc":
        make(tmp_path / name)
    stat = os.stat

    def refusing(path: Path, **options: bool) -> os.stat_result:
        if tmp_path / "b" in Path(path).parents:
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refusing)
    assert [run.name for run in run_folders(tmp_path)] == ["a", "c"]


def test_runs_are_found_below_a_folder_in_order_and_not_within_runs(tmp_path: Path) -> None:
    for name in ("b", "a/deep/run", "a/other"):
        make(tmp_path / name)
    make(tmp_path / "b/evaluations/inner")
    (tmp_path / "c").mkdir()
    (tmp_path / "c/config.yaml").write_text("no: run")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [str(run.relative_to(tmp_path)) for run in run_folders(tmp_path)] == ["a/deep/run", "a/other", "b"]
    assert list(run_folders(tmp_path / "b")) == [tmp_path / "b"]
