"""Brings admitted groups to ready or to rejected: frames, prompt, trajectories, claims, verdicts, rewards.

Guarantees: every group that begins ends ready or rejected with a reason, in the ledger and in admission alike; a
generation that fails, or whose frames are lost with a node, is repeated until the ledger calls it poison; nothing
made up ever enters a reward.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import ray

from evidence.errors import RunFailed, UnreadableMedia
from evidence.types import Group, Prompt, Sample, ScoredGroup, Trajectory
from learner.settings import PackingConfig
from orchestration.loop.admission import Admission
from orchestration.loop.batches import cut_short, over_budget
from orchestration.loop.ledger import Ledger, State
from orchestration.loop.pipeline import Draw, Pipeline
from orchestration.loop.rejections import ZERO_VARIANCE, no_variance
from orchestration.loop.stall_watch import StallWatch
from orchestration.reporting.stalls import Stage
from orchestration.supervision.waiting import first_line
from referee.reward.asking import answered
from referee.terms.view import GroupView
from rollout.frames.store import Lease

# What became of tokens that were drawn, besides being trained or rejected for a reason.
TRAINED, REGENERATED, CONTRAST = "trained", "regenerated", "contrast"

log = logging.getLogger(__name__)


class Stalled(RunFailed):
    """No group ends any more."""


@dataclass(frozen=True)
class ReadyGroup:
    """A scored group and its frames, which are released once it is trained. `asking`: from when to when it waited for
    the referee, by time.monotonic."""

    scored: ScoredGroup
    lease: Lease
    asking: tuple[float, float]


class GroupMaker:
    """The groups under way and those that are ready, which stay so until `release`, also while they are trained. To be
    used from one event loop."""

    def __init__(
        self,
        pipeline: Pipeline,
        admission: Admission,
        ledger: Ledger,
        draw: Draw,
        packing: PackingConfig,
        seed: int,
        steps: int,
        dynamic_sampling: bool = False,
        overlong_filtering: bool = False,
    ):
        """`draw`: how the completions of each group are drawn. `steps`: of the whole run, for its training progress.
        `dynamic_sampling`: a group whose rewards are all equal is rejected, and another prompt takes its place.
        `overlong_filtering`: so is a group whose completions were all cut at the limit."""
        self.pipeline, self.admission, self.ledger = pipeline, admission, ledger
        self.draw, self.packing, self.seed, self.steps = draw, packing, seed, steps
        self.dynamic_sampling, self.overlong_filtering = dynamic_sampling, overlong_filtering
        self.ready: dict[int, ReadyGroup] = {}
        self.progress = asyncio.Event()  # set whenever a group became ready or was rejected
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._watch = StallWatch(pipeline, admission, lambda: self.ready)

    def begin(self, group: int, sample: Sample) -> None:
        """Admit the group and start it; `ready`, the ledger and `progress` report its end."""
        self.ledger.add(group, sample.id)
        self.admission.admit(group)
        self._start(group, sample)

    async def restore(
        self, queue: Sequence[tuple[int, Sample]], ready: Mapping[int, ScoredGroup], limit_s: float
    ) -> None:
        """Go on with the groups of a checkpoint, in the order of its `queue`; those not `ready` are begun again.

        So are those whose frames are not what they were, since the file has changed or another decoder reads it now.
        Raises RunFailed if the frames of the ready groups do not fit the store together within `limit_s` seconds.
        """
        try:
            async with asyncio.timeout(limit_s):
                # First, since they all had their frames at once: a group that is begun might take their room.
                held = (self._hold(group, sample, ready[group]) for group, sample in queue if group in ready)
                await asyncio.gather(*held)
        except TimeoutError:
            raise RunFailed(
                f"the frames of {len(ready)} groups of the checkpoint do not fit the frame store, or could not be "
                f"decoded, within {limit_s:g} s; raise cluster.frames_gib"
            ) from None
        for group, sample in queue:
            if group in self.ready:
                self.admission.restore(group, ready[group].group.oldest_version)
                continue
            if group in ready:
                self.ledger.requeue(group, "frames changed")
                self.count_tokens(REGENERATED, ready[group].group.trajectories)
            self.admission.admit(group)
            self._start(group, sample)

    async def _hold(self, group: int, sample: Sample, scored: ScoredGroup) -> None:
        """Keep a ready group of a checkpoint, with its frames, if they are what they were."""
        try:
            lease, _ = await self.pipeline.prepare(sample)
        except UnreadableMedia as error:
            log.warning("group %d: %s", group, error)
            return
        if lease.info.key != scored.group.frames.key:
            # Where a decoder died, the second one may have read a file that the first one reads now.
            log.warning(
                "group %d is generated again: %s has changed since the checkpoint, or another decoder reads it",
                group,
                sample.media_path,
            )
            lease.release()
            return
        now = time.monotonic()
        self.ready[group] = ReadyGroup(replace(scored, group=replace(scored.group, sample=sample)), lease, (now, now))

    def _start(self, group: int, sample: Sample) -> None:
        self._tasks[group] = asyncio.create_task(self._make(group, sample))

    def wake(self) -> None:
        """End `wait` at once."""
        asyncio.get_running_loop().call_soon_threadsafe(self.progress.set)

    def on_stall(self, tell: Callable[[str], object]) -> None:
        """Call `tell`, too, with what stderr gets when no group ends for long."""
        self._watch.tell = tell

    async def wait(self, limit_s: float) -> None:
        """Wait until a group ends. Raises Stalled, with who waits for whom, after `limit_s`, and what a group's task
        raised, which is a defect."""
        self._watch.learner_waits(limit_s)
        try:
            async with asyncio.timeout(limit_s):
                await self.progress.wait()
        except TimeoutError:
            states = ", ".join(f"{count} {state}" for state, count in self.ledger.counts().items() if count)
            stalled = f"no group ended within {limit_s:g} s (limits.stall_s); the groups are {states}"
            raise Stalled(f"{stalled}\n{self._watch.report()}") from None
        self._watch.learner_waited()
        self.progress.clear()
        for group in [g for g, task in self._tasks.items() if task.done()]:
            self._tasks.pop(group).result()

    def release(self, group: int, outcome: str) -> None:
        """Forget a ready group, whose step has ended or was skipped, and release its frames. `outcome`: of its
        tokens."""
        ready = self.ready.pop(group)
        self.count_tokens(outcome, ready.scored.group.trajectories)
        ready.lease.release()

    def count_tokens(self, outcome: str, trajectories: Sequence[Trajectory]) -> None:
        self.pipeline.tokens[outcome] += sum(len(trajectory.token_ids) for trajectory in trajectories)

    async def cancel(self) -> None:
        """Cancel the groups under way and release the frames of those that are ready. The ledger keeps their states."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for ready in self.ready.values():
            ready.lease.release()
        self._tasks, self.ready = {}, {}

    async def stop(self) -> None:
        """Cancel the groups under way; they end rejected("run ended")."""
        await self.cancel()
        for state in (State.PENDING, State.GENERATING, State.SCORING, State.READY):
            for group in self.ledger.groups(state):
                self.ledger.reject(group, "run ended")

    async def _make(self, group: int, sample: Sample) -> None:
        lease = None
        self._watch.enter(group, Stage.FRAMES)
        try:
            # Held across attempts: a group that is generated again keeps its place in the queue for frames, too.
            lease, prompt = await self.pipeline.prepare(sample)
            while self.ledger.state(group) is State.PENDING:
                await lease.renew()
                self._watch.enter(group, Stage.ENGINE)
                await self._attempt(group, sample, prompt, lease)
        except UnreadableMedia as error:
            log.warning("group %d: %s", group, error)
            self._reject(group, "unreadable media")
        finally:
            if lease is not None and group not in self.ready:
                lease.release()
            self._watch.leave(group)
            self.progress.set()

    async def _attempt(self, group: int, sample: Sample, prompt: Prompt, lease: Lease) -> None:
        frames, info = lease.frames, lease.info
        self.ledger.generate(group)
        trajectories: tuple[Trajectory, ...] = ()
        try:
            trajectories, oldest = await self._generate(group, prompt, frames, self.draw.n)
            if over_budget(prompt, trajectories, self.packing):
                self._reject(group, "over_budget", trajectories)
                return
            if self.overlong_filtering and cut_short(trajectories).all():
                self._reject(group, "overlong", trajectories)
                return
            self.ledger.score(group)
            view = await self._view(group, sample, prompt, lease, trajectories)
            self._watch.enter(group, Stage.REFEREE)
            began = time.monotonic()
            view = await answered(view, self.pipeline.reward, self.pipeline.referee, info, frames)
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, TimeoutError) as error:
            # A death or a delay can be chance; anything else, such as a prompt mismatch, is a defect and ends the run.
            self.pipeline.store.lost(error)
            self.pipeline.counts["failed generations"] += 1
            self.count_tokens(REGENERATED, trajectories)
            log.warning("group %d: %s", group, first_line(error))
            if self.ledger.fail(group, type(error).__name__) is State.REJECTED:
                self.admission.reject(group)
            return
        reward = self.pipeline.reward.score(view)
        self.pipeline.counts.update(reward.counts)
        if self.dynamic_sampling and no_variance(reward.rewards, reward.paid):
            self._reject(group, ZERO_VARIANCE, trajectories)
            return
        generated = Group(group, sample, info, prompt, trajectories, oldest)
        scored = ScoredGroup(generated, reward.rewards, reward.terms, reward.paid, reward.weights, reward.evidence)
        self.ready[group] = ReadyGroup(scored, lease, (began, time.monotonic()))
        self.ledger.ready(group)
        self.admission.ready(group, oldest)

    async def _generate(
        self, group: int, prompt: Prompt, frames: ray.ObjectRef, n: int, order: tuple[int, ...] | None = None
    ) -> tuple[tuple[Trajectory, ...], int]:
        draw = self.draw
        # The seed is the group's, so that what is drawn does not depend on when.
        seed = self.seed * 1_000_003 + group
        return await self.pipeline.rollout_pool.generate(
            self.admission.may_start, prompt, frames, n, draw.temperature, draw.max_tokens, seed, order
        )

    async def _view(
        self, group: int, sample: Sample, prompt: Prompt, lease: Lease, trajectories: tuple[Trajectory, ...]
    ) -> GroupView:
        """What the reward sees of a group, before the referee is asked."""
        pipeline = self.pipeline
        view = pipeline.view(sample, lease.info, trajectories, self.admission.step / self.steps)
        frames = len(lease.info.times)
        if frames > 1 and "contrast" in pipeline.reward.needs_for(sample.task):
            # T-GRPO: half as many completions on the frames in another order; they are never trained on.
            order, half = another_order(frames, [self.seed, group]), max(1, self.draw.n // 2)
            shuffled, _ = await self._generate(group, prompt, lease.frames, half, order)
            self.count_tokens(CONTRAST, shuffled)
            view = replace(view, contrast=pipeline.view(sample, lease.info, shuffled, view.progress))
        return view

    def _reject(self, group: int, reason: str, trajectories: Sequence[Trajectory] = ()) -> None:
        self.count_tokens(reason, trajectories)
        self.ledger.reject(group, reason)
        self.admission.reject(group)


def another_order(frames: int, seed: list[int]) -> tuple[int, ...]:
    """A random order of 2 or more frames that is not the given one, which would be no contrast to itself."""
    rng = np.random.default_rng(seed)
    given, order = list(range(frames)), list(range(frames))
    while order == given:
        order = rng.permutation(frames).tolist()
    return tuple(order)
