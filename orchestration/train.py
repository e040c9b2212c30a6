"""`ser train`: asynchronous evidence RL, from the start of the parts to summary.json.

The algorithm is `_train`, to be read from top to bottom. Synchronous training is the same loop with staleness 0
(promise 1): admission then starts no group before the step has ended and its weights have arrived.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from orchestration.loop.admission import Admission
from orchestration.loop.batches import check_versions
from orchestration.loop.group_maker import GroupMaker, ReadyGroup
from orchestration.loop.heldout import evaluate_policy
from orchestration.loop.ledger import Ledger
from orchestration.loop.parity import check_parity
from orchestration.loop.parts import Parts, start_parts
from orchestration.loop.pipeline import Draw
from orchestration.loop.rejections import NOT_FINITE, RejectionWatch
from orchestration.loop.skipped_steps import SkippedSteps
from orchestration.preflight import TrainInputs, check_train
from orchestration.reporting.awaiting import awaiting
from orchestration.reporting.metrics import print_summary
from orchestration.reporting.steps import StepReport, StepTimes
from orchestration.reporting.summary import RunFacts, installed_versions, summary, write_summary
from orchestration.run_directory import claim, require_unused, run_directory
from orchestration.settings import TrainConfig
from orchestration.supervision.cluster import start_ray


def main(config: TrainConfig) -> None:
    """Check the config, start Ray, train. Raises BadInput before anything is written, RunFailed afterwards."""
    run_dir = run_directory(config.run_dir)
    require_unused(run_dir)
    config, inputs = check_train(config)
    with start_ray(config.cluster.object_store_gib, config.gpus):
        claim(run_dir, config)
        asyncio.run(Run(config, run_dir, inputs).run())


class Run:
    """One training run."""

    def __init__(self, config: TrainConfig, run_dir: Path, inputs: TrainInputs):
        self.config, self.run_dir, self.inputs = config, run_dir, inputs
        sampling = config.sampling
        self.draw = Draw(sampling.group_size, sampling.temperature, sampling.max_tokens)
        self.admission, self.ledger = Admission(config.pacing), Ledger()
        self.rejections = RejectionWatch(self.ledger, config.pacing)

    async def run(self) -> None:
        config, inputs, run_dir = self.config, self.inputs, self.run_dir
        print(f"{run_dir}: starting engines and learner (about a minute on a CPU)", flush=True)
        parts = await start_parts(config, inputs.encoder, inputs.images)
        with awaiting("first completions and log-probs (compilation)"):
            await check_parity(parts.pipeline, parts.learner.gang, inputs.train.items, self.draw, config)
        before = await evaluate_policy(parts.pipeline, config, inputs.heldout, "before", run_dir)
        began = time.monotonic()
        ages = await self._train(parts)
        facts = RunFacts(ages, config.pacing.worst_age, time.monotonic() - began, installed_versions())
        parts.learner.stop()
        after = await evaluate_policy(parts.pipeline, config, inputs.heldout, "after", run_dir)
        report = summary(facts, before, after, self.ledger)
        write_summary(run_dir / "summary.json", report)
        print_summary(report, run_dir)

    async def _train(self, parts: Parts) -> list[int]:
        """The algorithm. Returns the age of every group trained."""
        config, admission, pipeline = self.config, self.admission, parts.pipeline
        packing, algorithm = config.learner.packing, config.algorithm
        switches = algorithm.dynamic_sampling, algorithm.overlong_filtering
        maker = GroupMaker(pipeline, admission, self.ledger, self.draw, packing, config.seed, config.steps, *switches)
        skipped = SkippedSteps(config.learner.max_skipped)
        parts.watch_weights(maker.progress.set)
        with StepReport(self.run_dir, config, pipeline, self.ledger) as report:
            while admission.step < config.steps:
                began = time.monotonic()
                while (batch := admission.take_batch()) is None:
                    self._begin_groups(maker)
                    await parts.republish_if_lost(admission.version)
                    await maker.wait(config.limits.stall_s)
                waited_s = time.monotonic() - began
                groups = {group: maker.ready.pop(group) for group in batch.groups}
                check_versions([ready.scored.group for ready in groups.values()], batch.version)
                metrics = await parts.learner.train(list(groups.values()), admission.step, pipeline.store)
                if skipped.count(metrics, f"step {admission.step + 1}, groups {', '.join(map(str, groups))}"):
                    self._skip(groups)
                    continue
                version = admission.step_ended()
                if admission.step == config.steps:  # before anything can fail: the model is what the run was for
                    await parts.learner.export(self.run_dir / "model")
                for group, ready in groups.items():
                    self.ledger.train(group, admission.step)
                    ready.lease.release()
                self.rejections.step_ended()
                self._begin_groups(maker)
                if admission.publish_due or admission.step == config.steps:
                    await parts.publish(version, config.limits.publish_s)
                metrics["skipped"] = skipped.total
                times = StepTimes(began, waited_s, time.monotonic() - began)
                report.step_ended(admission.step, batch, list(groups.values()), metrics, times)
        await maker.stop()
        await pipeline.rollout_pool.settled()
        self.ledger.check()
        return report.ages

    def _begin_groups(self, maker: GroupMaker) -> None:
        """Begin groups while slots are free and the remaining steps need them: one more for each that was rejected.
        Decode the frames of the next ones ahead."""
        self.rejections.check(maker.begun)
        train, per_step = self.inputs.train, self.config.pacing.groups_per_step
        wanted = self.config.steps * per_step + self.ledger.counts()["rejected"]
        first = maker.begun
        while self.admission.free and maker.begun < wanted:
            maker.begin(maker.begun, train[maker.begun])
        if maker.begun == first:
            return
        ahead = range(maker.begun, min(maker.begun + per_step, wanted))
        maker.pipeline.prefetch(train[group] for group in ahead)

    def _skip(self, groups: dict[int, ReadyGroup]) -> None:
        """A skipped step does not count: its groups are rejected and replaced."""
        for group, ready in groups.items():
            self.ledger.reject(group, NOT_FINITE)
            ready.lease.release()
        self.admission.step_skipped()
