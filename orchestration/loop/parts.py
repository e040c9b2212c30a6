"""The parts of a training run, started together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import ray

from evidence.supervision import Restarts, actor_class
from orchestration.cluster_settings import ClusterConfig
from orchestration.loop.learner_step import Learner
from orchestration.loop.pipeline import Pipeline
from orchestration.reporting.awaiting import awaiting
from orchestration.settings import TrainConfig
from orchestration.supervision.cluster import NAMESPACE
from orchestration.supervision.engines import engine_sizes, policy_engine, referee_engine
from orchestration.supervision.fleet import PING_S
from orchestration.supervision.referee_pool import make_referee
from orchestration.supervision.rollout_pool import RolloutPool, RolloutPoolLost
from orchestration.supervision.waiting import ActorLost, died, no_answer
from orchestration.supervision.weights import PublishedWeights, WeightsActor
from referee.reward.graph import RewardGraph
from rollout.engine import WeightStore
from rollout.frames.store import FrameStore
from rollout.prompt import ChatEncoder

T = TypeVar("T")


@dataclass
class Parts:
    """pipeline: what groups pass through. learner: the ranks. weights: the published ones. make_learner: starts the
    ranks with the initial weights. learner_restarts: when that may be done again."""

    pipeline: Pipeline
    learner: Learner
    weights: PublishedWeights
    make_learner: Callable[..., Learner]
    learner_restarts: Restarts
    _dropped: int | None = None  # the version that no engine could load and that was published again
    _watching: asyncio.Task[None] | None = None

    def restart_learner(self) -> None:
        """Replace the ranks, of which one or more were lost, by new ones with the initial weights."""
        self.learner.stop()
        self.learner = self.make_learner()

    async def publish(self, version: int, limit_s: float) -> None:
        """Copy the learner's weights out, which the next step waits for. The engines load them while it runs.

        An engine that still loads the version before is waited for, since only two versions are held; one that is being
        restarted is not. If the weights actor dies, its successor collects the weights. Raises ActorLost, and
        WeightsLost.
        """
        await self.pipeline.rollout_pool.settled()
        doing = f"publishing weights {version}"
        try:
            await self.weights.publish(version, self.learner.gang.ranks, limit_s)
        except (TimeoutError, ray.exceptions.RayTaskError) as error:
            # The peers of a dead rank wait for it, or fail of its death before that is known.
            ranks = await asyncio.to_thread(self.learner.gang.dead)
            if ranks:
                raise ActorLost(died(", ".join(ranks), doing)) from None
            if not isinstance(error, TimeoutError):
                raise
            raise ActorLost(no_answer("the weights actor or a learner rank", doing, limit_s, "publish_s")) from None
        self.pipeline.rollout_pool.update(version)

    def watch_weights(self, wake: Callable[[], object]) -> None:
        """From now on, look for weights that were lost, and call `wake` when `republish_if_lost` has work to do. A
        later call replaces `wake`."""
        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.create_task(self._watch(wake))

    async def _watch(self, wake: Callable[[], object]) -> None:
        known = (False,) * 3
        while True:
            await asyncio.sleep(min(PING_S, self.weights.limits.heartbeat_s / 4))
            await self.weights.check()
            weights = self.weights
            work = weights.lost, weights.full_wanted, self.pipeline.rollout_pool.unloadable is not None
            if any(work) and work != known:  # a loop that is woken again and again would never seem stalled
                wake()
            known = work

    async def republish_if_lost(self, version: int) -> None:
        """Publish the learner's present weights as `version` if the published ones were lost with the weights actor, if
        no engine can load them, or if a mirror needs all of them. Call it between steps, since the ranks run their
        calls in order.

        Raises ActorLost, WeightsLost, and RolloutPoolLost if no engine can load weights that were published again.
        """
        refusal = self.pipeline.rollout_pool.unloadable
        # Engines refuse weights that were lost, too.
        if refusal is not None and not self.weights.lost and await self.weights.check():
            if self._dropped == version:
                raise RolloutPoolLost(f"no rollout engine can load weights {version}, published twice: {refusal}")
            self._dropped = version
            await self.weights.drop(mirrors=True)
            await self.publish(version, self.weights.limits.publish_s)
        elif self.weights.lost:
            await self.weights.restored()
            await self.publish(version, self.weights.limits.publish_s)
        elif self.weights.full_wanted:
            await self.weights.drop(mirrors=False)
            await self.publish(version, self.weights.limits.publish_s)


async def start_parts(config: TrainConfig, encoder: ChatEncoder, images: int) -> Parts:
    """Start all actors, at once where they do not compete for GPUs, since engines take long to start. `images`: the
    most that one prompt shows."""
    cluster = config.cluster
    context = ray.get_runtime_context()
    name = f"ser-weights-{context.get_job_id()}"  # two runs may share a cluster
    actor = actor_class(WeightsActor).options(name=name).remote(config.pacing.full_every)
    weights = PublishedWeights(actor, config.limits)
    engine = policy_engine(config, images)
    rollout_pool = RolloutPool(
        engine,
        encoder.banned_ids,
        WeightStore(context.gcs_address, NAMESPACE, name),
        cluster.rollout_engines,
        cluster.gpus_per_engine,
        config.limits,
    )
    referee = make_referee(
        config.model.referee,
        config.referee,
        config.verification,
        partial(referee_engine, engine_sizes(config), cluster),
        cluster.gpus_per_engine,
        config.limits,
    )
    frames_bytes = int(cluster.frames_gib * 2**30)
    pipeline = Pipeline(
        rollout_pool=rollout_pool,
        referee=referee,
        store=FrameStore(config.contract, frames_bytes, config.frames, holders=config.pacing.groups_per_step),
        encoder=encoder,
        template=config.template,
        reward=RewardGraph(config.reward),
        max_tokens=config.sampling.max_tokens,
    )
    make_learner = partial(Learner, config, engine.model, encoder.banned_ids)
    learner = await _started(cluster, rollout_pool.start, referee.start, make_learner)
    return Parts(pipeline, learner, weights, make_learner, Restarts(config.limits.restarts_per_hour))


async def _started(
    cluster: ClusterConfig,
    start_engines: Callable[[], Awaitable[None]],
    start_referee: Callable[[], Awaitable[None]],
    make_learner: Callable[..., Learner],
) -> Learner:
    """Start the parts. On GPUs, the ranks are placed before any engine, so that they stand together. On one GPU that
    all share, each part waits until the one before has loaded: vLLM measures what it may use of a GPU's memory, and
    fails if another process changes that meanwhile."""
    placed, loaded, ranks_loaded = asyncio.Event(), asyncio.Event(), asyncio.Event()
    engines_may = ranks_loaded if cluster.colocated else placed
    referee_may = loaded if cluster.colocated else placed
    if not cluster.gpus_per_rank:
        placed.set()

    async def engines() -> None:
        await engines_may.wait()
        await start_engines()
        loaded.set()

    async def referee() -> None:
        await referee_may.wait()
        await start_referee()

    async def ranks() -> Learner:
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, placed.set)
        learner = await asyncio.to_thread(make_learner, tell)
        ranks_loaded.set()
        return learner

    _, _, learner = await asyncio.gather(
        _announced("rollout engines", engines()),
        _announced("referee", referee()),
        _announced("learner ranks", ranks()),
    )
    return learner


async def _announced(part: str, start: Awaitable[T]) -> T:
    with awaiting(part):
        return await start
