"""One prompt's way through the house: frames, prompt, trajectories, claims, verdicts, rewards.

Guarantees: every group that is begun ends ready or rejected with a reason, in the ledger and for admission alike; a
generation that fails, or whose frames are lost with a node, is tried again until the ledger calls it poison; nothing
made up ever enters a reward.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import ray

from evidence import spaces
from evidence.errors import RunFailed, UnreadableMedia
from evidence.grammar import Completion
from evidence.sampling import shown_key_times
from evidence.types import FrameInfo, Group, Prompt, Sample, ScoredGroup, Trajectory, Verdict
from learner.settings import PackingConfig
from orchestration.loop.admission import Admission
from orchestration.loop.batches import over_budget
from orchestration.loop.ledger import Ledger, State
from orchestration.loop.rejections import ZERO_VARIANCE, no_variance
from orchestration.supervision.referee_pool import Referee
from orchestration.supervision.rollout_pool import RolloutPool
from referee.reward.graph import RewardGraph
from referee.reward.ser import Ser
from referee.terms.view import GroupView
from rollout.frames.store import FrameStore, Lease
from rollout.prompt import ChatEncoder, build_prompt
from rollout.template import PromptTemplate

log = logging.getLogger(__name__)
T = TypeVar("T")
F = TypeVar("F")


@dataclass(frozen=True)
class Draw:
    """How completions are drawn: `n` of them, at `temperature` (0 is greedy), of at most `max_tokens` tokens."""

    n: int
    temperature: float
    max_tokens: int


@dataclass
class Pipeline:
    """The parts that a group passes through, and what is counted on the way."""

    rollout_pool: RolloutPool
    referee: Referee
    store: FrameStore
    encoder: ChatEncoder
    template: PromptTemplate
    reward: RewardGraph
    counts: Counter[str] = field(default_factory=Counter)

    async def look(self, sample: Sample) -> tuple[Lease, Prompt]:
        """The frames of a sample, to be released by the caller, and its prompt. Raises UnreadableMedia."""
        lease = await self.store.lease(sample.media_path, shown_key_times(sample, self.store.contract))
        try:
            return lease, build_prompt(self.encoder, self.template, sample, lease.info)
        except BaseException:
            lease.release()
            raise

    def look_ahead(self, samples: Iterable[Sample]) -> None:
        """Samples that will be looked at soon, in their order."""
        self.store.prefetch((s.media_path, shown_key_times(s, self.store.contract)) for s in samples)

    async def judge(self, view: GroupView) -> tuple[float | None, ...]:
        """The text judge's score of each answer; no answer is wrong without being asked about."""

        async def score(answer: str | None) -> float | None:
            sample = view.sample
            return 0.0 if answer is None else await self.referee.judge(sample.asked, sample.answer, answer)

        return tuple(await asyncio.gather(*(score(said.answer) for said in view.completions)))

    def read(self, text: str, info: FrameInfo) -> Completion:
        """What the policy wrote of a sample whose frames are `info`, its claims' boxes in pixels of these frames."""
        return spaces.read(text, info, self.template.box_space)

    def view(self, sample: Sample, info: FrameInfo, trajectories: tuple[Trajectory, ...], progress: float) -> GroupView:
        """What the reward sees of trajectories about a sample, before anyone was asked about them."""
        return GroupView(
            sample=sample,
            texts=tuple(t.text for t in trajectories),
            completions=tuple(self.read(t.text, info) for t in trajectories),
            frames=info,
            box_space=self.template.box_space,
            lengths=tuple(len(t.token_ids) for t in trajectories),
            progress=progress,
        )

    async def verify(
        self, ser: Ser, sample: Sample, completions: list[Completion], info: FrameInfo, frames: ray.ObjectRef
    ) -> list[list[Verdict | None]]:
        """The referee's verdicts on the claims of each completion that `ser` has to ask about."""
        asked = [ser.claims_to_verify(completion, sample, info) for completion in completions]
        flat = [claim for claims in asked for claim in claims]
        if not flat:
            return [[] for _ in completions]
        verdicts = iter(await self.referee.verify(sample.asked, flat, info, frames))
        return [[next(verdicts) for _ in claims] for claims in asked]


@dataclass(frozen=True)
class ReadyGroup:
    """A scored group with its frames, to be released once it is trained. `asked`: from when to when it waited for the
    referee (time.monotonic)."""

    scored: ScoredGroup
    lease: Lease
    asked: tuple[float, float]


def waited_for_referee(groups: Iterable[ReadyGroup], since: float) -> float:
    """Seconds after `since` for which the last of a step's groups to be ready was waiting for its verdicts."""
    began, ended = max((ready.asked for ready in groups), key=lambda asked: asked[1])
    return max(0.0, ended - max(began, since))


async def with_frames(
    held: Sequence[tuple[Group, Lease]],
    parts_of: Callable[[list[ray.ObjectRef]], T],
    fetch: Callable[[T], F],
    store: FrameStore,
) -> tuple[T, F]:
    """What the ranks are handed of groups and their frames (`parts_of` these), once they all have the frames there, and
    what `fetch`, which brings them, returns.

    Raises RunFailed where lost frames cannot be had again.
    """
    while True:
        await asyncio.gather(*(_renew(group, lease) for group, lease in held))
        parts = await asyncio.to_thread(parts_of, [lease.frames for _, lease in held])
        try:
            return parts, await asyncio.to_thread(fetch, parts)
        except ray.exceptions.ObjectLostError as error:
            if not store.lost(error):
                raise


async def _renew(group: Group, lease: Lease) -> None:
    """Have the frames of a group decoded anew if they were lost. Raises RunFailed where they would not be the same."""
    try:
        await lease.renew()
    except UnreadableMedia as error:
        raise RunFailed(f"frames were lost with their node, and cannot be decoded anew: {error}") from None
    if lease.info.key != group.frames.key:
        path = group.sample.media_path
        raise RunFailed(f"{path}: its frames were lost with their node, and now only another decoder reads them")


class GroupMaker:
    """Brings admitted groups to ready or to rejected. To be used from one event loop."""

    def __init__(
        self,
        pipeline: Pipeline,
        admission: Admission,
        ledger: Ledger,
        draw: Draw,
        packing: PackingConfig,
        seed: int,
        groups: int,
        dynamic_sampling: bool = False,
    ):
        """`groups`: how many the run will train; the share trained when a group is scored is its training progress.
        `dynamic_sampling`: one whose rewards are all equal ends rejected, for another prompt to take its place."""
        self.pipeline, self.admission, self.ledger = pipeline, admission, ledger
        self.draw, self.packing, self.seed, self.groups = draw, packing, seed, groups
        self.dynamic_sampling = dynamic_sampling
        self.begun = 0
        self.ready: dict[int, ReadyGroup] = {}
        self.progress = asyncio.Event()  # set whenever a group became ready or was rejected
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def begin(self, group: int, sample: Sample) -> None:
        """Admit the group and start its way; its end is told by `ready`, the ledger and `progress`."""
        self.begun += 1
        self.ledger.add(group)
        self.admission.admit(group)
        self._tasks[group] = asyncio.create_task(self._make(group, sample))

    async def wait(self, timeout_s: float) -> None:
        """Until some group ends. Raises what a group's task raised, which only a defect does, and TimeoutError, with
        the states of the groups under way, after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.progress.wait()
        except TimeoutError:
            raise TimeoutError(f"no group ended in {timeout_s:.0f} s; the ledger: {self.ledger.counts()}") from None
        self.progress.clear()
        for group in [g for g, task in self._tasks.items() if task.done()]:
            self._tasks.pop(group).result()

    async def stop(self) -> None:
        """Give up what is under way; it ends rejected("run ended")."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        for ready in self.ready.values():
            ready.lease.release()
        for state in (State.PENDING, State.GENERATING, State.SCORING, State.READY):
            for group in self.ledger.groups(state):
                self.ledger.reject(group, "run ended")

    async def _make(self, group: int, sample: Sample) -> None:
        lease = None
        try:
            # Held across attempts: a group that is generated anew keeps its place in the queue for frames, too.
            lease, prompt = await self.pipeline.look(sample)
            while self.ledger.state(group) is State.PENDING:
                await lease.renew()
                await self._attempt(group, sample, prompt, lease)
        except UnreadableMedia as error:
            log.warning("group %d: %s", group, error)
            self._reject(group, "unreadable media")
        finally:
            if lease is not None and group not in self.ready:
                lease.release()
            self.progress.set()

    async def _attempt(self, group: int, sample: Sample, prompt: Prompt, lease: Lease) -> None:
        frames, info = lease.frames, lease.info
        self.ledger.generate(group)
        try:
            trajectories, oldest = await self._generate(group, prompt, frames, self.draw.n)
            if over_budget(prompt, trajectories, self.packing):
                self._reject(group, "over_budget")
                return
            self.ledger.score(group)
            view = await self._view(group, sample, prompt, lease, trajectories)
            began = time.monotonic()
            view = await self._judged(view, lease)
        except (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError, TimeoutError) as error:
            # A death or a delay can be chance; anything else, such as a prompt mismatch, is a defect and ends the run.
            self.pipeline.store.lost(error)
            self.pipeline.counts["failed generations"] += 1
            log.warning("group %d: %s", group, error)
            if self.ledger.fail(group, type(error).__name__) is State.REJECTED:
                self.admission.reject(group)
            return
        reward = self.pipeline.reward.score(view)
        self.pipeline.counts.update(reward.counts)
        if self.dynamic_sampling and no_variance(reward.rewards, reward.paid):
            self._reject(group, ZERO_VARIANCE)
            return
        made = Group(group, sample, info, prompt, trajectories, oldest)
        scored = ScoredGroup(made, reward.rewards, reward.terms, reward.paid, reward.weights, reward.evidence)
        self.ready[group] = ReadyGroup(scored, lease, (began, time.monotonic()))
        self.ledger.ready(group)
        self.admission.ready(group, oldest)

    async def _generate(
        self, group: int, prompt: Prompt, frames: ray.ObjectRef, n: int, order: tuple[int, ...] | None = None
    ) -> tuple[tuple[Trajectory, ...], int]:
        draw = self.draw
        # The seed is the group's, so that what is drawn does not depend on when.
        seed = self.seed * 1_000_003 + group
        may_start: Callable[[int], bool] = self.admission.may_start
        return await self.pipeline.rollout_pool.generate(
            may_start, prompt, frames, n, draw.temperature, draw.max_tokens, seed, order
        )

    async def _view(
        self, group: int, sample: Sample, prompt: Prompt, lease: Lease, trajectories: tuple[Trajectory, ...]
    ) -> GroupView:
        """What the reward may see of a group, but for what the referee says."""
        pipeline = self.pipeline
        trained = self.admission.version * self.admission.pacing.groups_per_step
        view = pipeline.view(sample, lease.info, trajectories, min(1.0, trained / self.groups))
        if "contrast" in pipeline.reward.needs_for(sample.task):
            # T-GRPO: half as many completions on the frames in another order; they are never trained on.
            order = np.random.default_rng([self.seed, group]).permutation(len(lease.info.times))
            half = max(1, self.draw.n // 2)
            others, _ = await self._generate(group, prompt, lease.frames, half, tuple(order.tolist()))
            view = replace(view, contrast=pipeline.view(sample, lease.info, others, view.progress))
        return view

    async def _judged(self, view: GroupView, lease: Lease) -> GroupView:
        """With what the referee says, as far as a term needs it."""
        pipeline, completions = self.pipeline, list(view.completions)
        needs = pipeline.reward.needs_for(view.sample.task)
        if pipeline.reward.ser is not None and "verdicts" in needs:
            verdicts = await pipeline.verify(pipeline.reward.ser, view.sample, completions, lease.info, lease.frames)
            view = replace(view, verdicts=tuple(verdicts))
        if "judgements" in needs:
            view = replace(view, judgements=await pipeline.judge(view))
        return view

    def _reject(self, group: int, reason: str) -> None:
        self.ledger.reject(group, reason)
        self.admission.reject(group)
