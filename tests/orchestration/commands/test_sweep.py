"""`ser sweep` as a command, with a small program in place of `ser train`."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import sys
from pathlib import Path

import pytest

from orchestration import cli
from orchestration.sweeps import running

ROOT = Path(__file__).parents[3]
QUICKSTART = ROOT / "configs/experiment/quickstart.yaml"
# Writes what a run leaves. A seed that the environment names fails.
PROGRAM = """
import json, os, sys
from pathlib import Path
given = dict(text.split("=", 1) for text in sys.argv[3:])
folder, seed = Path(given["run_dir"]), int(given["seed"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.yaml").write_text("steps: 2\\n")
(folder / "lock").touch()
if given["seed"] in os.environ.get("FAILING", "").split(","):
    print("ser: this seed fails")
    raise SystemExit(1)
lr = float(given.get("learner.schedule.lr", 0))
lines = [{"step": step, "reward": seed + lr} for step in (1, 2)]
(folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
(folder / "group").write_text(os.environ["WANDB_RUN_GROUP"])
(folder / "summary.json").write_text(json.dumps({"reward_after": seed + lr, "wall_s": 1.0}))
"""


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(
        running,
        "train_command",
        lambda config, overrides: (sys.executable, str(path), "train", str(config), *overrides),
    )
    monkeypatch.setattr(
        running.SweepRunner.__init__, "__defaults__", (0.05, *running.SweepRunner.__init__.__defaults__[1:])
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"config: {os.path.relpath(QUICKSTART, tmp_path)}\nsweep_dir: {tmp_path}/mine\n"
        "grid: {learner.schedule.lr: [1e-4, 3e-4]}\nseeds: [0, 1]\nparallel: 2\nretries: 0\n"
    )
    return path


def test_a_sweep_runs_all_and_compares_them(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", str(file), "steps=2"]) == 0
    out, err = capsys.readouterr()
    assert "mine: 4 runs, 4 waiting" in err
    assert "lr-3e-4_seed-1: done" in err
    assert "means over seeds, 95% interval" in out
    assert "differences from lr-1e-4, on common seeds" in out
    folder = tmp_path / "mine"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [row["run"] for row in rows] == [f"lr-{lr}_seed-{seed}" for lr in ("1e-4", "3e-4") for seed in (0, 1)]
    assert {row["status"] for row in rows} == {"done"}
    results = json.loads((folder / "results.json").read_text())
    (difference,) = [row for row in results["differences"] if row["metric"] == "greedy/reward_after"]
    assert difference["difference"] == pytest.approx(2e-4)
    assert (folder / "runs/lr-1e-4_seed-0/group").read_text() == "mine"
    assert "lr-3e-4_seed-1" in (folder / "report.html").read_text()
    assert out.splitlines()[-3:] == [str(folder / name) for name in ("results.csv", "results.json", "report.html")]


def test_failed_runs_are_named_and_can_be_started_again(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILING", "1")
    assert cli.main(["sweep", str(file), "--parallel", "1"]) == 1
    out, err = capsys.readouterr()
    assert "lr-1e-4_seed-1: failed: ser: this seed fails" in err
    assert "2 of 4 runs failed: lr-1e-4_seed-1, lr-3e-4_seed-1" in err.splitlines()[-1]
    assert f"`ser sweep {file} --parallel 1 --retry-failed` goes on with them" in err.splitlines()[-1]
    assert "failed" in out
    monkeypatch.delenv("FAILING")
    assert cli.main(["sweep", str(file)]) == 1, "they are left as they are"
    capsys.readouterr()
    assert cli.main(["sweep", str(file), "--retry-failed", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [run["status"] for run in results["runs"]] == ["done"] * 4
    assert sorted(path.name[-8:] for path in (tmp_path / "mine/logs").iterdir()) == sorted(
        [*["ed-0-1.log"[-8:]] * 2, *["ed-1-1.log"[-8:], "ed-1-2.log"[-8:]] * 2]
    )


def test_a_dry_run_lists_the_runs_with_their_faults_and_writes_nothing(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", str(file), "steps=2", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "lr-1e-4_seed-0: steps=2 seed=0 learner.schedule.lr=1e-4\n  its config is valid\n" in out
    assert out.endswith("4 runs\n")
    file.write_text(file.read_text().replace("3e-4", "fast"))
    assert cli.main(["sweep", str(file), "--dry-run", "--json"]) == 2
    out, err = capsys.readouterr()
    listed = json.loads(out)
    assert [run["problem"] is None for run in listed] == [True, True, False, False]
    assert "learner.schedule.lr = 'fast': must be a number" in listed[2]["problem"]
    assert "run lr-fast_seed-0 is refused, and 1 more: " in err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("before", "after", "arguments", "part"),
    [
        ("learner.schedule.lr", "learner.schedule.lrr", [], "unknown key learner.schedule.lrr; the nearest"),
        ("[1e-4, 3e-4]", "[1e-4, 0.0001]", [], "its config is that of run lr-1e-4_seed-0; leave one out"),
        ("grid:", "gird:", [], "unknown key gird; the nearest known one is grid"),
        ("quickstart.yaml", "quickstrat.yaml", [], "no such file"),
        ("", "", ["seed=3"], "override seed=…: seeds of the sweep sets this key"),
        ("", "", ["--dry-run", "--results"], "not allowed with"),
        ("", "", ["--results"], "holds no sweep.json; no run of this sweep has begun"),
        ("", "", ["--parallel", "0"], "parallel = 0: must be 1 or more"),
        ("", "", ["--address", "127.0.0.1"], "must be the URL of a Ray dashboard"),
        ("", "", ["--dir", "{file}"], "is a file; name a folder"),
    ],
)
def test_faults_are_found_before_anything_starts(
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: str,
    after: str,
    arguments: list[str],
    part: str,
) -> None:
    file.write_text(file.read_text().replace(before, after) if before else file.read_text())
    assert cli.main(["sweep", str(file), *(text.format(file=file) for text in arguments)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err
    assert not (tmp_path / "mine").exists()


def test_a_run_that_has_begun_keeps_the_contents_of_its_config(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(f"include: [{os.path.relpath(QUICKSTART, tmp_path)}]\n")
    text = file.read_text().replace(os.path.relpath(QUICKSTART, tmp_path), "base.yaml")
    file.write_text(text.replace("[0, 1]", "[0]"))
    assert cli.main(["sweep", str(file)]) == 0
    base.write_text(base.read_text() + "# a remark\n")
    assert cli.main(["sweep", str(file)]) == 0
    capsys.readouterr()
    base.write_text(base.read_text() + "steps: 7\n")
    assert cli.main(["sweep", str(file)]) == 2
    error = capsys.readouterr().err
    assert f"its run lr-1e-4_seed-0 began with other contents of {base}" in error
    assert error.count("\n") == 1


def test_a_sweep_has_one_process_and_keeps_its_settings_and_its_results_can_be_shown(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", str(file)]) == 0
    with (tmp_path / "mine/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli.main(["sweep", str(file), "--results"]) == 0
        assert "lr-3e-4_seed-1" in capsys.readouterr().out
        assert cli.main(["sweep", str(file)]) == 1, "it may be free when it is tried again"
        assert f"sweep_dir = {tmp_path}/mine: another process is running in it" in capsys.readouterr().err
    assert cli.main(["sweep", str(file), "steps=7"]) == 2
    error = capsys.readouterr().err
    assert "its run lr-1e-4_seed-0 has seed=0 learner.schedule.lr=1e-4; name another sweep_dir" in error
    state = json.loads((tmp_path / "mine/sweep.json").read_text())
    state["runs"][0] |= {"status": "running", "job": "mine-1", "place": "http://head:8265"}
    (tmp_path / "mine/sweep.json").write_text(json.dumps(state))
    assert cli.main(["sweep", str(file)]) == 2
    error = capsys.readouterr().err
    assert "run lr-1e-4_seed-0 may still be running as mine-1; go on with --address http://head:8265" in error
