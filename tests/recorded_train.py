"""`ser train` with a record of every batch; and the plain loop that it must equal at staleness 0.

    python tests/recorded_train.py RECORD [--plain] [--kill-in STEP] CONFIG KEY=VALUE ...

RECORD gets a JSON line for each optimizer step: digests of its groups' tokens, log-probs and rewards, and its loss.
--plain: generate, score and train one group after the other, without admission, ledger or group maker. --kill-in: this
process kills itself, by SIGKILL, in that step.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from evidence.types import Group, ScoredGroup
from orchestration.config import load_config
from orchestration.loop.group_maker import ReadyGroup
from orchestration.loop.learner_step import Learner
from orchestration.loop.parts import start_parts
from orchestration.preflight import TrainInputs, check_train
from orchestration.run_directory import claimed, run_directory
from orchestration.settings import TrainConfig
from orchestration.supervision.cluster import start_ray
from orchestration.train import main
from referee.reward.asking import answered


def digest(scored: ScoredGroup) -> str:
    """Of all that the learner is given of a group."""
    found = hashlib.sha256(scored.rewards.tobytes())
    for trajectory in scored.group.trajectories:
        found.update(trajectory.token_ids.tobytes() + trajectory.logprobs.tobytes())
    return found.hexdigest()[:16]


def recorded(record: Path, kill_in: int | None) -> None:
    """Record every step of this process's learner."""
    train = Learner.train

    async def recording(self: Learner, groups: list[ReadyGroup], step: int, store: Any) -> dict[str, float]:
        if step + 1 == kill_in:
            os.kill(os.getpid(), signal.SIGKILL)
        metrics = await train(self, groups, step, store)
        batch = {ready.scored.group.id: digest(ready.scored) for ready in groups}
        with record.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"step": step + 1, "batch": batch, "loss": metrics["loss"]}) + "\n")
        return metrics

    Learner.train = recording  # type: ignore[method-assign]


async def plain(config: TrainConfig, run_dir: Path, inputs: TrainInputs) -> None:
    """Train one group after the other."""
    parts = await start_parts(config, inputs.encoder, inputs.images)
    pipeline, sampling, limits = parts.pipeline, config.sampling, config.limits
    begun = 0
    for step in range(config.steps):
        groups = []
        for group in range(begun, begun + config.pacing.groups_per_step):
            sample = inputs.train[group]
            lease, prompt = await pipeline.prepare(sample)
            drawn, oldest = await pipeline.rollout_pool.generate(
                lambda version, step=step: version == step,  # type: ignore[misc]
                prompt,
                lease.frames,
                sampling.group_size,
                sampling.temperature,
                sampling.max_tokens,
                config.seed * 1_000_003 + group,
            )
            view = pipeline.view(sample, lease.info, drawn, step / config.steps)
            reward = pipeline.reward.score(
                await answered(view, pipeline.reward, pipeline.referee, lease.info, lease.frames)
            )
            made = Group(group, sample, lease.info, prompt, drawn, oldest)
            scored = ScoredGroup(made, reward.rewards, reward.terms, reward.paid, reward.weights, reward.evidence)
            groups.append(ReadyGroup(scored, lease, (0.0, 0.0)))
        begun += config.pacing.groups_per_step
        await parts.learner.train(groups, step, pipeline.store)
        for ready in groups:
            ready.lease.release()
        await parts.publish(step + 1, limits.publish_s)
        await pipeline.rollout_pool.settled()
    await parts.learner.export(run_dir / "model")


def plain_main(config: TrainConfig) -> None:
    config, inputs = check_train(config)
    run_dir = run_directory(config.run_dir)
    with start_ray(config.cluster.object_store_gib), claimed(run_dir, config, again=False):
        asyncio.run(plain(config, run_dir, inputs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("record", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--kill-in", type=int)
    parser.add_argument("config", type=Path)
    arguments, overrides = parser.parse_known_args()
    recorded(arguments.record, arguments.kill_in)
    (plain_main if arguments.plain else main)(load_config(TrainConfig, arguments.config, overrides))
