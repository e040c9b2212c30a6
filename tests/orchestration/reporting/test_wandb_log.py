"""A run goes on, and ends, without wandb: its service killed, hanging, or its folder gone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from evidence.errors import BadInput
from orchestration.reporting import wandb_log
from orchestration.reporting.metrics import RunLog
from orchestration.reporting.wandb_log import AXES, MOST_WAITING, SERVICE, WandbLog

ROOT = Path(__file__).parents[3]
RECORD = {f"metric_{number}": 1.0 for number in range(100)}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[WandbLog, psutil.Process]]:
    """A run in wandb and its service."""
    log = WandbLog(tmp_path, {}, "offline")
    process = max((p for p in psutil.Process().children() if p.name() == SERVICE), key=psutil.Process.create_time)
    yield log, process
    log.close()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours, without their reasons."""
    ours = [record for record in caplog.records if record.name == wandb_log.__name__]
    return [record.getMessage().partition("(")[0] for record in ours if record.levelname == "WARNING"]


def test_a_killed_service_is_counted_and_announced_once(
    service: tuple[WandbLog, psutil.Process], caplog: pytest.LogCaptureFixture
) -> None:
    log, process = service
    log.log(1, RECORD)
    process.kill()
    process.wait()
    for step in range(2, 6):
        log.log(step, RECORD)
    log.close()
    assert 3 <= log.failed <= 5, "what was sent while the service died may be lost unseen"
    assert warnings(caplog) == ["wandb: does not log any more "]


def test_a_service_that_hangs_delays_no_step_and_the_end_only_so_long(
    service: tuple[WandbLog, psutil.Process], caplog: pytest.LogCaptureFixture
) -> None:
    log, process = service
    process.suspend()
    began = time.monotonic()
    for step in range(10 * MOST_WAITING):
        log.log(step, RECORD)
        time.sleep(0.0005)
    assert log.failed > 0
    log._finish_s = 1.0
    log.close()
    assert time.monotonic() - began < 20
    assert warnings(caplog) == [
        "wandb: does not log any more ",
        "wandb: did not finish within 1 s and is ended; metrics.jsonl holds everything",
    ]


def test_a_folder_that_is_gone_ends_nothing(service: tuple[WandbLog, psutil.Process], tmp_path: Path) -> None:
    log, _ = service
    shutil.rmtree(tmp_path / "wandb")
    log.log(1, RECORD)
    log.close()


STOPPED = """
import sys, psutil
from pathlib import Path
from evidence.errors import BadInput
from orchestration.reporting import wandb_log
from orchestration.reporting.wandb_log import WandbLog
log = WandbLog(Path(sys.argv[1]), {}, "offline", finish_s=0.5)
for child in psutil.Process().children():
    child.suspend()
log.log(1, {"loss": 1.0})
log.close()
"""


def test_a_process_whose_wandb_hangs_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", STOPPED, str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 0
    ours, *of_wandb = done.stderr.splitlines()
    assert ours == "wandb: did not finish within 0.5 s and is ended; metrics.jsonl holds everything"
    assert all(line.startswith("wandb: ERROR") for line in of_wandb), "and no stack trace"


def test_a_server_that_is_not_reached_refuses_a_new_run_and_not_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "a" * 40, "WANDB_INIT_TIMEOUT": "2"}
    for name, value in nobody.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(BadInput, match=r"wandb = online: .*; offline needs no server"):
        WandbLog(tmp_path / "new", {}, "online")
    (tmp_path / "old").mkdir()
    log = WandbLog(tmp_path / "old", {}, "online", run_id="abcd1234")
    log.log(1, RECORD)
    log.close()
    assert (log.id, log.failed) == ("abcd1234", 0)
    assert warnings(caplog) == ["wandb: not reached "]
    recorded = [file.stat().st_size for file in tmp_path.glob("old/wandb/offline-run-*-abcd1234/*.wandb")]
    assert len(recorded) == 1
    assert recorded[0] > len(RECORD) * 10


def test_group_tags_axes_and_seconds_are_recorded(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}, group="a_group", tags=["one_tag", "other_tag"]) as log:
        log.log(1, {"reward": 0.5, "trained_prompts": 8})
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    for text in (b"a_group", b"one_tag", b"other_tag", *(axis.encode() for axis in AXES)):
        assert text in content
    assert content.count(b"seconds") > content.count(b"gpu_hours"), "as an axis, and in the record"


def test_alerts_are_sent_by_the_same_thread_and_stored_offline(tmp_path: Path) -> None:
    with RunLog(tmp_path, {}) as log:
        log.alert("one_phrase", "step 4: what is wrong")
    (stored,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = stored.read_bytes()
    assert b"one_phrase" in content
    assert b"step 4: what is wrong" in content
    assert log._wandb.failed == 0
