"""`ser train`: asynchronous evidence RL, from the start of the parts to summary.json.

The algorithm is `_steps`, to be read from top to bottom. Synchronous training is the same loop with staleness 0
(promise 1): admission then lets nothing start before the step has ended and its weights have arrived.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import ray

from evidence.errors import BadInput
from evidence.sampling import resolved
from evidence.types import Sample
from orchestration.config import to_yaml
from orchestration.loop.admission import Admission, Batch
from orchestration.loop.group_maker import Draw, GroupMaker, Pipeline, ReadyGroup, waited_for_referee
from orchestration.loop.heldout import as_evaluation, evaluate, write_records
from orchestration.loop.learner_step import Learner
from orchestration.loop.ledger import Ledger
from orchestration.loop.parity import check_parity
from orchestration.loop.rejections import NOT_FINITE, RejectionWatch
from orchestration.loop.skipped_steps import SkippedSteps
from orchestration.preflight import (
    most_images,
    note_box_space,
    readable_samples,
    require_budget,
    require_folder,
    require_frames_fit,
    require_length,
    require_referee,
    require_tasks,
    require_tiles,
)
from orchestration.reporting import metrics as reporting
from orchestration.reporting.reward_log import RewardLog
from orchestration.reporting.samples import write_samples
from orchestration.reporting.summary import (
    Evaluation,
    RunFacts,
    comparison,
    in_both,
    installed_versions,
    training,
    write_summary,
)
from orchestration.settings import TrainConfig
from orchestration.supervision.cluster import NAMESPACE, run_directory, start_ray
from orchestration.supervision.engines import policy_engine, referee_engine, sizes_of
from orchestration.supervision.referee_pool import make_referee
from orchestration.supervision.rollout_pool import RolloutPool
from orchestration.supervision.weights import WeightsActor
from referee.reward.graph import RewardGraph
from rollout.dataset.mix import Mixture
from rollout.engine import WeightStore
from rollout.frames.store import FrameStore
from rollout.prompt import ChatEncoder

TAKEN = "run_dir = {}: a run lies there already; name another folder or remove it"


def main(config: TrainConfig) -> None:
    """Check everything that can be checked before anything starts or is written, then run. Raises BadInput."""
    run_dir = run_directory(config.run_dir)
    if (run_dir / "config.yaml").exists():
        raise BadInput(TAKEN.format(config.run_dir))
    encoder = ChatEncoder(config.model.policy)
    config = replace(config, contract=resolved(config.contract, encoder.tile))
    shares = config.data.train
    parts, looked_at = zip(*(readable_samples(share, config.contract, config.frames) for share in shares))
    train = Mixture(parts, [share.weight for share in shares], config.seed)
    require_tasks(config.reward, train.items)
    heldout, _ = readable_samples(config.data.heldout, config.contract, config.frames)
    heldout = heldout[: config.eval.samples]
    if len(heldout) < config.eval.samples:
        file = config.data.heldout.path
        raise BadInput(f"eval.samples = {config.eval.samples}: {file} has {len(heldout)}; ask for fewer")
    note_box_space(encoder.family, config.template)
    require_tiles(encoder.tile, config.contract, "policy")
    for source in config.model.referee:
        require_referee(source, config.contract, config.verification)
    samples = [*train.items, *heldout]
    room = "cluster.frames_gib", config.cluster.frames_gib
    require_frames_fit(config.contract, samples, config.pacing.groups_per_step, *room)
    longest = config.sampling.max_tokens
    require_length(encoder, config.contract, config.template, samples, longest, config.sampling.max_model_len)
    require_budget(encoder, config.template, looked_at, longest, config.learner.packing.token_budget)
    for key, folder in (("frames", config.frames.cache_dir), ("referee", config.referee.cache_dir)):
        if folder:
            require_folder(f"{key}.cache_dir", folder)
    with start_ray(config.cluster.object_store_gib, config.gpus):
        claim(run_dir, config)
        asyncio.run(Run(config, run_dir, encoder).run(train, heldout))


def claim(run_dir: Path, config: TrainConfig) -> None:
    """Write config.yaml. Raises BadInput if it is there: of two runs that are begun at once, one gets the folder."""
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (run_dir / "config.yaml").open("x") as file:
            file.write(to_yaml(config))
    except FileExistsError:
        raise BadInput(TAKEN.format(config.run_dir)) from None


class Run:
    """One training run and the parts it owns."""

    def __init__(self, config: TrainConfig, run_dir: Path, encoder: ChatEncoder):
        self.config, self.run_dir, self.encoder = config, run_dir, encoder
        self.admission = Admission(config.pacing)
        self.ledger = Ledger()
        self.rejections = RejectionWatch(self.ledger, config.pacing)
        self.rewards = RewardLog(config.reward, config.agreement)
        self.ages: list[int] = []

    async def run(self, train: Mixture[Sample], heldout: list[Sample]) -> None:
        config = self.config
        print(f"{self.run_dir}: starting engines and learner (about a minute on a CPU)", flush=True)
        await self._start_parts(most_images(config.contract, [*train.items, *heldout]))
        await check_parity(self.pipeline, self.learner.gang, train.items, self._draw(), config)
        before = await self._evaluate("before", heldout)
        start = time.monotonic()
        await self._steps(train)
        wall_s = time.monotonic() - start
        self.learner.gang.export(self.run_dir / "model", config.learner.export_dtype)
        self.learner.stop()
        after = await self._evaluate("after", heldout)
        self._report(before, after, wall_s)

    async def _start_parts(self, images: int) -> None:
        """All actors at once: engines take longest to start. `images`: the most that one prompt shows."""
        config, cluster = self.config, self.config.cluster
        context = ray.get_runtime_context()
        name = f"ser-weights-{context.get_job_id()}"  # two runs may share a cluster
        self.weights = WeightsActor.options(name=name).remote()
        store = WeightStore(context.gcs_address, NAMESPACE, name)
        engine = policy_engine(config, images)
        rollout_pool = RolloutPool(
            engine,
            self.encoder.banned_ids,
            store,
            cluster.rollout_engines,
            cluster.gpus_per_engine,
            cluster.timeout_s,
        )
        referee = make_referee(
            config.model.referee,
            config.referee,
            config.verification,
            partial(referee_engine, sizes_of(config), cluster),
            cluster.gpus_per_engine,
        )
        frames_bytes = int(cluster.frames_gib * 2**30)
        self.pipeline = Pipeline(
            rollout_pool=rollout_pool,
            referee=referee,
            store=FrameStore(config.contract, frames_bytes, config.frames, holders=config.pacing.groups_per_step),
            encoder=self.encoder,
            template=config.template,
            reward=RewardGraph(config.reward),
        )
        _, _, self.learner = await asyncio.gather(
            rollout_pool.start(),
            referee.start(),
            asyncio.to_thread(Learner, config, engine.model, self.encoder.banned_ids),
        )

    async def _steps(self, train: Mixture[Sample]) -> None:
        """The algorithm."""
        config, admission = self.config, self.admission
        groups = config.steps * config.pacing.groups_per_step
        draw, packing, dynamic = self._draw(), config.learner.packing, config.algorithm.dynamic_sampling
        maker = GroupMaker(self.pipeline, admission, self.ledger, draw, packing, config.seed, groups, dynamic)
        with (
            reporting.RunLog(self.run_dir, asdict(config), config.wandb) as log,
            reporting.Progress(config.steps) as progress,
        ):
            step, skips = 1, SkippedSteps(config.learner.max_skipped)
            while step <= config.steps:
                started = time.monotonic()
                while (batch := admission.take_batch()) is None:
                    self._fill(maker, train)
                    await maker.wait(config.cluster.timeout_s)
                waited = time.monotonic() - started
                groups = [maker.ready.pop(group) for group in batch.groups]
                metrics = await self.learner.train(groups, admission.version, self.pipeline.store)
                if skips.count(metrics, f"step {step}, groups {', '.join(map(str, batch.groups))}"):
                    self._give_up(batch, groups)
                    continue
                for group, ready in zip(batch.groups, groups):
                    self.ledger.train(group, step)
                    ready.lease.release()
                self.rejections.step_ended()
                version = admission.step_ended()
                self._fill(maker, train)
                await self._publish(version, last=step == config.steps)
                metrics["skipped"] = skips.total
                self._record(log, progress, batch, groups, metrics, started, waited, time.monotonic() - started)
                step += 1
        await maker.stop()
        await self.pipeline.rollout_pool.settled()
        self.ledger.check()

    def _fill(self, maker: GroupMaker, train: Mixture[Sample]) -> None:
        """Begin groups while slots are free and the steps left need them: one for each that was rejected, too. Have the
        frames of those after them decoded ahead."""
        self.rejections.check(maker.begun)
        rejected = self.ledger.counts()["rejected"]
        wanted = self.config.steps * self.config.pacing.groups_per_step + rejected
        while self.admission.free and maker.begun < wanted:
            maker.begin(maker.begun, train[maker.begun])
        ahead = range(maker.begun, min(maker.begun + self.config.pacing.groups_per_step, wanted))
        self.pipeline.look_ahead(train[group] for group in ahead)

    def _give_up(self, batch: Batch, groups: list[ReadyGroup]) -> None:
        """A step that changed nothing is none: its groups are never trained, others will take their place."""
        for group, ready in zip(batch.groups, groups):
            self.ledger.reject(group, NOT_FINITE)
            ready.lease.release()
        self.admission.step_skipped()

    async def _publish(self, version: int, last: bool) -> None:
        """Copy the weights out, which the next step must wait for; the engines load them while it runs.

        An engine that still loads the version before is waited for: only two versions are held.
        """
        if not (self.admission.publish_due or last):
            return
        await self.pipeline.rollout_pool.settled()
        timeout_s = self.config.cluster.timeout_s
        async with asyncio.timeout(timeout_s):
            await self.weights.publish.remote(version, self.learner.gang.ranks, timeout_s)
        self.pipeline.rollout_pool.update(version)

    def _record(
        self,
        log: reporting.RunLog,
        progress: reporting.Progress,
        batch: Batch,
        groups: list[ReadyGroup],
        metrics: dict[str, float],
        since: float,
        waited: float,
        seconds: float,
    ) -> None:
        self.ages += batch.ages
        step = self.admission.version
        scored = [ready.scored for ready in groups]
        rewards = self.rewards.step(scored)
        trajectories = [t for one in scored for t in one.group.trajectories]
        log.log(
            step,
            {
                **rewards,
                **{f"learner/{name}": value for name, value in metrics.items()},
                "staleness/mean": float(np.mean(batch.ages)),
                "staleness/max": max(batch.ages),
                "staleness/bound": self.config.pacing.worst_age,
                "time/step_s": seconds,
                "time/wait_s": waited,
                "time/wait_referee_s": waited_for_referee(groups, since),
                "rollout/tokens": float(np.mean([len(t.token_ids) for t in trajectories])),
                "rollout/cut_short": float(np.mean([t.finish_reason == "length" for t in trajectories])),
                "rollout/versions": float(np.mean([len(t.version_spans) for t in trajectories])),
                **{f"frames/{name}": n for name, n in self.pipeline.store.counters().items()},
                "engines/restarts": self.pipeline.rollout_pool.restarts + self.pipeline.referee.restarts,
                **{f"ledger/{name}": n for name, n in self.ledger.counts().items()},
                **{f"rejected/{name}": n for name, n in self.ledger.rejections().items()},
                **{f"evidence/{name}": n for name, n in self.pipeline.counts.items()},
                **{f"referee/{name}": n for name, n in self.pipeline.referee.counters().items()},
            },
        )
        write_samples(self.run_dir / "samples.jsonl", step, groups[0].scored)
        ser = f"  r_SER {rewards['reward/ser']:.3f}" if "reward/ser" in rewards else ""
        progress.update(
            step,
            f"reward {rewards['reward']:.3f}{ser}  staleness {np.mean(batch.ages):.2f}"
            f"  {len(trajectories) / seconds:.1f} samples/s",
        )

    async def _evaluate(self, when: str, heldout: list[Sample]) -> list[Evaluation]:
        """Greedy, and at the training temperature; nothing if the config asks for no samples."""
        if not heldout:
            return []
        started = time.monotonic()
        draw, found = self._draw(), []
        for name, temperature in (("greedy", 0.0), ("sampled", draw.temperature)):
            one = Draw(1, temperature, draw.max_tokens)
            records = await evaluate(self.pipeline, self.config.eval.ser, heldout, one, self.config.seed)
            write_records(self.run_dir / f"heldout_{when}_{name}.jsonl", records)
            found.append(as_evaluation(records))
        print(
            f"held-out clips {when}: r_SER {found[0].reward.mean():.3f}, box IoU {found[0].iou.mean():.3f}, accuracy "
            f"{found[0].accuracy.mean():.3f} (greedy, {len(found[0].clips)} of {len(heldout)} clips readable, "
            f"{time.monotonic() - started:.0f} s)",
            flush=True,
        )
        return found

    def _report(self, before: list[Evaluation], after: list[Evaluation], wall_s: float) -> None:
        facts = RunFacts(self.ages, self.config.pacing.worst_age, wall_s, installed_versions())
        report = training(facts)
        if before and after:
            report |= comparison(*in_both(before[0], after[0]))
            report["sampled"] = comparison(*in_both(before[1], after[1]))
        report["outcomes"] = self.ledger.counts() | {f"rejected: {k}": n for k, n in self.ledger.rejections().items()}
        write_summary(self.run_dir / "summary.json", report)
        reporting.print_summary(report, self.run_dir)

    def _draw(self) -> Draw:
        sampling = self.config.sampling
        return Draw(sampling.group_size, sampling.temperature, sampling.max_tokens)
