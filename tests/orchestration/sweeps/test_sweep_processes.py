"""The runs of a sweep as real processes, with a small program in place of `ser train`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestration.sweeps.launching import Command
from orchestration.sweeps.processes import Processes, process_of
from orchestration.sweeps.state import Ended, RunRecord

# Ends with 75 at the first signal, as a run that has saved a checkpoint.
LASTING = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(75)))\n"
    "print('ready', flush=True); time.sleep(60)"
)


def command(run_dir: Path, program: str) -> Command:
    return Command(run_dir, (sys.executable, "-c", program, "train", f"run_dir={run_dir}"), {"SER_TEST": "seen"})


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    return Processes(tmp_path / "logs", lambda: 1)


def wait_for(what: Callable[[], object]) -> object:
    end = time.monotonic() + 30
    while not (value := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return value


@pytest.mark.parametrize(
    ("program", "ended"),
    [
        ("print('all well')", Ended("done")),
        ("print('a\\nser: out of memory\\n'); raise SystemExit(1)", Ended("failed", "ser: out of memory")),
        ("raise SystemExit(2)", Ended("bad_input", "exit code 2")),
        ("print('ser: saved'); raise SystemExit(75)", Ended("interrupted", "ser: saved")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", Ended("interrupted", "exit code -15")),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", Ended("failed", "exit code -9")),
        ("import os; raise SystemExit(0 if os.environ['SER_TEST'] == 'seen' else 9)", Ended("done")),
    ],
)
def test_the_exit_code_and_the_last_line_say_how_a_run_ended(
    processes: Processes, tmp_path: Path, program: str, ended: Ended
) -> None:
    run = command(tmp_path / "run", program)
    processes.start("job", run)
    assert wait_for(lambda: processes.ended("job", run)) == ended
    assert Path(processes.where("job")).is_file()


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[Command]:
    """A run of a sweep that was killed."""
    run = command(tmp_path / "run", LASTING)
    child = subprocess.Popen(run.arguments, stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    child.stdout.readline()
    yield run
    child.kill()
    child.wait()


def test_a_run_of_a_killed_sweep_is_found_by_its_folder(processes: Processes, orphan: Command, tmp_path: Path) -> None:
    assert processes.knows("job", orphan)
    assert processes.ended("job", orphan) is None
    assert not processes.knows("job", command(tmp_path / "ru", LASTING))
    found = process_of(orphan.run_dir)
    assert found is not None
    found.kill()
    wait_for(lambda: not processes.knows("job", orphan))
    assert processes.ended("job", orphan) == Ended("lost", "its sweep was killed")


def test_runs_are_asked_to_save_and_waited_for(processes: Processes, orphan: Command, tmp_path: Path) -> None:
    own = command(tmp_path / "own", LASTING)
    processes.start("own-1", own)
    wait_for(lambda: "ready" in Path(processes.where("own-1")).read_text())
    records = [RunRecord(name, name, None, [], "d") for name in ("own", "orphan")]
    assert processes.leave(list(zip(records, [own, orphan])))
    assert process_of(own.run_dir) is None
    assert process_of(orphan.run_dir) is None
    assert "saved" in Path(processes.where("own-1")).read_text()
    assert processes.ended("own-1", own) == Ended("interrupted", "saved")


def test_a_signal_to_the_process_group_of_the_sweep_does_not_reach_its_runs(
    processes: Processes, tmp_path: Path
) -> None:
    run = command(tmp_path / "run", LASTING)
    processes.start("job", run)
    found = wait_for(lambda: process_of(run.run_dir))
    assert os.getpgid(found.pid) != os.getpgid(0)  # type: ignore[attr-defined]
    os.kill(found.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    wait_for(lambda: processes.ended("job", run))
