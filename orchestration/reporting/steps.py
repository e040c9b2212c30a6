"""The report of a step: its line in metrics.jsonl, a group in samples.jsonl, and the progress shown; and the lines of
evaluations in eval.jsonl."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from evidence.errors import BadInput
from evidence.lines import records
from evidence.plain import dumps
from orchestration.loop.admission import Batch
from orchestration.loop.group_maker import ReadyGroup
from orchestration.loop.ledger import Ledger
from orchestration.loop.pipeline import Pipeline
from orchestration.reporting.alerts import AlertWatch
from orchestration.reporting.completions import claim_metrics, completion_metrics
from orchestration.reporting.display import Throughput
from orchestration.reporting.histograms import step_histograms
from orchestration.reporting.learning import LearningWatch
from orchestration.reporting.loads import EngineLoads, memory, referee_loads
from orchestration.reporting.media import due, pictures, rows
from orchestration.reporting.metrics import Progress, RunLog
from orchestration.reporting.reward_log import RewardLog
from orchestration.reporting.samples import write_samples
from orchestration.reporting.starts import recorded_starts
from orchestration.settings import TrainConfig

EVALUATIONS = "eval.jsonl"
FRAMES_S = 5.0  # to fetch the frames of a group from another node

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepTimes:
    """began: when the step began to wait for its batch, by time.monotonic. waited_s: until it had the batch. step_s:
    until its weights were published."""

    began: float
    waited_s: float
    step_s: float


class StepReport:
    """Reports the steps of a run, in a `with` block. `ages`: the number of groups trained so far by their age, in
    versions."""

    def __init__(
        self,
        run_dir: Path,
        config: TrainConfig,
        pipeline: Pipeline,
        ledger: Ledger,
        step: int = 0,
        state: Mapping[str, Any] | None = None,
    ):
        """`step`, `state`: of the checkpoint that the run goes on from."""
        self._resumed_from, self._seconds, self._wandb_id = step, 0.0, None
        self.run_dir, self.config, self.pipeline, self.ledger = run_dir, config, pipeline, ledger
        self.rewards = RewardLog(config.reward, config.agreement)
        self.learning = LearningWatch(config.reward, config.algorithm.baseline != "none")
        self.throughput = Throughput()
        self._loads = EngineLoads(pipeline.rollout_pool)
        self.ages: Counter[int] = Counter()
        if state:
            self._restore(state)

    @property
    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on with these reports, as data that JSON can represent."""
        return {
            "rewards": self.rewards.state,
            "learning": self.learning.state,
            "ages": {str(age): count for age, count in self.ages.items()},
            "counts": dict(self.pipeline.counts),
            "tokens": dict(self.pipeline.tokens),
            "seconds": self._log.seconds,
            "wandb_id": self._log.wandb_id,
        }

    @property
    def seconds(self) -> float:
        """The duration of the run, the time before it was resumed included."""
        return self._log.seconds

    def _restore(self, state: Mapping[str, Any]) -> None:
        if "tokens" not in state:
            raise BadInput(f"{self.run_dir}: its checkpoint was written by another version of SER; go on with that one")
        self.rewards.restore(state["rewards"])
        self.learning.restore(state["learning"])
        self.ages.update({int(age): count for age, count in state["ages"].items()})
        for counts, name in ((self.pipeline.counts, "counts"), (self.pipeline.tokens, "tokens")):
            counts.clear()
            counts.update(state[name])
        self._seconds, self._wandb_id = state["seconds"], state["wandb_id"]

    def sync(self) -> bool:
        """Wait until the lines of the steps so far are on disk. Returns whether they are."""
        return self._log.sync()

    def __enter__(self) -> StepReport:
        config, step = self.config, self._resumed_from
        with ExitStack() as opened:
            started = {"start": recorded_starts(self.run_dir)[-1:]}
            resumed = step, self._seconds, self._wandb_id
            shown = config.wandb_group, config.wandb_tags
            log = RunLog(self.run_dir, asdict(config) | started, config.wandb, *resumed, *shown)
            self._log = opened.enter_context(log)
            self._samples = self._log.add_file("samples.jsonl")
            evaluates = config.eval.every is not None or (self.run_dir / EVALUATIONS).exists()
            self._evaluations = self._log.add_file(EVALUATIONS) if evaluates else None
            self._progress = opened.enter_context(Progress(config.steps, step))
            self.alerts = AlertWatch(records(self._log.path))
            self._open = opened.pop_all()
        self._loads.begin()  # leaves out the evaluation before training
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def evaluations(self) -> list[dict[str, Any]]:
        """The lines of eval.jsonl: those of steps that the run does not repeat."""
        return [] if self._evaluations is None else list(records(self._evaluations.path))

    def evaluated(self, step: int, version: int, name: str, numbers: Mapping[str, Any]) -> None:
        """Record what the weights `version`, those after `step`, reached on the set `name`, or why nothing is known."""
        if self._evaluations is None:
            raise RuntimeError("eval.every is null, and something was evaluated")
        self._evaluations.write([dumps({"step": step, "version": version, "set": name, **numbers})])
        values = {f"eval/{name}/{key}": value for key, value in numbers.items() if isinstance(value, float)}
        if values:
            self._log.pass_on(step, {f"eval/{name}/version": version, **values})

    def stalled(self, waiting: str) -> None:
        """Raise an alert in wandb about a run in which no group ends. stderr has it. `waiting`: who waits for whom."""
        self._log.alert("no group ends", waiting)

    async def show(self, step: int, ready: ReadyGroup) -> None:
        """Show a group of `step` in wandb, if it is due. Call it while the group has its frames."""
        if not self._log.shows_media or not due(step):
            return
        try:
            frames: Any = await asyncio.to_thread(ray.get, ready.lease.frames, timeout=FRAMES_S)
            self._log.show(step, pictures(ready.scored, frames), rows(step, ready.scored))
        except Exception as error:  # a picture is not worth a run
            log.warning("step %d: its frames are not shown: %s", step, error)

    def step_ended(
        self,
        step: int,
        batch: Batch,
        groups: Sequence[ReadyGroup],
        learner: dict[str, Any],
        times: StepTimes,
        more: Mapping[str, float],
    ) -> None:
        """Report optimizer step `step`, counted from 1, and warn if nothing is learnt. `learner`: the metrics of the
        ranks. `more`: other metrics, by their whole names. Raises TermsLeftOut."""
        self.ages.update(batch.ages)
        scored_groups = [ready.scored for ready in groups]
        rewards = self.rewards.step(scored_groups)
        metrics = self._axes(step) | rewards | self._step_metrics(batch, groups, learner, times)
        metrics |= self._counters() | dict(more)
        flags, alerts = self.alerts.step({"step": step} | metrics, {"agreement": self.rewards.alarm})
        self._log.log(step, metrics | flags)
        for alert in alerts:
            log.warning("step %d: %s (alert %s: docs/dashboards.md)", step, alert.text, alert.name)
            self._log.alert(alert.name, f"step {step}: {alert.text}")
        if warning := self.learning.step_ended(step, scored_groups):
            log.warning("%s", warning)
            self._log.alert("nothing to learn", warning)
        write_samples(self._samples, step, groups[0].scored)
        ser = f"  r_SER {rewards['reward/ser']:.3f}" if "reward/ser" in rewards else ""
        completions = sum(len(ready.scored.rewards) for ready in groups)
        self._progress.update(
            step,
            f"reward {rewards['reward']:.3f}{ser}  staleness {np.mean(batch.ages):.2f}"
            f"  {self.throughput.step_ended(completions, times.step_s)}",
        )

    def _axes(self, step: int) -> dict[str, float]:
        """What curves are drawn over, besides steps and seconds."""
        hours = {"gpu_hours": self.config.gpus * self.seconds / 3600} if self.config.gpus else {}
        return {"trained_prompts": step * self.config.pacing.groups_per_step, **hours}

    def _step_metrics(
        self, batch: Batch, groups: Sequence[ReadyGroup], learner: dict[str, Any], times: StepTimes
    ) -> dict[str, Any]:
        plain = [ready.scored.group for ready in groups]
        return {
            **{name if name.startswith("histogram/") else f"learner/{name}": value for name, value in learner.items()},
            **step_histograms(
                [ready.scored for ready in groups],
                batch.ages,
                self.config.pacing.worst_age,
                self.config.sampling.max_tokens,
            ),
            "staleness/mean": float(np.mean(batch.ages)),
            "staleness/max": max(batch.ages),
            "staleness/bound": self.config.pacing.worst_age,
            "time/step_s": times.step_s,
            "time/wait_s": times.waited_s,
            "time/wait_referee_s": waited_for_referee(groups, times.began),
            **completion_metrics(plain),
            **claim_metrics(plain, self.config.template.box_space),
            **self._loads.metrics(),
            **memory(),
        }

    def _counters(self) -> dict[str, float]:
        """Counts since the start of the run, and what the referee does now."""
        pipeline = self.pipeline
        return {
            "time/longest_wait_s": pipeline.group_ends.longest_s(time.monotonic()),
            **{f"frames/{name}": n for name, n in pipeline.store.counters().items()},
            "engines/restarts": pipeline.rollout_pool.restarts + pipeline.referee.restarts,
            "engines/refused_updates": pipeline.rollout_pool.refused_updates,
            "weights/update_s": pipeline.rollout_pool.update_s,
            **{f"tokens/{outcome}": n for outcome, n in pipeline.tokens.items()},
            **{f"ledger/{state}": n for state, n in self.ledger.counts().items()},
            **{f"rejected/{reason}": n for reason, n in self.ledger.rejections().items()},
            **{f"evidence/{name}": n for name, n in pipeline.counts.items()},
            **{f"referee/{name}": n for name, n in pipeline.referee.counters().items()},
            **referee_loads(pipeline.referee),
        }


def waited_for_referee(groups: Iterable[ReadyGroup], since: float) -> float:
    """Seconds after `since` in which the last group of a step to become ready waited for its verdicts."""
    began, ended = max((ready.asking for ready in groups), key=lambda asking: asking[1])
    return max(0.0, ended - max(began, since))
