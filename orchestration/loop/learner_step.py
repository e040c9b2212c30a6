"""One optimizer step as the loop sees it: lay out the groups, ask the reference policy, normalise rewards, train."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray

from evidence.types import ScoredGroup
from learner.advantages import Advantages, kl_penalised
from learner.losses.ratios import EDGES
from learner.packing.step import MicroLayout, gather_tokens, with_targets
from learner.settings import LossConfig, RankConfig
from orchestration.loop.batches import cut_short, layout_step, step_targets
from orchestration.loop.group_maker import ReadyGroup
from orchestration.loop.step_frames import fetch_frames
from orchestration.loop.step_rates import StepRates, effective_share
from orchestration.planning.shapes import read_shape
from orchestration.reporting.histograms import Histogram
from orchestration.settings import TrainConfig
from orchestration.supervision.learner_gang import LearnerGang
from orchestration.supervision.reference import Reference
from rollout.frames.store import FrameStore


class Learner:
    """The ranks of a run, and those of its reference policy if it has one."""

    def __init__(
        self,
        config: TrainConfig,
        model: str,
        banned_ids: tuple[int, ...],
        placed: Callable[[], object] | None = None,
    ):
        """`model`: folder of the initial weights. Returns when the ranks have loaded them; `placed` is called as soon
        as those that are trained have their GPUs."""
        learner, algorithm = config.learner, config.algorithm
        self.config = config
        self.advantages = Advantages(config.reward.normalise, algorithm.divide_by_std, algorithm.baseline)
        ranks = RankConfig(
            model=model,
            banned_ids=banned_ids,
            policy=learner.policy,
            zero=learner.zero,
            loss=LossConfig(algorithm, config.sampling.temperature),
            threads=learner.threads,
            gpu_share=1 - sum(config.memory_shares) if config.cluster.colocated else 1.0,
            limits=config.limits,
        )
        gpus = config.rank_share
        self.gang = LearnerGang(ranks, learner.ranks, gpus, placed)
        try:
            self.reference = Reference(learner.reference, self.gang, ranks, gpus) if learner.uses_reference else None
            self.rates = StepRates(config, read_shape("model.policy", model), self.gang.device)
        except BaseException:
            self.gang.stop()
            raise

    async def train(self, groups: list[ReadyGroup], step: int, store: FrameStore) -> dict[str, Any]:
        """One optimizer step after `step` others; returns its metrics."""
        config, algorithm = self.config, self.config.algorithm
        scored_groups = [ready.scored for ready in groups]
        if config.shuffle_rewards:
            scored_groups = shuffled(scored_groups, config.seed + step)

        def layouts_of(frames: list[ray.ObjectRef]) -> list[list[MicroLayout]]:
            return layout_step([s.group for s in scored_groups], frames, config.learner.ranks, config.learner.packing)

        held = [(ready.scored.group, ready.lease) for ready in groups]
        layouts, reference = await fetch_frames(held, layouts_of, self._fetch, store)
        metrics: dict[str, Any] = {}
        if reference is not None and algorithm.kl.where == "reward":
            scored_groups, metrics["kl_taken_off"] = self._kl_penalised(scored_groups, reference)
        longest = algorithm.max_length or config.sampling.max_tokens
        advantages = self.advantages.of_step(scored_groups)
        filtering = algorithm.overlong_filtering
        targets = step_targets(scored_groups, advantages, algorithm.aggregate, longest, filtering)
        if filtering:
            cut = [cut_short(scored.group.trajectories) for scored in scored_groups]
            metrics["overlong_filtered"] = float(np.sum(cut))
        parts = with_targets(layouts, replace(targets, reference=reference))
        learning_rate = config.learner.schedule.rate(step, config.steps)
        metrics |= await asyncio.to_thread(self.gang.train_step, parts, learning_rate)
        if not metrics["skipped"]:
            self.advantages.step_ended()
        shares = self.advantages.term_shares(scored_groups, advantages)
        metrics |= {f"advantage_share/{term}": share for term, share in shares.items()}
        metrics["learning_rate"] = learning_rate
        metrics |= effective_share(metrics)
        if (counts := metrics.pop("ratio_counts", None)) is not None:
            metrics["histogram/ratio"] = Histogram(EDGES, tuple(map(int, counts)))
        return metrics | self.rates.of_step([s.group for s in scored_groups], metrics["seconds"])

    async def export(self, folder: Path) -> None:
        """Write the weights as a Hugging Face model folder."""
        await asyncio.to_thread(self.gang.export, folder, self.config.learner.export_dtype)

    def stop(self) -> None:
        """End the ranks and free their resources on the cluster."""
        self.gang.stop()
        if self.reference is not None:
            self.reference.stop()

    def _fetch(self, layouts: list[list[MicroLayout]]) -> np.ndarray | None:
        """Bring the frames to the ranks. Returns the reference policy's log-probs of the step's tokens, float32
        [tokens], or None without a reference policy."""
        self.gang.fetch(layouts)
        return None if self.reference is None else gather_tokens(layouts, self.reference.logprobs(layouts))

    def _kl_penalised(
        self, scored_groups: Sequence[ScoredGroup], reference: np.ndarray
    ) -> tuple[list[ScoredGroup], float]:
        """(the groups with the KL price taken off their rewards, its mean)."""
        kl = self.config.algorithm.kl
        penalised, start = [], 0
        for scored in scored_groups:
            behaviour = [t.logprobs for t in scored.group.trajectories]
            ends = start + np.cumsum([len(logprobs) for logprobs in behaviour])
            tokens = np.split(reference[start : ends[-1]], ends[:-1] - start)
            penalised.append(replace(scored, rewards=kl_penalised(scored.rewards, behaviour, tokens, kl)))
            start = int(ends[-1])
        price = [before.rewards - after.rewards for before, after in zip(scored_groups, penalised)]
        return penalised, float(np.mean(price))


def shuffled(scored_groups: Sequence[ScoredGroup], seed: int) -> list[ScoredGroup]:
    """The control: the rewards of each group permuted at random over its trajectories, so that they say nothing."""
    rng = np.random.default_rng(seed)
    permuted = []
    for scored in scored_groups:
        order = rng.permutation(len(scored.rewards))
        paid = {name: values[order] for name, values in scored.paid.items()}
        permuted.append(replace(scored, rewards=scored.rewards[order], paid=paid))
    return permuted
