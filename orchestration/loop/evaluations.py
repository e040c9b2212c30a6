"""Evaluation while training goes on (`eval.every`), on an engine that is set aside (supervision/aside.py).

Guarantees:
- an evaluation measures the weights after one step, under the version with which they are published, and nothing else;
  it draws nothing from what training draws from;
- with two or more engines the learner never waits for it, and if it still runs when the next one is due, that one is
  given up; with a single engine it runs between two steps, and the learner's wait is counted;
- each set has one line in eval.jsonl for each step at which an evaluation was due: results, or why there are none;
- a run that goes on repeats no evaluation that has ended. One that was under way is made again if the run goes on with
  the very weights, at the step of its checkpoint; other weights are never measured in their place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from evidence.errors import BadInput
from evidence.files import WRITE_ERRORS, write_text
from evidence.sampling import most_bytes
from learner.best_checkpoint import BestCheckpoint
from orchestration.interruption import Interruption
from orchestration.loop.clips import CLIPS_AT_ONCE
from orchestration.loop.eval_sets import EvalSet, Results
from orchestration.loop.pipeline import Pipeline
from orchestration.loop.run_state import RunState
from orchestration.preflight import largest_selection
from orchestration.reporting.steps import StepReport
from orchestration.resuming import RECORDS
from orchestration.settings import TrainConfig
from orchestration.supervision.aside import Aside, Unmeasurable

# The share of the frame store that an evaluation may fill. It never waits for training while it holds frames, so it
# delays groups, and stops none.
FRAMES_SHARE = 0.25
# Seconds between two looks at whether the run is asked to end.
LOOK_S = 0.2

log = logging.getLogger(__name__)


class Evaluations:
    """The evaluations of one lineage. under_way: step and version of the weights that are being measured, empty if
    there are none. Use it from one event loop."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        pipeline: Pipeline,
        sets: Sequence[EvalSet],
        report: StepReport,
        best: BestCheckpoint,
        begin: RunState,
    ):
        """`begin`: the state in which the lineage begins. `report` is to be entered before any other call."""
        self.every, self.run_dir, self.sets, self.report, self.best = config.eval.every, run_dir, sets, report, best
        self.under_way: tuple[int, int] | tuple[()] = tuple(begin.evaluating)  # type: ignore[assignment]
        self._config, self._pool = config, pipeline.rollout_pool
        self._pipeline, self._begin = pipeline, begin
        self._published = begin.step  # the step whose weights were published last
        self._ended: set[str] = set()  # the sets that were measured of what is under way
        self._task: asyncio.Task[None] | None = None
        self._waited_s = 0.0
        self._counts = {True: 0, False: 0}  # by whether there are results
        self._best_set, _, self._best_metric = (config.checkpoint.best or "").partition("/")
        self._best_value: float | None = None

    def due(self, step: int, version: int, published: bool) -> bool:
        """Whether to begin an evaluation after `step`: its weights were published as `version`, the first to be
        published since a multiple of eval.every was reached. It is under way from now on."""
        if self.every is None or not published:
            return False
        before, self._published = self._published, step
        if step // self.every == before // self.every:
            return False
        if self.under_way:
            reason = f"the evaluation of step {self.under_way[0]} was still under way"
            self._give_up(step, version, self.sets, reason)
            return False
        self.under_way, self._ended = (step, version), set()
        self.best.wait_for(step)
        return True

    async def begin(self, interruption: Interruption) -> None:
        """Begin the evaluation that is due. With a single engine, wait until it has ended or the run is to end."""
        began = time.monotonic()
        if self._pool.size == 1:
            await self._pool.settled()
        step, version = self.under_way  # type: ignore[misc]
        left = [each for each in self.sets if each.name not in self._ended]
        try:
            aside = self._pool.set_aside()
        except Unmeasurable as error:
            self._give_up(step, version, left, str(error))
            self._ends(step)
        else:
            self._task = asyncio.create_task(self._evaluate(aside, step, left))
        if self._pool.size == 1:
            await self.finish(interruption)
            self._waited_s += time.monotonic() - began

    async def finish(self, interruption: Interruption) -> None:
        """Wait until nothing is under way, or the run is asked to end."""
        while self._task is not None and not self._task.done() and interruption.requested is None:
            await asyncio.wait([self._task], timeout=LOOK_S)
        self.poll()

    def poll(self) -> None:
        """Raise what ended an evaluation, which is a defect, or the loss of all engines or of the referee."""
        if self._task is not None and self._task.done():
            self._task.result()
            self._task = None

    async def cancel(self) -> None:
        """End what is under way. A checkpoint says that it was."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def restore(self, interruption: Interruption) -> None:
        """Go on with the lineage of the checkpoint: with its best checkpoint, and, as `begin`, with the evaluation that
        was under way."""
        lines = self.report.evaluations()
        for line in lines:
            self._counts["not_measured" not in line] += 1
        measured = {line["step"]: line.get(self._best_metric) for line in lines if line["set"] == self._best_set}
        self.best.restore({step: value for step, value in measured.items() if value is not None})
        if not self.under_way:
            return
        (step, version), at = self.under_way, self._begin.step
        self._ended = {line["set"] for line in lines if line["step"] == step}
        left = [each for each in self.sets if each.name not in self._ended]
        if left and step != at:
            reason = f"the run was interrupted meanwhile, went on after step {at}, and has no weights of step {step}"
            self._give_up(step, version, left, reason)
        self.under_way = (step, self._begin.version) if left and step == at else ()
        if self.under_way:
            self._best_value = measured.get(step)
            self.best.wait_for(step)
            await self.begin(interruption)

    def metrics(self) -> dict[str, float]:
        """For how long the learner has waited for evaluations since the last call, seconds; and the number of sets that
        were measured so far, and that could not be."""
        if self.every is None:
            return {}
        waited_s, self._waited_s = self._waited_s, 0.0
        return {"time/eval_s": waited_s, "eval/measured": self._counts[True], "eval/not_measured": self._counts[False]}

    async def _evaluate(self, aside: Aside, step: int, left: list[EvalSet]) -> None:
        try:
            while left:
                began = time.monotonic()
                try:
                    results = await aside.unless_lost(left[0].measure(self._pipeline, aside.complete, self._at_once()))
                except BadInput as error:
                    self._give_up(step, aside.version, left[:1], str(error))
                else:
                    await self._record(step, aside.version, left[0].name, results, time.monotonic() - began)
                del left[0]
        except Unmeasurable as error:
            self._give_up(step, aside.version, left, str(error))
        finally:
            aside.give_back()
        self._ends(step)

    def _ends(self, step: int) -> None:
        self.best.measured(step, self._best_value)
        self.under_way, self._best_value = (), None

    def _at_once(self) -> int:
        """The number of clips whose frames an evaluation may hold at once."""
        config = self._config
        samples = [sample for each in self.sets for sample in each.samples]
        clip_bytes = most_bytes(config.contract, largest_selection(config.contract, samples))
        return max(1, min(CLIPS_AT_ONCE, int(FRAMES_SHARE * config.cluster.frames_gib * 2**30 / clip_bytes)))

    async def _record(self, step: int, version: int, name: str, results: Results, seconds: float) -> None:
        path = self.run_dir / RECORDS / f"step-{step:06d}" / f"{name}.jsonl"
        try:
            await asyncio.to_thread(_write_lines, path, results.records)
        except OSError as error:
            if error.errno not in WRITE_ERRORS:
                raise
            log.warning("%s: cannot be written (%s); the results are in eval.jsonl", path, error.strerror)
        self.report.evaluated(step, version, name, {**results.numbers, "seconds": round(seconds, 3)})
        self._ended.add(name)
        self._counts[True] += 1
        if name == self._best_set:
            self._best_value = results.numbers[self._best_metric]

    def _give_up(self, step: int, version: int, sets: Sequence[EvalSet], reason: str) -> None:
        """Say on stderr and in eval.jsonl that sets are not measured."""
        names = ", ".join(each.name for each in sets)
        log.warning("step %d, version %d is not evaluated on %s: %s", step, version, names, reason)
        for each in sets:
            self.report.evaluated(step, version, each.name, {"not_measured": reason})
            self._counts[False] += 1


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{line}\n" for line in lines))
