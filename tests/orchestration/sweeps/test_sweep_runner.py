"""How the runs of a sweep are started, watched, retried and left, with jobs whose endings a test chooses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_jobs import AGAIN, DONE, FakeJobs, Killed, begun, runs, statuses, sweep

from evidence.errors import BadInput, Interrupted, RunFailed
from orchestration.sweeps.expansion import SweepRun
from orchestration.sweeps.running import LOST_S, Signals, SweepRunner
from orchestration.sweeps.state import Ended, SweepState, read_state


def test_all_runs_are_started_in_order_and_at_most_so_many_at_once(tmp_path: Path) -> None:
    jobs = FakeJobs()
    state, problem = sweep(tmp_path / "s", jobs, count=5, parallel=2)
    assert problem is None
    assert [job.removeprefix(f"{state.id}-") for job in jobs.started] == [f"seed-{n}-1" for n in range(5)]
    assert jobs.most_at_once == 2
    assert {*statuses(tmp_path / "s").values()} == {"done"}


def test_a_run_is_told_its_folder_its_settings_and_its_group(tmp_path: Path) -> None:
    jobs = FakeJobs()
    sweep(tmp_path / "s", jobs, count=1)
    command = jobs.commands[jobs.started[0]]
    run_dir = tmp_path / "s/runs/seed-0"
    assert command.arguments[1:] == (
        *("-m", "orchestration", "train", "/c.yaml", "seed=0", f"run_dir={run_dir}", "resume=auto"),
    )
    assert command.environment == {"WANDB_RUN_GROUP": "s"}
    assert command.run_dir == run_dir


def test_a_failed_run_is_retried_then_marked_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = FakeJobs({"seed-0": [Ended("failed", "out of memory")] * 3, "seed-1": [Ended("failed", "node lost"), DONE]})
    state, problem = sweep(tmp_path / "s", jobs, count=3, retries=2)
    assert isinstance(problem, RunFailed)
    assert "1 of 3 runs failed: seed-0" in str(problem)
    assert f"{AGAIN} --retry-failed" in str(problem)
    assert statuses(tmp_path / "s") == {"seed-0": "failed", "seed-1": "done", "seed-2": "done"}
    assert [job[-8:] for job in jobs.started].count("seed-0-3") == 1
    assert len(jobs.started) == 3 + 2 + 1
    assert state.runs[0].reason == "out of memory"
    said = capsys.readouterr().err
    assert "seed-0: will be started again: out of memory" in said
    assert "seed-0: failed: out of memory" in said


def test_a_reason_reaches_the_terminal_and_the_state_without_its_escapes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = FakeJobs({"seed-0": [Ended("failed", "ser: \x1b]0;mine\x07\x1b[31mred\n" + "x" * 400)]})
    state, _ = sweep(tmp_path / "s", jobs, count=1, retries=0)
    assert re.fullmatch(r"ser: \ufffd\]0;mine\ufffd\ufffd\[31mred x{265,}…", state.runs[0].reason)
    assert len(state.runs[0].reason) == 300
    assert "\x1b" not in capsys.readouterr().err


def test_bad_input_is_not_tried_again(tmp_path: Path) -> None:
    jobs = FakeJobs({"seed-0": [Ended("bad_input", "no such file")]})
    _, problem = sweep(tmp_path / "s", jobs, count=1, retries=5)
    assert isinstance(problem, RunFailed)
    assert len(jobs.started) == 1


def test_an_interrupted_run_goes_on_and_does_not_count_as_failed(tmp_path: Path) -> None:
    interrupted = Ended("interrupted", "saved after step 5")
    jobs = FakeJobs({"seed-0": [interrupted, interrupted, Ended("lost")]}, {"seed-0": [5, 6, 7, 8]})
    state, problem = sweep(tmp_path / "s", jobs, count=1, retries=0)
    assert problem is None
    assert (state.runs[0].starts, state.runs[0].failures) == (4, 0)


def test_a_run_that_is_interrupted_before_it_takes_a_step_does_not_go_on_for_ever(tmp_path: Path) -> None:
    jobs = FakeJobs({"seed-0": [Ended("interrupted", "at once")] * 9})
    _, problem = sweep(tmp_path / "s", jobs, count=1, retries=2)
    assert isinstance(problem, RunFailed)
    assert len(jobs.started) == 3


def test_a_stopped_run_is_left_alone_until_the_next_sweep(tmp_path: Path) -> None:
    jobs = FakeJobs({"seed-1": [Ended("stopped", "its job was stopped")]})
    _, problem = sweep(tmp_path / "s", jobs, count=3)
    assert isinstance(problem, Interrupted)
    assert "stopped runs: seed-1" in str(problem)
    assert statuses(tmp_path / "s") == {"seed-0": "done", "seed-1": "stopped", "seed-2": "done"}
    _, problem = sweep(tmp_path / "s", jobs, count=3)
    assert problem is None
    assert len(jobs.started) == 4


@pytest.mark.parametrize("starts", [1, 2, 3, 4])
def test_a_killed_sweep_goes_on_and_starts_no_job_twice(tmp_path: Path, starts: int) -> None:
    jobs = FakeJobs()
    jobs.killed_after = starts
    with pytest.raises(Killed):
        sweep(tmp_path / "s", jobs)
    jobs.killed_after = None
    state, problem = sweep(tmp_path / "s", jobs)
    assert problem is None
    assert sorted(job.removeprefix(f"{state.id}-") for job in jobs.started) == [f"seed-{n}-1" for n in range(4)]


def test_a_job_that_was_never_started_or_is_gone_is_started_without_counting_as_failed(tmp_path: Path) -> None:
    jobs = FakeJobs()
    jobs.killed_after = 1
    with pytest.raises(Killed):
        sweep(tmp_path / "s", jobs, retries=0)
    fresh = FakeJobs()  # the cluster was started anew
    state, problem = sweep(tmp_path / "s", fresh, retries=0)
    assert problem is None
    assert fresh.started[0] == f"{state.id}-seed-0-1"
    assert state.runs[0].failures == 0


@pytest.mark.parametrize(
    ("began", "other", "part"),
    [
        ("http://a:8265", "node-1", "seed-0-1; go on with --address http://a:8265, or, once that job is gone for good"),
        ("node-1", "http://a:8265", "go on without --address on node-1"),
        ("node-1", "node-2", 'set "job" of the run to null in this file'),
    ],
)
def test_a_run_that_may_go_on_elsewhere_gets_no_second_job(tmp_path: Path, began: str, other: str, part: str) -> None:
    jobs = FakeJobs()
    jobs.killed_after, jobs.place = 1, began
    with pytest.raises(Killed):
        sweep(tmp_path / "s", jobs, count=2)
    state = begun(tmp_path / "s", runs(2))
    state.require_place(tmp_path / "s", began)
    with pytest.raises(BadInput, match=re.escape(part)) as error:
        state.require_place(tmp_path / "s", other)
    assert str(error.value).startswith(f"{tmp_path}/s/sweep.json: run seed-0 may still be running as ")
    state.runs[0].job = None  # as the message says
    state.write(tmp_path / "s")
    jobs.killed_after = None
    _, problem = sweep(tmp_path / "s", jobs, count=2)
    assert problem is None
    state.require_place(tmp_path / "s", other)


def test_a_job_whose_answer_was_lost_is_started_under_its_id_and_its_run_keeps_its_settings(tmp_path: Path) -> None:
    jobs = FakeJobs()
    jobs.answers_lost = 2
    with pytest.raises(RunFailed, match="the answer is lost"):
        sweep(tmp_path / "s", jobs, count=1, seconds=[0, LOST_S + 1])
    changed = [SweepRun("seed-0", "base", 0, ("seed=0", "steps=9"))]
    with pytest.raises(BadInput, match="its run seed-0 has seed=0"):
        begun(tmp_path / "s", changed)
    state, problem = sweep(tmp_path / "s", jobs, count=1)
    assert problem is None
    assert jobs.started == [f"{state.id}-seed-0-1"]
    assert state.runs[0].starts == 1


def test_finished_and_failed_runs_are_not_started_again(tmp_path: Path) -> None:
    sweep(tmp_path / "s", FakeJobs({"seed-0": [Ended("bad_input")]}), count=2)
    jobs = FakeJobs()
    _, problem = sweep(tmp_path / "s", jobs, count=3)
    assert isinstance(problem, RunFailed)
    assert [job[-8:] for job in jobs.started] == ["seed-2-1"]


def test_a_job_that_is_refused_is_a_failure_of_its_run_alone(tmp_path: Path) -> None:
    jobs = FakeJobs()
    jobs.refused = {"seed-1"}
    state, problem = sweep(tmp_path / "s", jobs, count=4, parallel=1, retries=2)
    assert isinstance(problem, RunFailed)
    assert statuses(tmp_path / "s") == {"seed-0": "done", "seed-1": "failed", "seed-2": "done", "seed-3": "done"}
    assert (state.runs[1].starts, state.runs[1].failures) == (3, 3)
    assert state.runs[1].reason == "http://a: refused it"


def test_a_cluster_that_does_not_answer_is_asked_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = FakeJobs()
    jobs.failing = 3
    state, problem = sweep(tmp_path / "s", jobs, count=2, seconds=[0, 1, LOST_S])
    assert problem is None
    assert [job.removeprefix(f"{state.id}-") for job in jobs.started] == ["seed-0-1", "seed-1-1"]
    assert capsys.readouterr().err.count("no answer; asked again for 300 s") == 1


def test_a_cluster_that_is_lost_ends_the_sweep(tmp_path: Path) -> None:
    jobs = FakeJobs()
    jobs.failing = 10**6
    with pytest.raises(RunFailed, match="no answer; jobs that run go on, and the same command finds them again"):
        sweep(tmp_path / "s", jobs, count=2, seconds=[0, 1, LOST_S + 1])


def test_a_sweep_that_goes_on_on_a_cluster_that_does_not_answer_ends_in_one_line(tmp_path: Path) -> None:
    jobs = FakeJobs()
    jobs.killed_after = 1
    with pytest.raises(Killed):
        sweep(tmp_path / "s", jobs)
    jobs.failing = 1
    with pytest.raises(RunFailed, match="no answer"):
        sweep(tmp_path / "s", jobs)
    assert statuses(tmp_path / "s")["seed-0"] == "running"


@pytest.mark.parametrize("stops", [True, False])
def test_a_signal_ends_the_sweep_with_its_jobs_recorded(tmp_path: Path, stops: bool) -> None:
    saved = Ended("interrupted", "saved")
    jobs = FakeJobs({"seed-0": [saved], "seed-1": [saved]} if stops else {"seed-0": [None], "seed-1": [None]})
    jobs.stops = stops
    (tmp_path / "s").mkdir()
    state = begun(tmp_path / "s", runs(3))
    signals = Signals()
    signals.count = 1
    with pytest.raises(Interrupted, match=f"0 of 3 runs are done; `{AGAIN}` goes on"):
        SweepRunner(state, tmp_path / "s", jobs, signals, 2, 0, look_s=0.0).run(AGAIN)
    now = "waiting" if stops else "running"
    assert statuses(tmp_path / "s") == {"seed-0": now, "seed-1": now, "seed-2": "waiting"}
    assert [run.failures for run in state.runs] == [0, 0, 0]


def left(folder: Path, endings: list[Ended], retries: int) -> tuple[SweepState, RunFailed | Interrupted | None]:
    """A sweep whose jobs have ended, each in its way, when it is left."""
    jobs = FakeJobs({f"seed-{n}": [ending] for n, ending in enumerate(endings)})
    jobs.stops = True
    folder.mkdir()
    state = begun(folder, runs(len(endings)))
    signals = Signals()
    signals.count = 1
    return state, SweepRunner(state, folder, jobs, signals, len(endings), retries, look_s=0.0).run(AGAIN)


def test_a_run_that_ends_by_itself_while_the_sweep_is_left_is_not_repeated(tmp_path: Path) -> None:
    state, problem = left(tmp_path / "a", [DONE, Ended("bad_input", "no such file"), Ended("failed", "full")], 0)
    assert statuses(tmp_path / "a") == {"seed-0": "done", "seed-1": "failed", "seed-2": "failed"}
    assert [run.reason for run in state.runs] == ["", "no such file", "full"]
    assert isinstance(problem, RunFailed)
    with pytest.raises(Interrupted, match="1 of 3 runs are done"):
        left(tmp_path / "b", [DONE, Ended("lost"), Ended("failed", "full")], 1)
    assert statuses(tmp_path / "b") == {"seed-0": "done", "seed-1": "waiting", "seed-2": "waiting"}
    after = read_state(tmp_path / "b")
    assert after is not None
    assert [run.failures for run in after.runs] == [0, 0, 1]
