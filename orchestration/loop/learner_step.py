"""From a step's groups to the ranks: laid out, held against the reference policy, given advantages, trained on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import ray

from evidence.types import ScoredGroup
from learner.advantages import Advantages, kl_penalised
from learner.packing.step import MicroLayout, gather_tokens, with_targets
from learner.settings import LossConfig, RankConfig
from orchestration.loop.batches import layout_step, step_targets
from orchestration.loop.group_maker import ReadyGroup, with_frames
from orchestration.settings import TrainConfig
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.reference import Reference
from rollout.frames.store import FrameStore


class Learner:
    """The ranks of a run, and of its reference policy if it has one."""

    def __init__(self, config: TrainConfig, model: str, banned_ids: tuple[int, ...]):
        """`model`: folder of the weights to begin with. Returns when the ranks have loaded them."""
        learner, algorithm, timeout_s = config.learner, config.algorithm, config.cluster.timeout_s
        self.config = config
        self.advantages = Advantages(config.reward.normalise, algorithm.divide_by_std, algorithm.baseline)
        ranks = RankConfig(
            model=model,
            banned_ids=banned_ids,
            policy=learner.policy,
            zero=learner.zero,
            loss=LossConfig(algorithm, config.sampling.temperature),
            timeout_s=timeout_s,
        )
        gpus = config.cluster.gpus_per_rank
        self.gang = LearnerGang(ranks, learner.ranks, gpus)
        self.reference = Reference(learner.reference, self.gang, ranks, gpus) if learner.uses_reference else None

    async def train(self, groups: list[ReadyGroup], version: int, store: FrameStore) -> dict[str, float]:
        """One optimizer step from `version`; its metrics."""
        config = self.config
        scored = [ready.scored for ready in groups]
        if config.shuffle_rewards:
            scored = shuffled(scored, config.seed + version)

        def layouts_of(frames: list[ray.ObjectRef]) -> list[list[MicroLayout]]:
            return layout_step([s.group for s in scored], frames, config.learner.ranks, config.learner.packing)

        held = [(ready.scored.group, ready.lease) for ready in groups]
        layouts, reference = await with_frames(held, layouts_of, self._look, store)
        metrics = {}
        if reference is not None and config.algorithm.kl.where == "reward":
            scored, metrics["kl_taken_off"] = self._priced(scored, reference)
        algorithm = config.algorithm
        longest = algorithm.max_length or config.sampling.max_tokens
        targets = step_targets(scored, self.advantages.of_step(scored), algorithm.aggregate, longest)
        parts = with_targets(layouts, replace(targets, reference=reference))
        learning_rate = config.learner.schedule.rate(version, config.steps)
        metrics |= await asyncio.to_thread(self.gang.train_step, parts, learning_rate)
        if not metrics["skipped"]:
            self.advantages.step_ended()
        return metrics

    def stop(self) -> None:
        """End the ranks, and give back what they had of the cluster."""
        self.gang.stop()
        if self.reference is not None:
            self.reference.stop()

    def _look(self, layouts: list[list[MicroLayout]]) -> np.ndarray | None:
        """Bring the frames to the ranks; the reference's log-probs of the step's tokens, float32 [tokens], if any."""
        self.gang.fetch(layouts)
        return None if self.reference is None else gather_tokens(layouts, self.reference.logprobs(layouts))

    def _priced(self, scored: Sequence[ScoredGroup], reference: np.ndarray) -> tuple[list[ScoredGroup], float]:
        """With the price of leaving the reference taken off the rewards, and its mean."""
        priced, at = [], 0
        for one in scored:
            behaviour = [t.logprobs for t in one.group.trajectories]
            ends = at + np.cumsum([len(each) for each in behaviour])
            tokens = np.split(reference[at : ends[-1]], ends[:-1] - at)
            priced.append(replace(one, rewards=kl_penalised(one.rewards, behaviour, tokens, self.config.algorithm.kl)))
            at = int(ends[-1])
        return priced, float(np.mean([a.rewards - b.rewards for a, b in zip(scored, priced)]))


def shuffled(scored: list[ScoredGroup], seed: int) -> list[ScoredGroup]:
    """The control: each group's rewards dealt to its trajectories at random, so that they say nothing."""
    rng = np.random.default_rng(seed)
    dealt = []
    for one in scored:
        order = rng.permutation(len(one.rewards))
        paid = {name: values[order] for name, values in one.paid.items()}
        dealt.append(replace(one, rewards=one.rewards[order], paid=paid))
    return dealt
