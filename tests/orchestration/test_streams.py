"""Output that cannot be written: one line on stderr, exit code 1, and no half file."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evidence.errors import RunFailed
from evidence.files import whole_file
from orchestration import cli
from orchestration.streams import described, is_failed_output

ROOT = Path(__file__).parents[2]
CONFIG = "configs/experiment/quickstart.yaml"
FULL = "ser: stdout: cannot be written (No space left on device)\n"
BUFFERED = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}


def shell(command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs `ser` as $SER in a shell."""
    env = BUFFERED | {"SER": f"{sys.executable} -m orchestration"} | more
    return subprocess.run(["bash", "-c", command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("command", "buffering"),
    [(f"config {CONFIG}", {}), ("--help", {}), ("--help", {"PYTHONUNBUFFERED": "1"})],
    ids=["config", "help", "unbuffered help"],
)
def test_a_full_disk_behind_stdout(command: str, buffering: dict[str, str]) -> None:
    done = shell(f"$SER {command} > /dev/full", **buffering)
    assert (done.returncode, done.stderr) == (1, FULL)


def test_a_closed_stdout_is_refused_before_any_work() -> None:
    done = shell("$SER --help >&-")
    assert (done.returncode, done.stderr) == (
        1,
        "ser: stdout: is closed; redirect it, to /dev/null if nobody reads it\n",
    )


def test_a_pipe_whose_reader_has_ended() -> None:
    done = shell("exec 3> >(:); wait $!; $SER --help >&3")
    assert (done.returncode, done.stderr) == (1, "ser: stdout: cannot be written (its reader has ended)\n")


def test_a_file_size_limit_behind_stdout(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

    argv = [sys.executable, "-m", "orchestration", "--help"]
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(argv, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, preexec_fn=limit, timeout=120)
    assert (done.returncode, done.stderr) == (1, b"ser: stdout: cannot be written (File too large)\n")


def test_a_closed_or_full_stderr_changes_no_exit_code_and_is_not_mixed_with_stdout() -> None:
    for command in ("unknown 2>&-", "unknown 2> /dev/full"):
        done = shell(f"$SER {command}")
        assert (done.returncode, done.stdout) == (2, "")


def test_a_file_opened_later_does_not_take_the_place_of_a_closed_stream() -> None:
    code = "import os; from orchestration.streams import open_streams; open_streams(); print(os.open('/dev/null', 0))"
    done = shell(f"exec 0<&- 2>&-; {sys.executable} -c {code!r}")
    assert int(done.stdout) > 2


LASTING = """
import sys
from orchestration import cli

def work(argv):
    for number in range(3):
        print(number, flush=True)
    open(sys.argv[1], "w").write("whole")

cli._parsed = lambda argv: type("Args", (), {"run": staticmethod(work)})
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.parametrize(("command", "goes_on"), [("train", True), ("sft", True), ("score", False)])
def test_a_training_goes_on_without_stdout_and_fails_when_its_files_are_whole(
    tmp_path: Path, command: str, goes_on: bool
) -> None:
    (tmp_path / "run.py").write_text(LASTING)
    done = shell(f"{sys.executable} {tmp_path}/run.py {tmp_path}/model {command} > /dev/full", PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (1, FULL)
    assert (tmp_path / "model").exists() == goes_on


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Runs `ser doctor`, which raises the given error instead."""

    def run(error: BaseException) -> int:
        def fail(args: object) -> None:
            raise error

        monkeypatch.setattr(cli, "_doctor", fail)
        return cli.main(["doctor"])

    return run


def test_an_error_of_a_file_names_it(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(OSError(28, "No space left on device", "/runs/a")) == 1
    assert capsys.readouterr().err == "ser: /runs/a: cannot be written (No space left on device)\n"


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(110, "timed out"),
        ConnectionRefusedError(111, "refused"),
        OSError("x"),
        FileNotFoundError(2, "No such file or directory", "assets/a"),
        PermissionError(13, "Permission denied", "/etc/shadow"),
    ],
)
def test_other_errors_keep_their_stack_trace(failing: Callable[[BaseException], int], error: OSError) -> None:
    assert not is_failed_output(error)
    with pytest.raises(type(error)):
        failing(error)


def test_an_error_of_the_file_that_is_written_is_one_line(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(PermissionError) as raised, whole_file(path) as part:
        raise PermissionError(13, "Permission denied", str(part))
    assert failing(raised.value) == 1
    assert capsys.readouterr().err.startswith(f"ser: {path}")
    with pytest.raises(PermissionError) as raised, whole_file(path):
        raise PermissionError(13, "Permission denied", "/videos/a.mp4")
    assert not is_failed_output(raised.value)


def test_an_error_of_an_actor_is_one_line(
    failing: Callable[[BaseException], int], capsys: pytest.CaptureFixture[str]
) -> None:
    from ray.exceptions import RayTaskError

    cause = OSError(28, "No space left on device", "/runs/step-1")
    assert failing(RayTaskError("save", "Traceback …\n", cause).as_instanceof_cause()) == 1
    assert capsys.readouterr().err == f"ser: {described(cause)}\n"
    assert failing(RunFailed("x")) == 1


REPORTING = """
import logging, sys, time
from orchestration import cli
from orchestration.reporting.awaiting import Announcer
from orchestration.reporting.metrics import Progress

def work(argv):
    with Announcer(every_s=0.01).awaiting("engines"):
        time.sleep(0.1)
    with Progress(2) as progress:
        for step in (1, 2):
            logging.getLogger("ser").warning("step %d", step)
            progress.update(step, "reward 0.5")
    open(sys.argv[1], "w").write("whole")

cli._parsed = lambda argv: type("Args", (), {"run": staticmethod(work)})
sys.exit(cli.main(["train"]))
"""


@pytest.mark.parametrize(("streams", "exit_code"), [("> /dev/full 2> /dev/full", 1), ("2> /dev/full", 0)])
def test_neither_progress_nor_waits_nor_warnings_end_a_training(tmp_path: Path, streams: str, exit_code: int) -> None:
    (tmp_path / "run.py").write_text(REPORTING)
    done = shell(f"{sys.executable} {tmp_path}/run.py {tmp_path}/model {streams}", PYTHONPATH=str(ROOT))
    assert done.returncode == exit_code
    assert (tmp_path / "model").read_text() == "whole"
