"""A run's log in wandb, which can fail or hang without consequences for the run.

Guarantees: once wandb has been initialised, nothing that happens to it or to its service process raises, or delays the
run by more than FINISH_S at its end; records that wandb did not take are counted, and the first is announced. All calls
are made by one thread, since wandb waits for a service that hangs, whatever it is asked. A service that finds its disk
full reports nothing and is not counted; metrics.jsonl, which holds the same, is (evidence/lines).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import wandb

from evidence.errors import BadInput
from orchestration.reporting.wandb_values import shown
from orchestration.settings import WandbMode

# Steps take seconds and wandb milliseconds: it hangs long before so many records wait.
MOST_WAITING = 100
# For wandb to write or upload what it still holds; offline it takes less than a second.
FINISH_S = 120.0
# A call to a service that was killed fails at once.
KILLED_S = 10.0
SERVICE = "wandb-core"
PROJECT = "ser"
# What curves can be drawn over. The first is the default.
AXES = ("step", "trained_prompts", "seconds", "gpu_hours")

log = logging.getLogger(__name__)


class WandbLog:
    """One run in wandb. `failed`: the records that wandb did not take. `id`: the run's name in wandb.
    `mode`: as it was asked for."""

    def __init__(
        self,
        run_dir: Path,
        config: dict[str, Any],
        mode: WandbMode,
        run_id: str | None = None,
        group: str = "",
        tags: Sequence[str] = (),
        finish_s: float = FINISH_S,
    ) -> None:
        """`run_id`: of the run to go on with; None begins another. A run that goes on is recorded offline, with a
        warning, where wandb cannot be reached; another is refused with BadInput."""
        self.failed, self.mode = 0, mode
        self._finish_s = finish_s
        # Silent and without wandb's collectors: the bar needs the terminal, and a run may have only two cores.
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )
        # wandb advertises its tracing on the terminal if openai is installed, and vLLM depends on openai.
        os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")
        begin = partial(
            wandb.init,
            project=PROJECT,
            name=run_dir.name,
            id=run_id,
            group=group or None,
            tags=list(tags),
            dir=run_dir,
            config=config,
            settings=quiet,
        )
        try:
            self._run = begin(mode=mode, resume="allow" if mode == "online" else None)
        except wandb.Error as error:
            reason = str(error).partition("\n")[0]
            if run_id is None:
                raise BadInput(f"wandb = {mode}: {reason}; offline needs no server, disabled no wandb") from None
            log.warning("wandb: not reached (%s); recorded offline in %s/wandb, for `wandb sync`", reason, run_dir)
            wandb.teardown()  # its service still has the run that it could not begin
            self._run = begin(mode="offline")
        self.id = self._run.id
        for axis in AXES:
            self._run.define_metric(axis)
        # wandb's own step can never go back, as the step of a resumed run does.
        self._run.define_metric("*", step_metric="step")
        self._calls: queue.Queue[Callable[[], object] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Pass on a record. Does not wait."""
        # Pictures and tables are made by the thread that makes the calls.
        self._put(lambda: self._run.log({"step": step} | {name: shown(name, value) for name, value in metrics.items()}))

    def alert(self, title: str, text: str) -> None:
        """Raise an alert, which wandb sends to whoever has asked for them. Does not wait."""
        self._put(lambda: self._run.alert(title=title, text=text, level="WARN"))

    def _put(self, call: Callable[[], object]) -> None:
        if self._calls.qsize() < MOST_WAITING:
            self._calls.put(call)
        else:
            self._fail(f"{MOST_WAITING} records wait for it")

    def close(self) -> None:
        """Wait until wandb has written what it holds, up to `finish_s`. Then its service is killed: Python would wait
        for it at exit."""
        self._calls.put(None)
        self._thread.join(self._finish_s)
        if not self._thread.is_alive():
            return
        log.warning("wandb: did not finish within %g s and is ended; metrics.jsonl holds everything", self._finish_s)
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # it may end by itself
                if process.name() == SERVICE:
                    process.kill()
        self._thread.join(KILLED_S)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:
                self._fail(str(error))
        # finish returns before wandb's service has written its file; teardown waits for that.
        for end in (self._run.finish, wandb.teardown):
            try:
                end()
            except Exception as error:
                log.info("wandb: %s", error)

    def _fail(self, reason: str) -> None:
        if not self.failed:
            log.warning("wandb: does not log any more (%s); further failures are only counted", reason)
        self.failed += 1
