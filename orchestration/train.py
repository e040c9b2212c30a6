"""`ser train`: asynchronous evidence RL, from the start of the parts to summary.json.

The algorithm is `_train`, to be read from top to bottom. Synchronous training is the same loop with staleness 0
(promise 1): admission then starts no group before the step has ended and its weights have arrived.
After the loss of its learner, or when it is started again, a run goes on from its last checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import closing
from pathlib import Path

from evidence.errors import Interrupted
from evidence.lines import records
from orchestration.dry_run import rehearsal
from orchestration.interruption import Interruption, saved_line
from orchestration.loop.batches import check_versions
from orchestration.loop.heldout import evaluate_policy
from orchestration.loop.journal import Journal
from orchestration.loop.ledger import Ledger
from orchestration.loop.lineages import Lineage, back_to, first, relearn
from orchestration.loop.parity import Parity, check_parity
from orchestration.loop.parts import Parts, start_parts
from orchestration.loop.pipeline import Draw
from orchestration.loop.training import Training
from orchestration.preflight import TrainInputs, check_train, shared_paths
from orchestration.reporting.awaiting import awaiting
from orchestration.reporting.heldout_records import recorded_evaluation
from orchestration.reporting.metrics import print_summary
from orchestration.reporting.starts import record_start
from orchestration.reporting.steps import StepTimes
from orchestration.reporting.summary import SUMMARY, RunFacts, installed_versions, summary, write_summary
from orchestration.resuming import CHECKPOINTS, Start, require_unchanged
from orchestration.run_directory import claimed, run_directory
from orchestration.run_report.recorded import METRICS
from orchestration.run_report.stages import bound_by, totals
from orchestration.settings import TrainConfig
from orchestration.supervision.checkpoint_writer import CheckpointWriter
from orchestration.supervision.cluster import start_ray
from orchestration.supervision.waiting import ActorLost

log = logging.getLogger(__name__)


def main(config: TrainConfig) -> None:
    """Check the config, start Ray, train. Raises BadInput before anything is written, RunFailed and Interrupted
    afterwards."""
    if config.dry_run:
        with rehearsal(config) as reduced:
            main(reduced)
        return
    run_dir = run_directory(config.run_dir)
    start = Start.found(run_dir, config.resume)
    config, inputs = check_train(config)
    start.require_same(config, inputs.digests)
    if start.finished(config):
        print(f"{run_dir}: has finished its {config.steps} steps; resume it with more steps to go on")
        return
    interruption = Interruption()
    paths, start_s = shared_paths(config, inputs), config.limits.start_s
    ray = start_ray(config.cluster.object_store_gib, config.gpus, paths, start_s)
    folder = claimed(run_dir, config, start.again)
    with interruption.listening(), ray, folder, closing(Journal(run_dir)) as journal:
        require_unchanged(run_dir, config.resume, start.record)
        record_start(run_dir, start.state.step if start.state else 0)
        asyncio.run(Run(config, run_dir, inputs, start, journal, interruption).run())


class Run:
    """One training run."""

    def __init__(
        self,
        config: TrainConfig,
        run_dir: Path,
        inputs: TrainInputs,
        start: Start,
        journal: Journal,
        interruption: Interruption,
    ):
        self.config, self.run_dir, self.inputs, self.start, self.journal = config, run_dir, inputs, start, journal
        self.interruption = interruption
        sampling = config.sampling
        self.draw = Draw(sampling.group_size, sampling.temperature, sampling.max_tokens)

    async def run(self) -> None:
        config, inputs, run_dir, start = self.config, self.inputs, self.run_dir, self.start
        print(f"{run_dir}: starting engines and learner (about a minute on a CPU)", flush=True)
        parts = await start_parts(config, inputs.encoder, inputs.images)
        lineage = first(self.journal)
        if start.again:
            lineage = await back_to(start.record, run_dir, parts, self.journal, config.limits.publish_s)
            (run_dir / SUMMARY).unlink(missing_ok=True)
            print(f"{run_dir}: goes on after step {lineage.state.step}", flush=True)
        parity, lineage = await self._checked(parts, lineage)
        if start.record is None:
            before = await evaluate_policy(parts.pipeline, config, inputs.heldout, "before", run_dir)
        else:
            before = recorded_evaluation(run_dir, "before")
        facts, ledger = await self._train_to_the_end(parts, lineage)
        parts.learner.stop()
        after = await evaluate_policy(parts.pipeline, config, inputs.heldout, "after", run_dir)
        report = summary(facts, parity, before, after, ledger)
        report["bound"] = bound_by(totals(list(records(run_dir / METRICS))))
        write_summary(run_dir / SUMMARY, report)
        print_summary(report, run_dir)

    async def _checked(self, parts: Parts, lineage: Lineage) -> tuple[Parity, Lineage]:
        """Compare engines and learner, again with a new learner when it is lost. Returns the lineage that goes on."""
        with awaiting("first completions and log-probs (compilation)"):
            while True:
                try:
                    gang, samples = parts.learner.gang, self.inputs.train.items
                    return await check_parity(parts.pipeline, gang, samples, self.draw, self.config), lineage
                except ActorLost as error:
                    lineage = await self._relearned(error, lineage, parts)

    async def _train_to_the_end(self, parts: Parts, lineage: Lineage) -> tuple[RunFacts, Ledger]:
        """Train; when the learner is lost, go on from the last checkpoint with a new one."""
        while True:
            try:
                training = Training(self.config, self.run_dir, self.inputs, parts, self.draw, lineage)
                return await self._train(training), training.ledger
            except ActorLost as error:
                lineage = await self._relearned(error, lineage, parts)

    async def _relearned(self, error: ActorLost, lost: Lineage, parts: Parts) -> Lineage:
        return await relearn(error, lost, self.run_dir, parts, self.journal, self.config.limits.publish_s)

    async def _train(self, training: Training) -> RunFacts:
        """The algorithm. Returns facts about the training."""
        config, limits, parts = self.config, self.config.limits, training.parts
        admission, maker, learner, evaluations = training.admission, training.maker, parts.learner, training.evaluations
        folder, last_step = self.run_dir / CHECKPOINTS, training.begin.saved_step
        saves = CheckpointWriter(learner.gang, folder, config.checkpoint, last_step, best=training.best)
        with training.report as report, self.interruption.can_save(maker.wake):
            try:
                parts.watch_weights(maker.wake)
                await training.restore(self.interruption)
                if admission.step == config.steps:  # the folder of the model may hold another step's
                    await learner.export(self.run_dir / "model")
                while admission.step < config.steps:
                    began = time.monotonic()
                    while (batch := admission.take_batch()) is None:
                        training.begin_groups()
                        await parts.republish_if_lost(admission.version)
                        await maker.wait(limits.stall_s)
                        await asyncio.to_thread(saves.poll)
                        evaluations.poll()
                        await self._leave_if_asked(training, saves)
                    waited_s = time.monotonic() - began
                    groups, last = training.taken(batch), admission.step + 1 == config.steps
                    check_versions([ready.scored.group for ready in groups.values()], batch.version)
                    metrics = await learner.train(list(groups.values()), admission.step, parts.pipeline.store)
                    if training.is_skipped(metrics, groups):
                        continue
                    if last:  # before anything can fail: the model is what the run was for
                        await learner.export(self.run_dir / "model")
                    await report.show(admission.step + 1, groups[batch.groups[0]])
                    version, step = training.step_ended(groups), admission.step
                    training.begin_groups()
                    if published := admission.publish_due or last:
                        await parts.publish(version, limits.publish_s)
                    metrics["skipped"] = training.skipped.total
                    times = StepTimes(began, waited_s, time.monotonic() - began)
                    await asyncio.to_thread(saves.poll)
                    evaluations.poll()
                    lost = {"disk/failed_ledger_writes": self.journal.lines.failed}
                    counts = saves.metrics() | parts.weights.metrics | evaluations.metrics() | lost
                    report.step_ended(step, batch, list(groups.values()), metrics, times, counts)
                    evaluate = evaluations.due(step, version, published)
                    if saves.due(step, last) or (evaluate and config.checkpoint.best is not None):
                        await self._checkpoint(training, saves)
                    if evaluate:  # beside training, unless there is a single engine
                        await evaluations.begin(self.interruption)
                    await self._leave_if_asked(training, saves)
                await evaluations.finish(self.interruption)
                await asyncio.to_thread(saves.finish)
                await self._leave_if_asked(training, saves)
                await maker.stop()
            finally:
                await evaluations.cancel()
                await maker.cancel()
        await parts.pipeline.rollout_pool.settled()
        training.ledger.check()
        best = training.best.best
        return RunFacts(report.ages, config.pacing.worst_age, report.seconds, installed_versions(), best)

    async def _checkpoint(self, training: Training, saves: CheckpointWriter) -> None:
        """Begin to save a checkpoint of now."""
        step, state = training.admission.step, training.state().plain()
        if not self.journal.checkpoint(step):
            saves.gave_up(step, f"{self.journal.lines.path}, without which it is of no use, cannot be written")
            return
        if not await asyncio.to_thread(training.report.sync):
            saves.gave_up(step, f"it must not outlive the lines of its steps, which {self.run_dir} has no room for")
            return
        await asyncio.to_thread(saves.begin, step, state)

    async def _leave_if_asked(self, training: Training, saves: CheckpointWriter) -> None:
        """Save a checkpoint and raise Interrupted if a signal has asked the run to end."""
        signal, step = self.interruption.requested, training.admission.step
        if signal is None:
            return
        await asyncio.to_thread(saves.finish)
        if saves.last_step != step:
            await self._checkpoint(training, saves)
            await asyncio.to_thread(saves.finish)
            saves.require(step)
        raise Interrupted(f"{signal}: {saved_line(self.run_dir, step)}")
