"""`ser runs`: the table, its JSON, and what a sweep knows about its runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fake_jobs import begun

from orchestration import cli
from orchestration.sweeps.expansion import SweepRun


def make(folder: Path, steps: int = 0, summary: bool = False) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("steps: 4\n")
    lines = [json.dumps({"step": step, "reward": 0.5}) + "\n" for step in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(lines))
    if summary:
        (folder / "summary.json").write_text("{}")


def listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert cli.main(["runs", str(folder), "--json"]) == 0
    return {line["run"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}


def test_the_table_has_a_row_per_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a", 4, summary=True)
    make(tmp_path / "deep/b", 1)
    assert cli.main(["runs", str(tmp_path)]) == 0
    rows = [line.split("│") for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows]
    assert cells[0][:4] == ["a", "done", "4 of 4", "0.500"]
    assert cells[1][:4] == ["deep/b", "failed", "1 of 4", "0.500"]
    assert cells[0][4].endswith("s ago")
    assert cells[1][5] == "no process holds its folder, and it has no checkpoint"


def test_a_single_run_may_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a", 2)
    (row,) = listed(tmp_path / "a", capsys).values()
    assert row | {"age_s": 0} == {
        **{"run": "a", "state": "failed", "how": "no process holds its folder, and it has no checkpoint"},
        **{"step": 2, "planned": 4, "reward": 0.5, "age_s": 0},
    }


def test_a_sweep_knows_the_exit_code_and_jobs_of_other_machines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    statuses = {
        "away": "running",
        "here": "running",
        "broken": "failed",
        "stopped": "stopped",
        "done": "failed",
        "new": "waiting",
    }
    state = begun(tmp_path, [SweepRun(name, name, None, ()) for name in statuses])
    for record, status in zip(state.runs, statuses.values()):
        record.status, record.reason = status, "out of memory"  # type: ignore[assignment]
        record.place = "node-1" if record.name == "here" else "http://head:8265"
    state.write(tmp_path)
    for name in statuses:
        make(tmp_path / "runs" / name, 1, summary=name == "done")
    found = {name.removeprefix("runs/"): (row["state"], row["how"]) for name, row in listed(tmp_path, capsys).items()}
    assert found["away"] == ("running", "by sweep.json")
    assert found["here"] == ("failed", "no process holds its folder, and it has no checkpoint")
    assert found["broken"] == ("failed", "by sweep.json: out of memory")
    assert found["stopped"] == ("interrupted", "by sweep.json: out of memory")
    assert found["done"] == ("done", "it wrote summary.json")
    assert found["new"][0] == "failed"


def test_names_and_reasons_are_shown_as_they_are_without_hidden_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = begun(tmp_path, [SweepRun("a", "a", None, ())])
    state.runs[0].status, state.runs[0].reason = "failed", "FileNotFoundError: [/data/x.json] [bold]:smile:"
    state.write(tmp_path)
    make(tmp_path / "runs/a", 1)
    make(tmp_path / "[red]\x1b[31m", 1)
    assert cli.main(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "[/data/x.json] [bold]:smile:" in out
    assert "[red]\N{REPLACEMENT CHARACTER}[31m" in out


def test_the_command_starts_fast(tmp_path: Path) -> None:
    make(tmp_path / "a", 2)
    code = (
        f"import sys; from orchestration.cli import main; main(['runs', {str(tmp_path)!r}]); "
        "sys.exit(str([m for m in ('torch', 'vllm', 'ray', 'transformers') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"


def test_a_folder_without_runs_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for folder, part in (("", "holds no run"), ("file", "is a file"), ("none", "no such folder")):
        assert cli.main(["runs", str(tmp_path / folder)]) == 2
        error = capsys.readouterr().err
        assert part in error
        assert error.count("\n") == 1
