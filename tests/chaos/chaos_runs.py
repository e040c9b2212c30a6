"""Starts `ser train` with a plan of faults, follows it, and ends whatever is left of it. Every wait is bounded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faults import FILE, Fault
from processes import MARK, end, files_of_runs, left_after

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = (
    "pacing.groups_per_step=2",
    "sampling.group_size=4",
    "sampling.max_tokens=64",
    "eval.samples=0",
    "wandb=disabled",
    "checkpoint.every=2",
    "frames.workers=1",
    "frames.timeout_s=30",
    "cluster.object_store_gib=0.5",
    "limits.generation_s=60",
    "limits.step_s=120",
    "limits.publish_s=60",
    "limits.update_s=120",
    "limits.save_s=120",
    "limits.stall_s=900",
    "limits.heartbeat_s=30",
    "limits.restarts_per_hour=1000",
    "learner.schedule={lr: 1e-5, warmup: 0}",
    "steps=5000",
)
START_S = 600.0  # until the first step has ended, and between two lines
FAULT_S = 300.0  # until a fault is done, and until the run has recovered from it
LEFT_S = 60.0  # after the end of a start, nothing of it runs any more, and its files are removed


@dataclass
class Ran:
    """code: the exit code of the driver, None where it had to be killed. hung: why. lines: of faults.jsonl, those of
    this start. left: processes, sockets, shared memory and locks that are still there after LEFT_S; left_s: how long
    the others took."""

    code: int | None
    hung: str
    lines: list[dict[str, Any]]
    stderr: str
    left: list[str]
    left_s: float
    seconds: float

    @property
    def last_words(self) -> str:
        return next((line for line in reversed(self.stderr.splitlines()) if line.strip()), "")[:300]


def run(
    folder: Path,
    faults: Sequence[Fault],
    settings: Sequence[str],
    see: Callable[[dict[str, Any]], object] = lambda line: None,
) -> Ran:
    """Start or resume the run in `folder`/run and follow it to its end. `see` gets every line of faults.jsonl as it
    comes."""
    folder.mkdir(parents=True, exist_ok=True)
    plan, written = folder / "plan.json", folder / FILE
    plan.write_text(json.dumps([asdict(fault) for fault in faults]), encoding="utf-8")
    seen = len(_lines(written))
    mark, began = uuid.uuid4().hex, time.monotonic()
    env = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    temporary = Path(tempfile.mkdtemp(prefix="c-"))  # short, for the sockets in it
    before = files_of_runs(temporary)
    env |= {MARK: mark, "PYTHONPATH": f"{ROOT}:{ROOT}/tests", "TMPDIR": str(temporary)}
    command = [sys.executable, str(Path(__file__).with_name("faulty_train.py")), str(plan), "train"]
    command += [str(ROOT / "configs/experiment/quickstart.yaml"), f"run_dir={folder / 'run'}", "resume=auto"]
    # Through pipes: a full disk must not take its messages.
    driver = subprocess.Popen(
        [*command, *SETTINGS, *settings], cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    number = len(list(folder.glob("stderr-*.txt")))
    written_to = [folder / f"{name}-{number}.txt" for name in ("stdout", "stderr")]
    copies = [_copied(pipe, path) for pipe, path in zip((driver.stdout, driver.stderr), written_to)]
    try:
        hung, lines = _follow(driver, written, seen, see, bool(faults))
        left, left_s = left_after(mark, temporary, before, 0.0 if hung else LEFT_S)
    finally:
        end(mark)
        shutil.rmtree(temporary, ignore_errors=True)
    driver.wait()
    for copy in copies:
        copy.join(timeout=10)
    stderr = written_to[1].read_text(encoding="utf-8", errors="replace")
    code = None if hung else driver.returncode
    return Ran(code, hung, lines, stderr, left, left_s, time.monotonic() - began)


def _follow(
    driver: subprocess.Popen[bytes],
    written: Path,
    seen: int,
    see: Callable[[dict[str, Any]], object],
    faulty: bool,
) -> tuple[str, list[dict[str, Any]]]:
    """(why it hangs or "", the lines of this start)."""
    lines: list[dict[str, Any]] = []
    last = last_fault = time.monotonic()
    while True:
        ended = driver.poll() is not None
        for line in _lines(written)[seen + len(lines) :]:
            last = time.monotonic()
            if "fault" in line or not lines:
                last_fault = last
            lines.append(line)
            see(line)
        if ended:
            return "", lines
        now = time.monotonic()
        if now - last > START_S:
            return f"no step ended for {START_S:.0f} s", lines
        if faulty and lines and now - last_fault > FAULT_S:
            return f"not recovered, or the next fault not reached, after {FAULT_S:.0f} s", lines
        time.sleep(0.3)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that is being written."""
    if not path.exists():
        return []
    *whole, _ = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in whole]


def _copied(pipe: Any, path: Path) -> threading.Thread:
    """A thread that copies what comes out of `pipe` into a file."""

    def copy() -> None:
        with path.open("wb") as file:
            for line in pipe:
                file.write(line)
                file.flush()

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread
