"""The metrics log, the terminal output and the numbers of the summary, against cases worked by hand."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from evaluations import evaluation
from full_disk import room
from rich.console import Console

from evaluation.comparison import comparison
from evidence.files import is_failed_write
from orchestration.reporting.metrics import Progress, RunLog, print_summary
from orchestration.reporting.summary import RunFacts, installed_versions, training, write_summary


def lines(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_record_is_on_disk_when_log_returns(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with RunLog(run_dir, {}, "disabled") as log:
        log.log(0, {"loss": np.float32(0.5), "ages": np.array([1, 2]), "per_term": {"ser": 1}})
        (first,) = lines(run_dir)
    assert {key: first[key] for key in ("step", "loss", "ages", "per_term")} == {
        "step": 0,
        "loss": 0.5,
        "ages": [1, 2],
        "per_term": {"ser": 1},
    }
    assert 0 <= first["seconds"] < 60


def test_a_full_disk_ends_no_run_and_is_counted(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, "disabled") as log:
        samples = log.add_file("samples.jsonl")
        log.log(1, {"loss": 1.0})
        with room(100):
            for step in (2, 3):
                log.log(step, {"text": "x" * 200})
                samples.write(["{}" + " " * 200, "{}"])
            assert not log.sync(), "or a checkpoint would outlive the lines of its steps"
        assert [line["step"] for line in lines(tmp_path)] == [1]
        log.log(4, {"loss": 1.0})
        assert log.sync()
    disk = [(line["step"], line["disk/failed_writes"], line["disk/waiting_lines"]) for line in lines(tmp_path)]
    assert disk == [(1, 0, 0), (2, 0, 0), (3, 2, 3), (4, 6, 6)]  # two of the failures by sync
    assert len((tmp_path / "samples.jsonl").read_text().splitlines()) == 4


def test_a_run_directory_that_is_gone_is_named(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "run", {}, "disabled")
    shutil.rmtree(tmp_path / "run")
    for end in (lambda: log.log(1, {"loss": 1.0}), log.close):
        with pytest.raises(FileNotFoundError) as raised:
            end()
        assert str(raised.value.filename) == str(tmp_path / "run/metrics.jsonl")
        assert is_failed_write(raised.value)


def test_a_resumed_run_drops_the_lines_of_steps_it_will_repeat(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, "disabled") as log:
        for step in (1, 2, 3):
            log.log(step, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    with RunLog(tmp_path, {}, "disabled", resumed_from=2) as log:
        log.log(3, {"loss": 2.0})
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_numbers_that_are_not_finite_are_written_as_null(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, "disabled") as log:
        log.log(1, {"grad_norm": float("nan"), "loss": -np.inf, "ratios": np.array([1.0, np.inf])})

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    record = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=no_constant)
    assert (record["grad_norm"], record["loss"], record["ratios"]) == (None, None, [1.0, None])


def test_a_step_below_the_last_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, "disabled") as log:
        log.log(2, {"loss": 1.0})
        with pytest.raises(ValueError, match="step 1 come after those of step 2"):
            log.log(1, {"loss": 1.0})
        log.log(2, {"other": 1.0})
    assert [record["step"] for record in lines(tmp_path)] == [2, 2]


def test_wandb_offline_holds_metrics_and_config_without_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "no_account"))
    with RunLog(tmp_path / "run", {"learner": {"lr_of_ser": 0.1}}) as log:
        log.log(1, {"reward_of_ser": 0.5})
    (stored,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    assert b"reward_of_ser" in content
    assert b"lr_of_ser" in content
    assert capfd.readouterr() == ("", "")


def test_without_a_terminal_each_step_is_one_plain_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.reporting.metrics.time.monotonic", lambda: 1000.0)
    out = io.StringIO()
    with Progress(total=40, done=9, console=Console(file=out, width=20)) as progress:
        progress.update(10, "reward 0.250  staleness 0.50  12.3 samples/s")
        progress.update(40, "reward 0.500  staleness 1.00  8.0 samples/s")
    first, last = out.getvalue().splitlines()
    assert first == "step 10/40  reward 0.250  staleness 0.50  12.3 samples/s  0:00 left"
    assert last == "step 40/40  reward 0.500  staleness 1.00  8.0 samples/s  0:00 left"


def test_the_time_left_is_estimated_from_the_steps_of_this_run_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([1000.0, 1060.0])
    monkeypatch.setattr("orchestration.reporting.metrics.time.monotonic", lambda: next(now))
    out = io.StringIO()
    progress = Progress(total=135, done=5, console=Console(file=out))
    progress.update(15, "loss 1.0")
    # 60 s for 10 steps, 120 steps to go: 720 s.
    assert "12:00 left" in out.getvalue()


def test_on_a_terminal_the_bar_shows_the_last_step() -> None:
    out = io.StringIO()
    with Progress(total=3, console=Console(file=out, force_terminal=True, width=120)) as progress:
        for step in (1, 2, 3):
            progress.update(step, f"reward {step / 4:.3f}")
    assert "3/3" in out.getvalue()
    assert "reward 0.750" in out.getvalue()


# The summary.


FACTS = RunFacts(ages={0: 1, 1: 2, 2: 1}, staleness_bound=2, wall_s=61.5, versions={"torch": "2.13.0"})


def test_the_summary_equals_a_case_worked_by_hand() -> None:
    before = evaluation([0.0, 0.5, 0.5, 1.0])
    after = evaluation(
        [0.25, 0.75, 0.75, 1.25], accuracy=[1, 1, 1, 1], valid_claims=[1, 1, 1, 1], box_area=[float("nan")] * 4
    )
    assert training(FACTS) | comparison(before, after) == {
        "heldout_clips": 4,
        "reward_before": 0.5,
        "reward_after": 0.75,
        "reward_ci95": [0.25, 0.25],
        "accuracy_before": 0.75,
        "accuracy_after": 1.0,
        "accuracy_ci95": [pytest.approx(0.0), pytest.approx(0.75)],
        "iou_before": 0.25,
        "iou_after": 0.25,
        "iou_ci95": [0.0, 0.0],
        "claims_before": 2.0,
        "claims_after": 2.0,
        "valid_claim_share_before": 0.75,
        "valid_claim_share_after": 1.0,
        "box_area_before": pytest.approx(0.2),
        "box_area_after": None,
        "trained_groups": 4,
        "staleness_mean": 1.0,
        "staleness_max": 2,
        "staleness_bound": 2,
        "wall_s": 61.5,
        "versions": {"torch": "2.13.0"},
    }


def test_different_clips_and_runs_without_training_are_refused() -> None:
    before = evaluation([0, 0, 0, 0])
    with pytest.raises(ValueError, match="not the same clips"):
        comparison(before, evaluation([0, 0, 0, 0], clips=("b", "a", "c", "d")))
    with pytest.raises(ValueError, match="no group was trained"):
        training(RunFacts({}, 2, 1.0, {}))


def test_the_summary_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    report = comparison(evaluation([0, 0, 0, 1]), evaluation([0, 0, 1, 1]))
    write_summary(path, report)
    assert json.loads(path.read_text()) == report
    with pytest.raises(TypeError):
        write_summary(path, report | {"reward_after": object()})
    assert json.loads(path.read_text()) == report
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_the_versions_of_all_five_packages_are_known() -> None:
    versions = installed_versions()
    assert set(versions) == {"ray", "vllm", "deepspeed", "torch", "transformers"}
    assert "unknown" not in versions.values()


def test_the_closing_table_shows_every_number_and_the_run_directory(tmp_path: Path) -> None:
    out = io.StringIO()
    after = evaluation([0, 0, 1, 1], box_area=[float("nan")] * 4)
    report = training(FACTS) | comparison(evaluation([0, 0, 0, 1]), after) | {"bound": "Referee-bound: it waits."}
    print_summary(report, tmp_path / ("long" * 40), Console(file=out, width=80))
    text = out.getvalue()
    assert str(tmp_path / ("long" * 40)) + "\n" in text, "the path is not wrapped, so it can be copied"
    for expected in (
        "0.250",
        "0.500",
        "+0.000 to +0.750",
        "4 groups trained in 1:02",
        "worst 2, bound 2",
        "Referee-bound: it waits.",
    ):
        assert expected in text


def test_box_iou_is_a_dash_where_no_clip_is_labelled(tmp_path: Path) -> None:
    out = io.StringIO()
    unlabelled = evaluation([0, 0, 0, 1], iou=[float("nan")] * 4)
    print_summary(training(FACTS) | comparison(unlabelled, unlabelled), tmp_path, Console(file=out, width=80))
    (row,) = [line for line in out.getvalue().splitlines() if "box IoU" in line]
    assert [column.strip() for column in row.strip("│").split("│")] == ["box IoU", "-", "-", ""]


def test_without_held_out_clips_only_the_training_is_summarised(tmp_path: Path) -> None:
    out = io.StringIO()
    print_summary(training(FACTS), tmp_path, Console(file=out, width=200))
    assert out.getvalue().startswith("4 groups trained in 1:02")
    assert str(tmp_path) in out.getvalue()
