"""The record of a run's starts, against real git repositories."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestration.reporting.starts import STARTS, Code, code_of, record_start, recorded_starts
from orchestration.run_report.facts import code


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    argv = ["git", "-C", str(folder), *names, *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A file of a checkout with one commit, a tag on it, and an environment that it ignores."""
    file = tmp_path / "package/module.py"
    for path in (file, tmp_path / "venv/installed.py"):
        path.parent.mkdir()
        path.write_text("a = 1\n")
    (tmp_path / ".gitignore").write_text("venv\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "First")
    git(tmp_path, "tag", "-am", "a tag", "v1")
    return file


def test_the_commit_is_that_of_the_code_and_changes_after_it_are_told(module: Path, tmp_path: Path) -> None:
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert code_of(module) == Code(commit, False)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/metrics.jsonl").write_text("{}")
    assert code_of(module) == Code(commit, False), "what a run writes beside the code does not change it"
    module.write_text("a = 2\n")
    assert code_of(module) == Code(commit, True)


def test_code_that_no_checkout_tracks_has_no_commit(module: Path, tmp_path: Path) -> None:
    assert code_of(tmp_path / "venv/installed.py") == Code(), "or an environment would name the project around it"
    assert code_of(Path("/proc/self/status")) == Code()


def test_a_machine_without_git_starts_all_the_same(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert code_of(module) == Code()


def test_each_start_has_a_line_with_its_date_and_step(tmp_path: Path) -> None:
    assert recorded_starts(tmp_path) == []
    record_start(tmp_path, 0)
    with (tmp_path / STARTS).open("a") as file:
        file.write('{"step": 2')  # killed while writing
    record_start(tmp_path, 4)
    first, second = recorded_starts(tmp_path)
    assert (first["step"], second["step"]) == (0, 4)
    assert abs((datetime.fromisoformat(second["began"]) - datetime.now(UTC)).total_seconds()) < 60
    assert json.loads((tmp_path / STARTS).read_text().splitlines()[0]) == first


def test_the_report_says_what_is_not_committed() -> None:
    assert code({"commit": "ab12", "dirty": True}) == "ab12, with changes that are not committed"
    assert code({"commit": "ab12", "dirty": False}) == "ab12"
    assert code({"commit": None}) == "unknown: not a git checkout"
